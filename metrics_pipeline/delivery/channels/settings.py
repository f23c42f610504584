"""Which channels and receivers an installation has. Routing by rule, metric and business line will replace `receivers_from`."""

from __future__ import annotations

from collections.abc import Mapping

from metrics_pipeline.delivery.channels.channel import Channel
from metrics_pipeline.delivery.channels.console import ConsoleChannel
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.channels.smtp import SmtpChannel
from metrics_pipeline.settings import Settings


def channels_from(settings: Settings, *, console: bool = False) -> Mapping[str, Channel]:
    """The channels by name: `file` always, `smtp` when METRICS_SMTP_URL is set, `console` for the command line.

    Raises `SettingsError` when METRICS_SMTP_URL cannot be used.
    """
    channels: list[Channel] = [FileChannel(settings.messages_dir)]
    if console:
        channels.append(ConsoleChannel())
    if settings.smtp_url is not None:
        channels.append(SmtpChannel.from_url(settings.smtp_url.get_secret_value(), sender=settings.email_from))
    return {channel.name: channel for channel in channels}


def receivers_from(settings: Settings, *, console: bool = False) -> tuple[str, ...]:
    """Who is told of every alert: the file channel, the console on request, and each address of METRICS_EMAIL_TO."""
    people = [f"smtp:{address}" for address in settings.email_to] if settings.smtp_url is not None else []
    return ("file", *(["console"] if console else []), *people)
