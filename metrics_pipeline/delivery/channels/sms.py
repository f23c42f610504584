"""What text messages of every vendor share: an approved template, filled with the fields of a message.

Carriers allow no free text and no links: the template is written and approved at the vendor, `params` says which field
(`forms.FIELDS`) fills which variable, each cut to what the vendor takes. A text message costs money and reaches one phone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from metrics_pipeline.alerts.words import Locale
from metrics_pipeline.delivery.channels.channel import PermanentFailure
from metrics_pipeline.delivery.channels.configuration import BaseUrl, ChannelSettings, EnvName, Vault
from metrics_pipeline.delivery.forms import FIELDS, fields
from metrics_pipeline.delivery.messages import Message

TIMEOUT = 10
"""Seconds."""
MISSING = "the vendor's library is not installed"
MEND_MISSING = "install it: pip install 'metrics-pipeline[sms]'"


def _known_field(name: str) -> str:
    if name not in FIELDS:
        raise ValueError(f"field {name!r} is not known; the fields are {', '.join(FIELDS)}")
    return name


FieldName = Annotated[str, AfterValidator(_known_field)]


class SmsSettings(ChannelSettings):
    """Text messages in `channels.yml`."""

    required_secrets: ClassVar[tuple[str, ...]] = ("key_id", "key_secret")

    key_id_env: EnvName | None = None
    key_id_file: Path | None = None
    key_secret_env: EnvName | None = None
    key_secret_file: Path | None = None
    sign_name: str = Field(min_length=1)
    """The approved signature, without brackets."""
    template: str = Field(min_length=1)
    """Id of the approved template."""
    end_template: str | None = None
    """Template for the end of an alert; it gets the same parameters. Default: the same template."""
    locale: Literal["zh", "en"] | None = None
    """Language of the fields; default: the first language of the installation."""
    base_url: BaseUrl | None = None
    """Scheme and host of the vendor's API to use instead of the public one: a gateway, another region."""

    def keys(self, vault: Vault) -> dict[str, str]:
        """The secrets of a channel as its fields `key_id` and `key_secret`. Raises `SettingsError` when one cannot be read."""
        return {name: vault.secret(self, name) for name in self.required_secrets}

    def template_of(self, message: Message) -> str:
        """The template for this message."""
        return (self.end_template or self.template) if message.is_over else self.template


@dataclass(frozen=True)
class SmsChannel:
    """One signature and template at a vendor. Addresses are phone numbers."""

    name: str
    settings: SmsSettings
    key_id: str = field(repr=False)
    key_secret: str = field(repr=False)

    @property
    def limit(self) -> int | None:
        """Messages a minute; None: as many as there are."""
        return self.settings.limit


def phone_of(address: str) -> str:
    """The phone number of a receiver's address. Raises `PermanentFailure` when it is not one."""
    phone = re.sub(r"[\s-]", "", address)
    if not re.fullmatch(r"\+?[0-9]{5,15}", phone):
        raise PermanentFailure(
            "the receiver has no phone number",
            mend="write the receiver as <channel>:<number>, such as sms:+8613800001111",
        )
    return phone


def values(message: Message, names: tuple[str, ...], longest: int, locale: Locale | None) -> list[str]:
    """The fields of these names, each of at most `longest` characters: vendors count characters here."""
    known = fields(message, locale)
    return [known[name] if len(known[name]) <= longest else f"{known[name][: longest - 1]}…" for name in names]
