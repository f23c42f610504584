"""Messages by SMTP email: plain text and HTML, the plot inline.

The Message-ID is made from the notification's key, so a message that was sent twice (a crash between sending and
recording) is recognised as one by mail programs. Answers of the server are kept as they came; the password never is.
"""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field

from metrics_pipeline.delivery.channels.channel import PermanentFailure, TemporaryFailure
from metrics_pipeline.delivery.channels.configuration import ChannelSettings, EnvName, Vault
from metrics_pipeline.delivery.messages import Message
from metrics_pipeline.settings import SettingsError

Security = Literal["starttls", "tls"]
PORTS = {"starttls": 25, "tls": 465}
LOCAL = ("localhost", "127.0.0.1", "::1")


class SmtpSettings(ChannelSettings):
    """A further mail server in `channels.yml`; METRICS_SMTP_URL needs none of this."""

    required_secrets: ClassVar[tuple[str, ...]] = ("url",)

    kind: Literal["smtp"] = "smtp"
    url_env: EnvName | None = None
    url_file: Path | None = None
    sender: str = Field(min_length=3)
    """`address` or `Name <address>`."""

    def open(self, name: str, vault: Vault) -> SmtpChannel:
        """The channel. Raises `SettingsError` when the secret cannot be read or is not an SMTP URL."""
        return SmtpChannel.from_url(
            vault.secret(self, "url"),
            sender=self.sender,
            name=name,
            limit=self.limit,
            named=str(self.url_env or self.url_file),
        )


@dataclass(frozen=True)
class SmtpChannel:
    """Sends through one server. `starttls`: encrypts when the server offers it, and always before a password."""

    host: str
    port: int
    sender: str
    security: Security = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 20.0
    """Seconds for each step of the dialogue."""
    context: ssl.SSLContext | None = None
    name: str = "smtp"
    limit: int | None = None

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        sender: str,
        timeout: float = 20.0,
        name: str = "smtp",
        limit: int | None = None,
        named: str = "METRICS_SMTP_URL",
    ) -> SmtpChannel:
        """From `smtp://user:password@host:port` (STARTTLS) or `smtps://…` (TLS). Raises `SettingsError` that says `named`."""
        expected = "expected smtp://user:password@host:port or smtps://…"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SettingsError(f"{named}: the port is not a number; {expected}") from None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise SettingsError(f"{named}: not an SMTP URL; {expected}")
        security: Security = "tls" if parts.scheme == "smtps" else "starttls"
        return cls(
            host=parts.hostname,
            port=port or PORTS[security],
            sender=sender,
            security=security,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            timeout=timeout,
            name=name,
            limit=limit,
        )

    def send(self, message: Message, address: str) -> str:
        """Send to one address and return what the server answered.

        Raises `PermanentFailure` on a 5xx for this message or address, `TemporaryFailure` on 4xx and on everything
        that is not about this message: no connection, a time-out, a refused login.
        """
        if not address:
            raise PermanentFailure("the receiver has no address; expected smtp:<address>")
        mail = self.compose(message, address)
        is_connected = False
        try:
            with self._connected() as server:
                is_connected = True
                return self._deliver(server, mail, address)
        except smtplib.SMTPAuthenticationError as error:
            raise TemporaryFailure(f"{self._where}: login refused: {self._text(error)}", refused=True) from None
        except (smtplib.SMTPConnectError, smtplib.SMTPHeloError) as error:
            raise TemporaryFailure(f"{self._where}: {self._text(error)}", refused=True) from None
        except smtplib.SMTPResponseException as error:
            raise self._failure(error.smtp_code, self._text(error)) from None
        except smtplib.SMTPRecipientsRefused as error:
            code, answer = error.recipients[address]
            raise self._failure(code, f"{address}: {code} {_decoded(answer)}") from None
        except smtplib.SMTPNotSupportedError as error:
            raise PermanentFailure(f"{self._where}: {error}") from None
        except (OSError, smtplib.SMTPException) as error:  # time-outs, TLS errors and broken connections among them
            said = self._hidden(str(error)) or type(error).__name__
            raise TemporaryFailure(f"{self._where}: {said}", refused=not is_connected) from None

    def compose(self, message: Message, address: str) -> EmailMessage:
        """The email: text, HTML, and its pictures as related PNG parts."""
        mail = EmailMessage(policy=SMTP_POLICY)
        domain = self.sender.rpartition("@")[2].strip("> ") or "localhost"
        mail["Subject"] = message.title
        mail["From"] = self.sender
        mail["To"] = address
        mail["Date"] = format_datetime(message.notice.created_at)
        mail["Message-ID"] = f"<{message.id}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Metrics-Rule"] = message.notice.rule.id
        if message.notice.tier == "red" and not message.is_over:
            mail["X-Priority"] = "1"
        mail.set_content(message.text)
        pictures = {"plot": message.plot, "cause": message.cause_plot}
        shown = {name: f"{name}.{message.id}@{domain}" for name, one in pictures.items() if one is not None}
        sources = (f"cid:{shown[name]}" if name in shown else None for name in pictures)
        mail.add_alternative(message.html_with(*sources), subtype="html")
        html = mail.get_payload()[1]  # type: ignore[index]
        for name, content_id in shown.items():
            html.add_related(  # type: ignore[union-attr]
                pictures[name].png(),  # type: ignore[union-attr]
                "image",
                "png",
                cid=f"<{content_id}>",
                filename=f"{name}.png",
                disposition="inline",
            )
        return mail

    @property
    def _where(self) -> str:
        return f"{self.host}:{self.port}"

    def _connected(self) -> smtplib.SMTP:
        context = self.context or ssl.create_default_context()
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=self.timeout)

    def _deliver(self, server: smtplib.SMTP, mail: EmailMessage, address: str) -> str:
        server.ehlo_or_helo_if_needed()
        if self.security == "starttls" and server.has_extn("starttls"):
            server.starttls(context=self.context or ssl.create_default_context())
            server.ehlo()
        elif self.security == "starttls" and self.user and self.host not in LOCAL:
            raise TemporaryFailure(
                f"{self._where} offers no encryption; the password is not sent in the clear: use smtps:// or another port",
                refused=True,
            )
        if self.user:
            server.login(self.user, self.password)
        code, answer = server.mail(self.sender_address)
        if code != 250:
            raise smtplib.SMTPSenderRefused(code, answer, self.sender_address)
        code, answer = server.rcpt(address)
        if code not in (250, 251):
            raise smtplib.SMTPRecipientsRefused({address: (code, answer)})
        code, answer = server.data(mail.as_bytes())
        if code != 250:
            raise smtplib.SMTPDataError(code, answer)
        return f"{code} {_decoded(answer)}"

    @property
    def sender_address(self) -> str:
        """The bare address of `Name <address>`."""
        return self.sender.rpartition("<")[2].rstrip("> ") or self.sender

    def _failure(self, code: int, answer: str) -> TemporaryFailure | PermanentFailure:
        return PermanentFailure(answer) if 500 <= code < 600 else TemporaryFailure(answer, refused=True)

    def _text(self, error: smtplib.SMTPResponseException) -> str:
        return self._hidden(f"{error.smtp_code} {_decoded(error.smtp_error)}")

    def _hidden(self, text: str) -> str:
        return text.replace(self.password, "***") if self.password else text


def _decoded(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
