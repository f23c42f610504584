"""What a published version is: the immutable files of all months and the state of every metric, one JSON file each.

`versions/<id>.json` is written once; `CURRENT` names the version that readers take and is only ever replaced by
`os.replace`, so a reader sees a whole version or the one before, never a part. Files are named by their content and
shared between versions. Times are naive UTC, periods are the shop's clock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from metrics_pipeline.warehouse.window import Window

Part = Literal["series", "sku"]
"""SKU slices (`sku` is one of the dimensions) are most of the rows; they have files of their own, so that reading a
region or a channel never opens them."""
PARTS: tuple[Part, ...] = ("series", "sku")

KEY = ("metric", "grain", "dimension", "member", "period_start")
"""What identifies a value, in the order in which files are sorted."""


def part_of(dimension: str) -> Part:
    """In which part a dimension such as `region|channel` is stored."""
    return "sku" if "sku" in dimension.split("|") else "series"


def utc(moment: datetime) -> datetime:
    """Aware or naive-UTC datetime as naive UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


@dataclass(frozen=True)
class FormerVersion:
    """The definition version of the periods before a day; shop-local."""

    until: datetime
    """First moment of the version that came after it."""
    definition_version: str


@dataclass(frozen=True)
class MetricState:
    """What readers must know of a metric besides its values."""

    definition_version: str
    """Of the newest periods."""
    complete_until: datetime | None = None
    """Shop-local end of the last complete period; None = nothing complete yet."""
    absent_en: str | None = None
    """Why the metric has no values with this source; None = it is present."""
    absent_zh: str | None = None
    former: tuple[FormerVersion, ...] = ()
    """Versions of earlier periods, the oldest first."""
    settle_days: int = 0
    """So many days after its end a period has its value: a conversion waits for its window."""

    def at(self, moment: datetime) -> MetricState:
        """The state as it is for the periods of a moment: its version is theirs, `former` what was before."""
        for number, one in enumerate(self.former):
            if moment < one.until:
                return replace(self, definition_version=one.definition_version, former=self.former[:number])
        return self

    @property
    def version_since(self) -> datetime | None:
        """First moment of the version; None = it has been the same ever since."""
        return self.former[-1].until if self.former else None

    @property
    def is_absent(self) -> bool:
        return self.absent_en is not None or self.absent_zh is not None


@dataclass(frozen=True)
class ValuesFile:
    """One immutable Parquet file: all values of one part of one month."""

    path: str
    """Relative to the published directory."""
    month: date
    part: Part
    rows: int
    bytes: int


@dataclass(frozen=True)
class HistoryFile:
    """Changed values of one part of one month.

    Either a file of its own under `history/`, with the columns `computed_at` and `run_id`, or a values file every row
    of which was new when it was published: then the two are here, and nothing is stored twice.
    """

    path: str
    month: date
    part: Part
    rows: int
    bytes: int
    computed_at: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Version:
    """The manifest of one published version."""

    id: str
    previous: str | None
    run_id: str
    created_at: datetime
    window: Window
    changed_rows: int
    """Values that are new, different or gone against the previous version."""
    metrics: Mapping[str, MetricState]
    values: tuple[ValuesFile, ...]
    history: tuple[HistoryFile, ...]
    format: Literal[1] = 1
    """Of the manifest itself; a program that does not know it refuses to read."""

    def paths(self) -> set[str]:
        """Every file this version needs, relative to the published directory."""
        return {file.path for file in self.values} | {file.path for file in self.history}


_VERSION = TypeAdapter(Version)
_METRICS = TypeAdapter(dict[str, MetricState])


class DamagedManifest(ValueError):
    """A manifest that is not readable as one; the message names the file."""


def current_path(published_dir: Path) -> Path:
    """The pointer file."""
    return published_dir / "CURRENT"


def version_path(published_dir: Path, version_id: str) -> Path:
    """The manifest of a version."""
    return published_dir / "versions" / f"{version_id}.json"


def read_current(published_dir: Path) -> Version | None:
    """The version `CURRENT` names, or None before the first publish.

    Raises `FileNotFoundError` when the named manifest is gone and `DamagedManifest` when it cannot be read.
    """
    try:
        version_id = current_path(published_dir).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    return read_version(version_path(published_dir, version_id))


def read_version(path: Path) -> Version:
    """A manifest from its file. Raises `FileNotFoundError`, `DamagedManifest`."""
    try:
        return _VERSION.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise DamagedManifest(f"{path} is not a readable manifest: {where} {first['msg']}") from None


def new_version_id(
    created_at: datetime,
    previous: str | None,
    metrics: Mapping[str, MetricState],
    values: tuple[ValuesFile, ...],
) -> str:
    """Moment and content, e.g. `20251112T023001-1f0c9a2b`: names of versions sort by time."""
    content = _METRICS.dump_json(dict(sorted(metrics.items()))) + "\n".join(file.path for file in values).encode()
    digest = hashlib.sha256(f"{previous} {created_at.isoformat()} ".encode() + content).hexdigest()
    return f"{created_at:%Y%m%dT%H%M%S}-{digest[:8]}"


def write_version(published_dir: Path, version: Version) -> None:
    """Write the manifest, durably. Nobody reads it before `point_to`."""
    path = version_path(published_dir, version.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace_durably(path, _VERSION.dump_json(version))


def point_to(published_dir: Path, version: Version) -> None:
    """Make `version` the one that readers take: the single atomic step of a publish."""
    _replace_durably(current_path(published_dir), version.id.encode() + b"\n")


def sync_directory(directory: Path) -> None:
    """Make renames within `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace_durably(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    sync_directory(path.parent)
