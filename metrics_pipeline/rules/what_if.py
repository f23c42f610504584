"""Which alerts rules would have fired had a metric been defined otherwise: the same replay on values put in its place."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.facts import FactsReader
from metrics_pipeline.library.preview import compute
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import RuleReplay, replay
from metrics_pipeline.rules.statement import read_days
from metrics_pipeline.warehouse import manifest
from metrics_pipeline.warehouse.manifest import ValuesFile
from metrics_pipeline.warehouse.quoting import literal
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.window import next_month


@dataclass(frozen=True)
class Firing:
    """What one rule would have said before and after."""

    rule: str
    before: RuleReplay
    after: RuleReplay


def firings(
    published: Published,
    catalogue: Catalogue,
    metric: str,
    rules: Sequence[Rule],
    *,
    start: date,
    until: date,
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
    facts: FactsReader | None = None,
) -> list[Firing]:
    """Replay the daily rules on `metric` over [start, until), on what is published and on what `catalogue` defines.

    Slices by SKU, composite rules and rules of hours are left out. All history that a rule looks at is computed anew.
    """
    asked = [rule for rule in rules if _is_asked(rule, metric)]
    if not asked:
        return []
    first = start - timedelta(days=max(read_days(rule) for rule in asked))
    replayed = partial(replay, rules=asked, start=start, until=until, promotions=promotions, references=references)
    with tempfile.TemporaryDirectory() as folder:
        changed = _with_values(published, catalogue, metric, asked, Path(folder), first=first, until=until, facts=facts)
        after = replayed(changed).rules
        before = replayed(published).rules
    return [Firing(*found) for found in zip([rule.id for rule in asked], before, after, strict=True)]


def _is_asked(rule: Rule, metric: str) -> bool:
    return (
        rule.metric == metric
        and rule.grain == "day"
        and rule.condition is None
        and rule.expr.family != "freshness"
        and "sku" not in rule.by
    )


def _with_values(
    published: Published,
    catalogue: Catalogue,
    metric: str,
    rules: Sequence[Rule],
    folder: Path,
    *,
    first: date,
    until: date,
    facts: FactsReader | None,
) -> Published:
    """A version of its own in `folder`: what these rules read, with the values of `metric` by its new definition."""
    samples = {rule.min_sample.metric for rule in rules if rule.min_sample is not None} - {metric}
    version = catalogue.metrics[metric].version
    others = ", ".join(literal(name) for name in sorted(samples)) or "''"
    files: list[ValuesFile] = []
    with duckdb.connect() as con:
        compute(con, published, catalogue, metric, start=first, until=until, into="new_values", facts=facts)
        month = first.replace(day=1)
        while month < until:
            path = Path("values") / f"month={month:%Y-%m}" / "series-preview.parquet"
            (folder / path).parent.mkdir(parents=True)
            within = f"period_start >= {literal(month)} AND period_start < {literal(next_month(month))}"
            row = con.execute(
                f"""COPY (
                    SELECT {literal(metric)} AS metric, period_start, 'day' AS grain, dimension, member,
                        numerator, denominator, value, {literal(version)} AS definition_version
                    FROM new_values WHERE {within}
                    UNION ALL
                    SELECT metric, period_start, grain, dimension, member, numerator, denominator, value, definition_version
                    FROM published_values WHERE metric IN ({others}) AND grain = 'day' AND {within}
                ) TO {literal(str(folder / path))} (FORMAT parquet)"""
            ).fetchone()
            files.append(ValuesFile(path.as_posix(), month, "series", int(row[0]) if row else 0, 0))
            month = next_month(month)
    states = {name: published.metrics[name] for name in (metric, *sorted(samples)) if name in published.metrics}
    known = states.get(metric)
    reach = datetime(until.year, until.month, until.day)
    states[metric] = (
        manifest.MetricState(version, reach)
        if known is None
        else replace(known, definition_version=version, former=(), absent_en=None, absent_zh=None, complete_until=reach)
    )
    own = replace(published.manifest, id="preview", previous=None, metrics=states, values=tuple(files), history=())
    return Published(folder, own)
