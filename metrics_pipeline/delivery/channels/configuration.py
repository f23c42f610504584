"""What the settings of all channels share: how a secret is named and read, whom a bot mentions.

A secret never stands in `channels.yml`: `<what>_env` names an environment variable, `<what>_file` a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from metrics_pipeline.delivery.channels.redaction import keep_secret
from metrics_pipeline.settings import SettingsError, read_secret

if TYPE_CHECKING:
    from metrics_pipeline.delivery.channels.channel import Channel
    from metrics_pipeline.delivery.messages import Message

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Phone = Annotated[str, Field(pattern=r"^\+?[0-9]{5,15}$")]
BaseUrl = Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]


@dataclass(frozen=True)
class Vault:
    """Where named secrets are read: the environment, and files (relative ones lie in `folder`)."""

    folder: Path
    environ: Mapping[str, str] | None = None

    def secret(self, settings: ChannelSettings, what: str) -> str:
        """The secret `<what>_env` or `<what>_file` names. Raises `SettingsError` when it is empty or not there."""
        env: str | None = getattr(settings, f"{what}_env")
        file: Path | None = getattr(settings, f"{what}_file")
        if file is not None:
            file = self.folder / file.expanduser()
        return keep_secret(read_secret(env=env, file=file, environ=self.environ))

    def optional(self, settings: ChannelSettings, what: str) -> str | None:
        """The same, or None when neither is named."""
        if getattr(settings, f"{what}_env") is None and getattr(settings, f"{what}_file") is None:
            return None
        return self.secret(settings, what)

    def url(self, settings: ChannelSettings) -> str:
        """The secret `url`, when it is a URL of http or https. Raises `SettingsError`; the text does not repeat it."""
        url = self.secret(settings, "url")
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
            named = getattr(settings, "url_env") or getattr(settings, "url_file")  # noqa: B009 - declared by the kinds
            raise SettingsError(f"{named}: not a URL of http or https; copy the whole address of the webhook")
        return url


class ChannelSettings(BaseModel):
    """One channel in `channels.yml`, whatever its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    required_secrets: ClassVar[tuple[str, ...]] = ()
    optional_secrets: ClassVar[tuple[str, ...]] = ()

    kind: str
    limit: int | None = Field(default=None, ge=1)
    """Messages a minute."""

    @model_validator(mode="after")
    def _secrets_are_named_once(self) -> ChannelSettings:
        for what in (*self.required_secrets, *self.optional_secrets):
            named = [key for key in (f"{what}_env", f"{what}_file") if getattr(self, key) is not None]
            if len(named) == 2:
                raise ValueError(f"{what} is named twice; keep {what}_env or {what}_file")
            if not named and what in self.required_secrets:
                raise ValueError(
                    f"{what} is not named; write {what}_env: <environment variable> or {what}_file: <path>"
                )
        return self

    def open(self, name: str, vault: Vault) -> Channel:
        """The channel. Raises `SettingsError` when a secret cannot be read."""
        raise NotImplementedError


class Mentions(BaseModel):
    """Whom a bot calls by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    phones: tuple[Phone, ...] = ()
    users: tuple[str, ...] = ()
    """User ids of the vendor."""
    all: bool = False
    when: Literal["red", "always"] = "red"
    """`red`: only messages that tell of a red alert; `always`: every message that tells of an alert."""

    @classmethod
    def of_address(cls, address: str) -> Mentions:
        """From the address of a receiver: phones, user ids and `@all`, separated by commas."""
        phones, users, everybody = [], [], False
        for part in (part.strip() for part in address.split(",")):
            if part.lower() in ("@all", "all"):
                everybody = True
            elif re.fullmatch(r"\+?\d{11,15}", part):
                phones.append(part)
            elif part:
                users.append(part.removeprefix("@"))
        return cls(phones=tuple(phones), users=tuple(users), all=everybody, when="always")

    def of(self, message: Message, address: str = "") -> Mentions:
        """Who is called by this message: these, its own and those of the address; nobody when it only brings an end."""
        if message.is_over:
            return Mentions()
        called = Mentions.of_address(",".join((*message.mentions, address)))
        if self.when == "red" and message.notice.tier != "red":
            return called
        return Mentions(
            phones=tuple(dict.fromkeys((*self.phones, *called.phones))),
            users=tuple(dict.fromkeys((*self.users, *called.users))),
            all=self.all or called.all,
            when="always",
        )

    def __bool__(self) -> bool:
        return bool(self.phones or self.users or self.all)


NOBODY = Mentions()


def plain_error(detail: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong and the mend, of one pydantic error. Values are not repeated: one may be a secret in a wrong place."""
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    kind = detail["type"]
    if kind == "extra_forbidden":
        if re.search(r"(url|secret|token|password|key)$", key):
            return (
                f"{key} must not stand in this file",
                f"put it into an environment variable or a file and name it: {key}_env or {key}_file",
            )
        return f"key {key!r} is not known", "rename or remove it (docs/channels.md lists the keys)"
    if kind == "missing":
        return f"{key} is missing", "add it (docs/channels.md)"
    if kind == "string_pattern_mismatch" and key.endswith("_env"):
        return f"{key} is not the name of an environment variable", "write a name such as DINGTALK_OPS_URL"
    text = str(detail["msg"]).removeprefix("Value error, ")
    head, _, mend = text.partition("; ")
    return (f"{key}: {head}" if key else head), mend or "write it as docs/channels.md shows"
