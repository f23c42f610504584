"""Which channels an installation has: the built-in ones and those of `<home>/channels.yml`. Routing will replace `receivers_from`.

A channel that cannot be used never stops the others: it is there as an `UnusableChannel`, which gives its reason for an
answer, and `metrics channels list` shows what is wrong with the file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metrics_pipeline.delivery.channels.channel import Channel, PermanentFailure
from metrics_pipeline.delivery.channels.configuration import ChannelSettings, Vault, plain_error
from metrics_pipeline.delivery.channels.console import ConsoleChannel
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.channels.smtp import SmtpChannel
from metrics_pipeline.delivery.messages import Message
from metrics_pipeline.settings import Settings, SettingsError
from metrics_pipeline.yaml_values import MarkedYAMLError, YAMLError, plain, read_yaml

log = logging.getLogger(__name__)

KINDS: Mapping[str, str] = {
    "dingtalk": "dingtalk:DingTalkSettings",
    "wecom": "wecom:WeComSettings",
    "feishu": "feishu:FeishuSettings",
    "smtp": "smtp:SmtpSettings",
    "sms_aliyun": "sms_aliyun:AliyunSmsSettings",
    "sms_tencent": "sms_tencent:TencentSmsSettings",
    "webhook": "webhook:WebhookSettings",
    "apprise": "apprise:AppriseSettings",
}
"""Kind in `channels.yml` → module and model of its settings; imported when the kind is used."""
RESERVED = ("file", "console", "smtp")
EXAMPLE = "write channels: {ops_dingtalk: {kind: dingtalk, url_env: DINGTALK_OPS_URL}}"


@dataclass(frozen=True, order=True)
class ChannelProblem:
    """One thing that is wrong with `channels.yml`."""

    file: Path
    line: int
    channel: str | None
    """None when it is about the file."""
    message: str
    mend: str

    def __str__(self) -> str:
        subject = f"{self.channel}: " if self.channel else ""
        return f"{self.file}:{self.line}: {subject}{self.message}; {self.mend}"


@dataclass(frozen=True)
class UnusableChannel:
    """Stands for a channel that is set up wrongly; it refuses every message with the reason."""

    name: str
    kind: str
    problem: str
    limit: int | None = None

    def send(self, message: Message, address: str) -> str:
        """Raises `PermanentFailure`: the message goes the way of a dead letter, and is told."""
        raise PermanentFailure(self.problem)


@dataclass(frozen=True)
class ChannelFile:
    """What `channels.yml` has: the settings that can be used, and everything that is wrong with the others."""

    settings: Mapping[str, ChannelSettings]
    kinds: Mapping[str, str]
    """Kind by name, of the wrong ones too."""
    problems: tuple[ChannelProblem, ...] = ()

    def problem_of(self, name: str) -> str | None:
        """All that is wrong with a channel, or None."""
        return "; ".join(str(problem) for problem in self.problems if problem.channel == name) or None


def channels_from(
    settings: Settings, *, console: bool = False, environ: Mapping[str, str] | None = None
) -> Mapping[str, Channel]:
    """The channels by name: `file` always, `smtp` when METRICS_SMTP_URL is set, `console` for the command line, those of the file.

    Raises `SettingsError` when METRICS_SMTP_URL cannot be used. `environ`: where secrets are looked up (default: the process's).
    What is wrong with the file is logged.
    """
    found = read_channels(settings.channels_file)
    channels = open_channels(settings, found, console=console, environ=environ)
    for problem in found.problems:
        if problem.channel not in channels:
            log.warning("%s", problem)
    for channel in channels.values():
        if isinstance(channel, UnusableChannel):
            log.warning("channel %s: %s", channel.name, channel.problem)
    return channels


def open_channels(
    settings: Settings, found: ChannelFile, *, console: bool = False, environ: Mapping[str, str] | None = None
) -> Mapping[str, Channel]:
    """The built-in channels and those of a file that was read; nothing is logged."""
    channels: list[Channel] = [FileChannel(settings.messages_dir)]
    if console:
        channels.append(ConsoleChannel())
    if settings.smtp_url is not None:
        channels.append(SmtpChannel.from_url(settings.smtp_url.get_secret_value(), sender=settings.email_from))
    vault = Vault(settings.channels_file.parent, environ)
    channels += [_opened(name, kind, found, vault) for name, kind in found.kinds.items()]
    return {channel.name: channel for channel in channels}


def kind_of(channel: Channel) -> str:
    """The kind of a channel, as `channels.yml` calls it."""
    if isinstance(channel, UnusableChannel):
        return channel.kind
    module = type(channel).__module__
    return module.rpartition(".")[2]


def receivers_from(settings: Settings, *, console: bool = False) -> tuple[str, ...]:
    """Who is told of every alert: the file channel, the console on request, and each address of METRICS_EMAIL_TO."""
    people = [f"smtp:{address}" for address in settings.email_to] if settings.smtp_url is not None else []
    return ("file", *(["console"] if console else []), *people)


def read_channels(path: Path) -> ChannelFile:
    """Read and check `channels.yml`; no file is no channels. Never raises for what is in the file, and reads no secret."""
    if not path.exists():
        return ChannelFile({}, {})
    try:
        content = read_yaml(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        return _broken(path, line, "this is not valid YAML", "mend the YAML at this line")
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        return _broken(path, 1, f"cannot be read: {type(error).__name__}", "write it as YAML in UTF-8")
    if content is None:
        return ChannelFile({}, {})
    if not isinstance(content, dict) or not isinstance(content.get("channels"), dict):
        return _broken(path, 1, "there is no mapping `channels:`", EXAMPLE)
    problems = [
        ChannelProblem(path, _line(content, key), None, f"key {key!r} is not known", "only channels: stands at the top")
        for key in content
        if key != "channels"
    ]
    usable: dict[str, ChannelSettings] = {}
    kinds: dict[str, str] = {}
    for key, raw in content["channels"].items():
        name, line = str(key), _line(content["channels"], key)
        kinds[name] = str(raw.get("kind", "?")) if isinstance(raw, dict) else "?"
        found = _settings(path, line, name, raw)
        if isinstance(found, ChannelSettings):
            usable[name] = found
        else:
            problems += found
    return ChannelFile(usable, {name: kind for name, kind in kinds.items() if name not in RESERVED}, tuple(problems))


def _settings(path: Path, line: int, name: str, raw: Any) -> ChannelSettings | list[ChannelProblem]:
    if name in RESERVED or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        what = "this name is taken by a built-in channel" if name in RESERVED else "this is not a name for a channel"
        return [ChannelProblem(path, line, name, what, "use small letters, digits and _, such as ops_dingtalk")]
    if not isinstance(raw, dict):
        return [ChannelProblem(path, line, name, "a channel must be a mapping", EXAMPLE)]
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = "kind is missing" if kind is None else "this kind is not known"
        at = _line(raw, "kind", line)
        return [ChannelProblem(path, at, name, what, f"the kinds are {', '.join(KINDS)}")]
    module, _, model = KINDS[kind].partition(":")
    settings: type[ChannelSettings] = getattr(import_module(f"metrics_pipeline.delivery.channels.{module}"), model)
    try:
        return settings.model_validate(plain(raw))
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_input=False, include_url=False):
            message, mend = plain_error({**detail})
            problems.append(ChannelProblem(path, _place(raw, detail["loc"], line), name, message, mend))
        return problems


def _opened(name: str, kind: str, found: ChannelFile, vault: Vault) -> Channel:
    if problem := found.problem_of(name):
        return UnusableChannel(name, kind, problem)
    try:
        return found.settings[name].open(name, vault)
    except SettingsError as error:
        return UnusableChannel(name, kind, str(error))


def _broken(path: Path, line: int, message: str, mend: str) -> ChannelFile:
    return ChannelFile({}, {}, (ChannelProblem(path, line, None, message, mend),))


def _place(raw: Any, location: tuple[int | str, ...], line: int) -> int:
    """Line of the innermost key of a location that is in the file."""
    place = raw
    for step in location:
        if isinstance(place, dict) and step in place:
            line = _line(place, step, line)
            place = place[step]
    return line


def _line(content: Any, key: Any, default: int = 1) -> int:
    try:
        return int(content.lc.key(key)[0]) + 1
    except (AttributeError, KeyError, TypeError):
        return default
