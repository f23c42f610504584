"""Email against a real SMTP server that can refuse, hesitate and hang up."""

from __future__ import annotations

import email
import smtplib
import socket
import ssl
import subprocess
from dataclasses import replace
from email import policy
from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from metrics_pipeline.delivery.channels import PermanentFailure, TemporaryFailure
from metrics_pipeline.delivery.channels.smtp import SmtpChannel
from metrics_pipeline.delivery.messages import compose
from metrics_pipeline.settings import SettingsError
from tests.advice.builders import make_cause, make_diagnosis
from tests.delivery.builders import make_drill, make_end, make_explained, make_notice

MESSAGE = compose(make_notice())


class Mailbox:
    """Keeps mails; answers as scripted, one answer per mail or recipient."""

    def __init__(self, *, data: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> None:
        self.data, self.rcpt = list(data), list(rcpt)
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.was_encrypted: list[bool] = []

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = self.rcpt.pop(0) if self.rcpt else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server, session, envelope):
        answer = self.data.pop(0) if self.data else "250 2.0.0 queued as 42"
        if answer.startswith("250"):
            self.mails.append(email.message_from_bytes(envelope.content, policy=policy.default))
            self.recipients += envelope.rcpt_tos
            self.was_encrypted.append(session.ssl is not None)
        return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def serve():
    started = []

    def start(mailbox, **options) -> int:
        controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **options)
        controller.start()
        started.append(controller)
        return controller.port

    yield start
    for controller in started:
        controller.stop()


def channel(port: int, **options) -> SmtpChannel:
    return SmtpChannel("127.0.0.1", port, "Metrics <alerts@shop.example>", timeout=5, **options)


def test_a_mail_has_text_html_and_the_plot_inline(serve):
    mailbox = Mailbox()
    answer = channel(serve(mailbox)).send(MESSAGE, "ops@shop.example")
    assert answer == "250 2.0.0 queued as 42"
    [mail] = mailbox.mails
    assert mailbox.recipients == ["ops@shop.example"]
    assert mail["Subject"] == MESSAGE.title
    assert mail["Message-ID"] == f"<{MESSAGE.id}@shop.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "multipart/alternative"
    assert mail.get_body(("plain",)).get_content().replace("\r\n", "\n") == MESSAGE.text
    html = mail.get_body(("html",)).get_content()
    [plot] = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert f'src="cid:{plot["Content-ID"].strip("<>")}"' in html
    assert plot.get_content().startswith(b"\x89PNG")
    assert plot.get_content_disposition() == "inline"


def test_a_mail_shows_the_causes_beside_the_plot(serve):
    mailbox = Mailbox()
    explained = replace(make_explained(), diagnosis=make_diagnosis(causes=(make_cause({"region": "华东"}),)))
    channel(serve(mailbox)).send(replace(MESSAGE, explained=explained), "ops@shop.example")
    [mail] = mailbox.mails
    html = mail.get_body(("html",)).get_content()
    pictures = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert [part.get_filename() for part in pictures] == ["plot.png", "cause.png"]
    assert all(f'src="cid:{part["Content-ID"].strip("<>")}"' in html for part in pictures)
    assert pictures[0].get_content() != pictures[1].get_content()


def test_a_mail_without_a_series_has_no_image(serve):
    mailbox = Mailbox()
    channel(serve(mailbox)).send(compose(make_end()), "ops@shop.example")
    assert [part.get_content_type() for part in mailbox.mails[0].walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    assert mailbox.mails[0]["X-Priority"] is None


def test_the_subject_of_a_drill_begins_with_the_word(serve):
    mailbox = Mailbox()
    channel(serve(mailbox)).send(compose(make_drill()), "ops@shop.example")
    assert mailbox.mails[0]["Subject"] == "[演练 · 红色报警] 退款率：地区=华北"


def test_the_same_message_has_the_same_id_on_every_attempt(serve):
    mailbox = Mailbox()
    sender = channel(serve(mailbox))
    sender.send(MESSAGE, "ops@shop.example")
    sender.send(MESSAGE, "ops@shop.example")
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 1


def test_a_4xx_is_temporary_and_the_next_attempt_arrives(serve):
    mailbox = Mailbox(data=("451 4.3.0 try again later",))
    sender = channel(serve(mailbox))
    with pytest.raises(TemporaryFailure, match=r"451 4\.3\.0 try again later"):
        sender.send(MESSAGE, "ops@shop.example")
    sender.send(MESSAGE, "ops@shop.example")
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize(
    ("script", "failure", "said"),
    [
        ({"rcpt": ("550 5.1.1 no such user",)}, PermanentFailure, "ops@shop.example: 550 5.1.1 no such user"),
        ({"rcpt": ("450 4.2.1 mailbox busy",)}, TemporaryFailure, "450 4.2.1 mailbox busy"),
        ({"data": ("554 5.6.0 looks like spam",)}, PermanentFailure, "554 5.6.0 looks like spam"),
    ],
)
def test_what_the_server_refuses_is_said_in_its_own_words(serve, script, failure, said):
    with pytest.raises(failure, match=said):
        channel(serve(Mailbox(**script))).send(MESSAGE, "ops@shop.example")


def test_no_server_is_temporary():
    with pytest.raises(TemporaryFailure, match=r"127\.0\.0\.1:\d+: .*refused"):
        channel(free_port()).send(MESSAGE, "ops@shop.example")


def test_a_server_that_is_silent_times_out():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        slow = SmtpChannel("127.0.0.1", silent.getsockname()[1], "a@b", timeout=0.3)
        with pytest.raises(TemporaryFailure, match="timed out"):
            slow.send(MESSAGE, "ops@shop.example")


def test_a_receiver_without_an_address_is_permanent():
    with pytest.raises(PermanentFailure, match="smtp:<address>"):
        channel(1).send(MESSAGE, "")


def accept_only(password: bytes):
    def check(server, session, envelope, mechanism, data):
        return AuthResult(success=isinstance(data, LoginPassword) and data.password == password, handled=False)

    return check


def test_a_refused_login_is_temporary_and_never_shows_the_password(serve):
    port = serve(Mailbox(), authenticator=accept_only(b"right"), auth_require_tls=False)
    sender = channel(port, user="bot", password="wrong-secret")
    with pytest.raises(TemporaryFailure, match="login refused: 535") as failure:
        sender.send(MESSAGE, "ops@shop.example")
    assert "wrong-secret" not in str(failure.value)
    assert "wrong-secret" not in repr(sender)


def test_a_login_that_is_right_sends(serve):
    mailbox = Mailbox()
    port = serve(mailbox, authenticator=accept_only(b"r:ght@"), auth_require_tls=False)
    SmtpChannel.from_url(f"smtp://bot:r%3Aght%40@127.0.0.1:{port}", sender="a@shop").send(MESSAGE, "ops@shop.example")
    assert len(mailbox.mails) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not installed")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


def test_starttls_is_used_when_offered(serve, certificate):
    server, client = certificate
    mailbox = Mailbox()
    channel(serve(mailbox, tls_context=server), context=client).send(MESSAGE, "ops@shop.example")
    assert mailbox.was_encrypted == [True]


def test_smtps_speaks_tls_from_the_start(certificate):
    server, client = certificate
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), ssl_context=server)
    # the controller's own probe does not know our certificate
    controller._trigger_server = lambda: smtplib.SMTP_SSL("127.0.0.1", controller.port, context=client).quit()
    controller.start()
    try:
        channel(controller.port, security="tls", context=client).send(MESSAGE, "ops@shop.example")
    finally:
        controller.stop()
    assert len(mailbox.mails) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(serve, certificate):
    server, _ = certificate
    mailbox = Mailbox()
    with pytest.raises(TemporaryFailure, match="certificate"):
        channel(serve(mailbox, tls_context=server)).send(MESSAGE, "ops@shop.example")
    assert mailbox.mails == []


def test_a_password_is_not_sent_in_the_clear_to_another_host(serve, monkeypatch):
    mailbox = Mailbox()
    port = serve(mailbox)
    monkeypatch.setattr("metrics_pipeline.delivery.channels.smtp.LOCAL", ())
    with pytest.raises(TemporaryFailure, match="not sent in the clear"):
        channel(port, user="bot", password="secret").send(MESSAGE, "ops@shop.example")


@pytest.mark.parametrize("url", ["http://host", "smtp://", "smtp://user:secret@host:port", "mail"])
def test_a_url_that_cannot_be_used_is_named_without_its_password(url):
    with pytest.raises(SettingsError, match="METRICS_SMTP_URL") as failure:
        SmtpChannel.from_url(url, sender="a@b")
    assert "secret" not in str(failure.value)


def test_default_ports_follow_the_scheme():
    assert SmtpChannel.from_url("smtp://h", sender="a@b").port == 25
    assert SmtpChannel.from_url("smtps://h", sender="a@b").port == 465
