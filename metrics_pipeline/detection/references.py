"""Numbers somebody set: business targets and industry benchmarks, each valid for a time.

Read from the dbt seeds `metric_targets.csv` (metric, dimension, member, target, valid_from, valid_to) and
`industry_benchmarks.csv` (metric, dimension, member, benchmark, valid_from, valid_to, source), because the seeds are
the versions: an old number stays in its row with its days, and who changed it is in the history of the file. Both
days are inclusive; an empty valid_to is open. Member `*` stands for every member of the dimension that has no row of
its own. The observed number is the relative distance (value - reference) / |reference|: 0.1 = a tenth above it.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

Kind = Literal["target", "benchmark"]
FILES: Mapping[str, str] = MappingProxyType({"target": "metric_targets.csv", "benchmark": "industry_benchmarks.csv"})
ANY_MEMBER = "*"


class ReferenceFileError(ValueError):
    """A file of targets or benchmarks that cannot be used; names every file, line, what was expected and what to do."""


@dataclass(frozen=True, order=True)
class Reference:
    """One number for one slice (or every member) and a stretch of days."""

    kind: Kind
    metric: str
    dimension: str
    member: str
    valid_from: date
    valid_to: date
    """Last day, inclusive; `date.max` = open."""
    amount: float
    """In the metric's unit, for one day."""


def load_references(seeds_dir: Path) -> tuple[Reference, ...]:
    """Targets and benchmarks of a folder of seeds, in order; () where there is no file.

    Raises `ReferenceFileError` with everything that is wrong with either file.
    """
    found: list[Reference] = []
    problems: list[str] = []
    for kind in get_args(Kind):
        path = seeds_dir / FILES[kind]
        if path.exists():
            found += _read(path, kind, problems)
    if problems:
        raise ReferenceFileError("\n".join(problems))
    return tuple(sorted(found))


def digest_of(references: Iterable[Reference], kind: str, metric: str, dimension: str) -> str:
    """A short hash of the numbers that a rule on this metric and dimension is judged by."""
    chosen = [one for one in references if (one.kind, one.metric, one.dimension) == (kind, metric, dimension)]
    return hashlib.sha256(repr(sorted(chosen)).encode()).hexdigest()[:12]


def _read(path: Path, kind: Kind, problems: list[str]) -> list[Reference]:
    columns = ("metric", "dimension", "member", kind, "valid_from", "valid_to")
    found: dict[tuple[str, str, str], list[tuple[Reference, int]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := [name for name in columns if name not in (reader.fieldnames or [])]:
            problems.append(f"{path}:1: column {', '.join(missing)} is missing; the columns are {', '.join(columns)}")
            return []
        for row in reader:
            try:
                one = _reference(kind, row)
            except ValueError as error:
                problems.append(f"{path}:{reader.line_num}: {error}")
                continue
            found.setdefault((one.metric, one.dimension, one.member), []).append((one, reader.line_num))
    for rows in found.values():
        rows.sort()
        for (earlier, line), (later, later_line) in itertools.pairwise(rows):
            if later.valid_from <= earlier.valid_to:
                problems.append(
                    f"{path}:{later_line}: {later.metric} {later.dimension}={later.member} is valid twice from "
                    f"{later.valid_from} on, here and in line {line}; end the earlier one with a valid_to"
                )
    return [one for rows in found.values() for one, _ in rows]


def _reference(kind: Kind, row: Mapping[str, str | None]) -> Reference:
    texts = {str(name): (value or "").strip() for name, value in row.items() if isinstance(value, str | None)}
    for name in ("metric", "dimension", "member"):
        if not texts[name]:
            raise ValueError(f"{name} is empty; write the metric id, the dimension (all for the total) and the member")
    if texts["dimension"] != "all" and texts["member"] == "all":
        raise ValueError(f"member all of {texts['dimension']}; write * for every member")
    try:
        amount = float(texts[kind])
        valid_from = date.fromisoformat(texts["valid_from"])
        valid_to = date.fromisoformat(texts["valid_to"]) if texts["valid_to"] else date.max
    except ValueError as error:
        raise ValueError(f"{error}; {kind} is a number, days are YYYY-MM-DD") from None
    if not math.isfinite(amount) or amount == 0:
        raise ValueError(f"{kind} is {texts[kind]}; a relative distance needs a finite number other than 0")
    if valid_to < valid_from:
        raise ValueError(f"valid_to {valid_to} lies before valid_from {valid_from}; exchange them")
    return Reference(kind, texts["metric"], texts["dimension"], texts["member"], valid_from, valid_to, amount)


CTES = """
-- reference: the number that was valid on the tested day; a member's own one before the one for every member.
reference_judged AS (
    SELECT ask_no, amount AS baseline, abs(amount) AS scale
    FROM (
        SELECT
            t.ask_no, r.amount,
            row_number() OVER (PARTITION BY t.ask_no ORDER BY r.member = '*', r.from_day_no DESC) AS choice
        FROM tested AS t
        JOIN specs AS s ON s.spec_no = t.spec_no
        JOIN members AS m ON m.member_no = t.series_no % {series}
        JOIN reference_values AS r
            ON r.kind = s.family AND r.key_no = s.key_no AND (r.member = m.member OR r.member = '*')
            AND t.day_no BETWEEN r.from_day_no AND r.to_day_no
    ) AS valid
    WHERE choice = 1
)"""
"""Yields `reference_judged` for both kinds; also reads `reference_values(kind, key_no, member, from_day_no, to_day_no, amount)`."""
