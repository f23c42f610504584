"""A page of published values: read through the policy, as one Arrow table, then as Arrow or as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from metrics_pipeline.access.bands import Band
from metrics_pipeline.access.model import Level
from metrics_pipeline.access.reader import GuardedValues
from metrics_pipeline.api.cursors import Cursor
from metrics_pipeline.api.shapes import ValuesQuery, as_of_moment, moment_of
from metrics_pipeline.settings import Settings

DEFAULT_DAYS: Final = {"day": 90, "hour": 7}
NUMBERS: Final = ("value", "numerator", "denominator")
_LEVELS: Final = pa.array([level.word for level in (Level.HIDDEN, Level.BANDED, Level.EXACT)])


@dataclass(frozen=True)
class Question:
    """What is asked of a metric, in shop-local times; `as_of` naive UTC."""

    metric: str
    dimension: str
    member: str | None
    grain: str
    start: datetime | None
    until: datetime | None
    as_of: datetime | None

    @property
    def where(self) -> str:
        """The slices, for the audit log."""
        return "" if self.dimension == "all" else f"{self.dimension}={self.member or '*'}"


@dataclass(frozen=True)
class Page:
    """Rows of an answer, and where the next ones begin."""

    rows: pa.Table
    next: str | None


def question_in(metric: str, query: ValuesQuery, settings: Settings, complete_until: datetime | None) -> Question:
    """A query with its defaults: the newest 90 complete days (7 with hours) when it names no bounds."""
    start, until = _local(query.from_, settings), _local(query.until, settings)
    if start is None:
        until = until or complete_until
        start = None if until is None else until - timedelta(days=DEFAULT_DAYS[query.grain])
    as_of = None
    if query.as_of is not None:
        moment = as_of_moment(query.as_of)
        as_of = (moment if moment.tzinfo else moment.replace(tzinfo=settings.zone)).astimezone(UTC).replace(tzinfo=None)
    return Question(metric, query.dimension, query.member, query.grain, start, until, as_of)


def read_page(
    values: GuardedValues,
    con: duckdb.DuckDBPyConnection,
    asked: Question,
    *,
    limit: int,
    digest: str,
    after: tuple[str, datetime] | None,
) -> Page:
    """At most `limit` rows after (member, period). Raises `UnknownMetric`, `VersionGone`."""
    found = values.page(
        con,
        asked.metric,
        asked.dimension,
        asked.member,
        asked.grain,
        start=asked.start,
        until=asked.until,
        as_of=asked.as_of,
        after=after,
        limit=limit + 1,
    )
    is_last, rows = found.num_rows <= limit, found.slice(0, limit)
    following = None
    if not is_last:
        last = rows.slice(limit - 1).to_pylist()[0]
        following = str(Cursor(values.version, digest, (last["member"], last["period_start"].isoformat())))
    return Page(_shaped(rows, is_history=asked.as_of is not None), following)


def as_arrow(page: Page, head: dict[str, Any]) -> bytes:
    """An Arrow IPC stream; `head` is the metadata of its schema, as JSON under the key `metrics`."""
    text = json.dumps({**head, "next": page.next}, ensure_ascii=False, default=_plain)
    rows = page.rows.replace_schema_metadata({"metrics": text})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def as_json(page: Page, head: dict[str, Any]) -> bytes:
    """The same rows as JSON."""
    columns = {name: page.rows.column(name).to_pylist() for name in page.rows.column_names}
    for name in ("period", "computed_at"):
        if name in columns:
            columns[name] = _texts(columns[name], suffix="Z" if name == "computed_at" else "")
    names = tuple(columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    document = {**head, "next": page.next, "values": rows}
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=_plain, separators=(",", ":")).encode()


def _shaped(rows: pa.Table, *, is_history: bool) -> pa.Table:
    """The columns of an answer. What is no number (0 ÷ 0) is null."""
    level = pc.take(_LEVELS, rows.column("level").cast(pa.int64()))
    numbers = {name: _finite(rows.column(name)) for name in NUMBERS}
    low, high = rows.column("low"), rows.column("high")
    columns: dict[str, Any] = {
        "member": rows.column("member"),
        "period": rows.column("period_start"),
        **numbers,
        "level": level,
        "band": _bands(low, high),
        "low": low,
        "high": high,
        "definition_version": rows.column("definition_version"),
    }
    if is_history:
        columns |= {"computed_at": rows.column("computed_at"), "run_id": rows.column("run_id")}
    return pa.table(columns)


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))


def _bands(low: pa.ChunkedArray, high: pa.ChunkedArray) -> pa.Array:
    """The bands as texts; there are few different ones."""
    if low.null_count == len(low):
        return pa.nulls(len(low), pa.string())
    texts: dict[tuple[float | None, float | None], str | None] = {(None, None): None}
    pairs = list(zip(low.to_pylist(), high.to_pylist(), strict=True))
    for pair in set(pairs) - texts.keys():
        texts[pair] = str(Band(*pair))
    return pa.array([texts[pair] for pair in pairs], pa.string())


def _texts(moments: list[datetime], suffix: str) -> list[str]:
    texts = {moment: moment.isoformat() + suffix for moment in set(moments)}
    return [texts[moment] for moment in moments]


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _local(text: str | None, settings: Settings) -> datetime | None:
    """A bound on the shop's clock, also when it was given with an offset."""
    moment = moment_of(text)
    return moment if moment is None or moment.tzinfo is None else moment.astimezone(settings.zone).replace(tzinfo=None)
