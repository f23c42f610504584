"""One diagnosis: expectation, causes, pyramid, what coincides, since when, what did not move.

`published` is what its reader may see (`access.reader.GuardedValues`, or all of it in the nightly run): nothing denied
can be named, because it is not there.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.coinciding import (
    Happening,
    Note,
    campaigns_on,
    noted_on,
    promotions_on,
    sells,
    sold_out_on,
)
from metrics_pipeline.diagnosis.data_problems import data_problems_on
from metrics_pipeline.diagnosis.leaves import Asked, Track, Values, View, Wanted, views_of
from metrics_pipeline.diagnosis.model import (
    Cause,
    Coinciding,
    Control,
    Diagnosis,
    Pyramid,
    Since,
    Verdict,
    direction_of,
)
from metrics_pipeline.diagnosis.pyramid import NONE, Walk, divided, walk_of
from metrics_pipeline.diagnosis.search import Found, Settings, search

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Catalogue, Metric
    from metrics_pipeline.warehouse.read import Published

MOST_CAUSES = 5
MOST_CONTROLS = 5
MOST_DETECTABLE = 0.3
"""Relative change that a control must be able to show at the least."""
NO_BASELINE = frozenset({"main", "holiday", "after"})
"""Kinds of calendar days that are no history for an ordinary day."""
_SIGNIFICANT = 3.0
"""Standard deviations of ordinary days from which a change of the whole is one."""


class NothingToDiagnose(LookupError):
    """There is no such value; the message says what there is and what to do."""


@dataclass(frozen=True)
class Context:
    """What a diagnosis may look at besides values."""

    catalogue: Catalogue
    promotions: Sequence[PromotionDay] = ()
    notes: Sequence[Note] = ()
    problems: Sequence[Coinciding] | None = None
    """Data problems of the day, when somebody looked for them already."""


def diagnose(
    published: Published,
    context: Context,
    metric: str,
    slice_: Mapping[str, str],
    period: datetime,
    *,
    grain: Literal["day", "hour"] = "day",
    span: int = 1,
    now: datetime | None = None,
    values: Values | None = None,
) -> Diagnosis:
    """Why a metric's slice was what it was. `span`: 7 for the week that ends with the period's day. `values`: read before, for several diagnoses of one period.

    Raises `NothingToDiagnose` when the slice has no value in the period.
    """
    began = time.process_time()
    described = context.catalogue.metrics[metric]
    asked = Asked(metric, tuple(slice_.items()), grain, period)
    if values is None:
        values = read_values(published, context, [(metric, slice_)], grain, period, span=span)
    track = values.track(metric, asked.slice)
    if track is None or track.observed is None:
        where = "|".join(f"{name}={member}" for name, member in slice_.items()) or "the total"
        raise NothingToDiagnose(
            f"{metric} has no value for {where} at {period:%Y-%m-%d %H:%M} ({grain}); "
            f"`metrics value {metric}` lists what there is"
        )
    began_on = _since(track)
    if began_on is not None and began_on.day < period.date():
        values = copy.copy(values)
        if values.learn_until(began_on.day):
            track = values.track(metric, asked.slice) or track
    observed, expected = track.observed, track.expected
    assert observed is not None
    change = None if expected is None else observed - expected
    views = views_of(values, asked, track)
    causes, verdict = _explained(views, track, change)
    is_ordinary = bool(change) and not causes and not _is_significant(track, change)
    direction = "none" if is_ordinary else direction_of(change)
    given = _given(published, context.catalogue)
    walk = walk_of(described, given, context.catalogue.written)
    beside = related(context.catalogue, metric, given).difference({metric, *(walk.metrics if walk else ())})
    on = period.date()
    happening = Happening(
        on,
        min(began_on.day, on) if began_on else on,
        dict(slice_),
        causes,
        abs((change or 0.0) / (expected or math.inf)),
    )
    reason_zh, reason_en = _reasons(track, views, described, is_ordinary=is_ordinary)
    return Diagnosis(
        metric=metric,
        slice=dict(slice_),
        grain=grain,
        period=period,
        observed=observed,
        expected=expected,
        expectation="none" if expected is None else "same_weekday" if span == 1 else "earlier_weeks",
        change=change,
        direction=direction,
        verdict=verdict,
        causes=causes,
        unexplained=(change or 0.0) - sum(one.contribution for one in causes),
        pyramid=_pyramid(values, walk, asked, change),
        coinciding=tuple(_coinciding(published, context, described, happening, direction)),
        since=began_on if change else None,
        controls=tuple(_controls(values, views, asked, track, causes, beside=beside)) if change else (),
        searched=tuple(view.name for view in views),
        reason_zh=reason_zh,
        reason_en=reason_en,
        data_version=published.version,
        computed_at=(now or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None),
        cpu_seconds=round(time.process_time() - began, 4),
    )


def _given(published: Published, catalogue: Catalogue) -> dict[str, Metric]:
    """The metrics that have values and of which the reader may know."""
    return {
        name: one
        for name, one in catalogue.metrics.items()
        if name in published.metrics and not published.metrics[name].is_absent
    }


def read_values(
    published: Published,
    context: Context,
    asked: Iterable[tuple[str, Mapping[str, str]]],
    grain: Literal["day", "hour"],
    period: datetime,
    *,
    span: int = 1,
) -> Values:
    """One read for all that diagnoses of these slices in a period need: themselves, what is below, what is beside."""
    asked = list(asked)
    given = _given(published, context.catalogue)
    over = {
        metric: below
        for metric, _ in asked
        if context.catalogue.metrics[metric].kind == "derived"
        and (below := context.catalogue.metrics[metric].denominator or "") in given
    }
    beside = {metric: related(context.catalogue, metric, given) & given.keys() for metric, _ in asked}
    apart = [(over[metric], slice_) for metric, slice_ in asked if metric in over and over[metric] not in beside]
    beside |= {metric: set() for metric, _ in apart}
    names = beside.keys() | {name for some in beside.values() for name in some}
    slice_sets = {name: context.catalogue.metrics[name].all_slices for name in names}
    busy = {one.date for one in context.promotions if one.kind in NO_BASELINE}
    quiet = () if period.date() in busy else [datetime(day.year, day.month, day.day) for day in busy]
    wanted = Wanted.of([*asked, *apart], beside, slice_sets)
    return Values(published, wanted, grain, period, quiet=quiet, span=span, over=over)


def related(catalogue: Catalogue, metric: str, given: Mapping[str, Metric]) -> set[str]:
    """Metrics below it, and those beside it that may serve as controls."""
    one = catalogue.metrics[metric]
    walk = walk_of(one, given, catalogue.written)
    beside = {other.id for other in catalogue.metrics.values() if other.stage == one.stage and not other.absent}
    return {*(walk.metrics if walk else ()), *one.inputs, *beside, "sessions", "orders_placed", "orders_paid"} & set(
        catalogue.metrics
    )


def _explained(views: Sequence[View], track: Track, change: float | None) -> tuple[tuple[Cause, ...], Verdict]:
    """The causes, and what kind of finding they are."""
    causes, verdict = _found(views, track, change)
    shift = views[0].shift if views else 0.0
    return tuple(replace(one, observed=one.observed - shift, expected=one.expected - shift) for one in causes), verdict


def _found(views: Sequence[View], track: Track, change: float | None) -> tuple[tuple[Cause, ...], Verdict]:
    """The same, with the rates of the views."""
    if change is None or track.expected is None or change == 0:
        return (), "none_found"
    significant = _is_significant(track, change)
    found = search([view.leaves for view in views], Settings(most_causes=MOST_CAUSES))
    causes = _rated(views, found, change) if track.denominator is not None else _counted(views, found, change)
    if track.denominator is not None and not causes and views:
        causes = _mixed(views, change)
        if causes:
            return causes, "mix_shift"
    if not causes and significant and views and track.denominator is not None:
        causes = _over_weight(views, change)
    return causes, _verdict(causes, significant=significant and bool(views), is_ratio=track.denominator is not None)


def _is_significant(track: Track, change: float | None) -> bool:
    """Whether ordinary days hardly ever do that."""
    return bool(change) and abs(change or 0.0) > _SIGNIFICANT * track.spread * abs(track.expected or 0.0)


def _verdict(causes: Sequence[Cause], *, significant: bool, is_ratio: bool) -> Verdict:
    carried = sum(one.share for one in causes)
    if carried < 0.4:
        return "site_wide" if significant else "several_causes" if causes else "none_found"
    if is_ratio and all(abs(one.mix_effect or 0.0) > abs(one.rate_effect or 0.0) for one in causes):
        return "mix_shift"
    return "single_cause" if len(causes) == 1 or causes[0].share >= 0.75 * carried else "several_causes"


def _counted(views: Sequence[View], found: Sequence[Found], change: float) -> tuple[Cause, ...]:
    causes = []
    for one in found:
        leaves = views[one.view].leaves
        inside = leaves.within(one.element)
        causes.append(
            _cause(
                one,
                observed=float(leaves.observed[inside].sum()),
                expected=float(leaves.expected[inside].sum()),
                contribution=one.contribution,
                change=change,
            )
        )
    return tuple(causes)


def _rated(views: Sequence[View], found: Sequence[Found], change: float) -> tuple[Cause, ...]:
    """Rate effect: what the members' own rate did to the whole; mix effect: what their weight did."""
    causes = []
    claimed = [np.zeros(len(view.leaves.observed), dtype=bool) for view in views]
    for one in found:
        view = views[one.view]
        inside = view.leaves.within(one.element)
        own = inside & ~claimed[one.view]
        claimed[one.view] |= inside
        exposure = view.exposure
        assert exposure is not None
        whole = max(float(exposure.sum()), 1e-300)
        rate_effect = one.contribution / whole
        mix_effect = float(view.mix[own].sum())
        causes.append(
            _cause(
                one,
                observed=_divide(float(view.leaves.observed[inside].sum()), float(exposure[inside].sum())),
                expected=_divide(float(view.leaves.expected[inside].sum()), float(exposure[inside].sum())),
                contribution=rate_effect + mix_effect,
                change=change,
                rate_effect=rate_effect,
                mix_effect=mix_effect,
            )
        )
    return tuple(sorted((one for one in causes if one.share > 0), key=lambda one: -one.share))


def _mixed(views: Sequence[View], change: float) -> tuple[Cause, ...]:
    """No rate moved: the member whose changed weight did it, when weights make at least half of the change.

    Weights have one sum, so where one member gains others lose; named is the one that carries much of it and whose part of the whole moved most.
    """
    best: tuple[float, Cause] | None = None
    for at, view in enumerate(views):
        mix, now, before = view.mix, view.exposure, view.expected_exposure
        assert now is not None
        assert before is not None
        if mix.sum() / change < 0.5:
            continue
        for place, (dimension, members) in enumerate(zip(view.leaves.dimensions, view.leaves.members, strict=True)):
            codes, size = view.leaves.codes[:, place], len(members)
            part = np.bincount(codes, mix, size) / change
            weight, usual = np.bincount(codes, now, size), np.bincount(codes, before, size)
            moved = np.abs(weight / max(float(now.sum()), 1e-300) - usual / max(float(before.sum()), 1e-300))
            score = np.where(usual > 0, np.clip(part, 0.0, 1.0) * moved, 0.0)
            one = int(score.argmax())
            if part[one] >= 0.25 and moved[one] >= 0.02 and (best is None or score[one] > best[0]):
                events = np.bincount(codes, view.leaves.observed, size)[one]
                usual_events = np.bincount(codes, view.leaves.expected, size)[one]
                element = Found(((dimension, members[one]),), at, 1.0, 0.0, 0.5, 0.0)
                best = (
                    float(score[one]),
                    _cause(
                        element,
                        observed=_divide(float(events), float(weight[one])),
                        expected=_divide(float(usual_events), float(weight[one])),
                        contribution=float(part[one]) * change,
                        change=change,
                        rate_effect=0.0,
                        mix_effect=float(part[one]) * change,
                    ),
                )
    return () if best is None else (best[1],)


def _over_weight(views: Sequence[View], change: float) -> tuple[Cause, ...]:
    """A ratio that moved everywhere: the member that carries most of the change beyond its weight, if it is clear.

    Clear: at least a tenth of the change, half as much again as its weight, and the difference three deviations.
    """
    best: tuple[float, Cause] | None = None
    for at, view in enumerate(views):
        v, f, exposure = view.leaves.observed, view.leaves.expected, view.exposure
        assert exposure is not None
        whole, excess = float(exposure.sum()), float((v - f).sum())
        if excess * change <= 0:
            continue
        for place, (dimension, members) in enumerate(zip(view.leaves.dimensions, view.leaves.members, strict=True)):
            codes, size = view.leaves.codes[:, place], len(members)
            seen, usual, weight = (np.bincount(codes, one, size) for one in (v, f, exposure))
            share, part = (seen - usual) / excess, weight / whole
            doubt = np.sqrt(np.maximum(seen, 1.0) + usual) / abs(excess)
            clear = (share >= 0.1) & (share >= 1.5 * part) & (share - part >= _SIGNIFICANT * doubt)
            if not clear.any():
                continue
            one = int(np.where(clear, share - part, -np.inf).argmax())
            mix = float(np.bincount(codes, view.mix, size)[one])
            rate = float(seen[one] - usual[one]) / whole
            confidence = 1.0 - math.exp(-0.5 * float((share[one] - part[one]) / doubt[one]))
            element = Found(((dimension, members[one]),), at, 1.0, 0.0, confidence, 0.0)
            cause = _cause(
                element,
                observed=_divide(float(seen[one]), float(weight[one])),
                expected=_divide(float(usual[one]), float(weight[one])),
                contribution=rate + mix,
                change=change,
                rate_effect=rate,
                mix_effect=mix,
            )
            if cause.share > 0 and (best is None or share[one] - part[one] > best[0]):
                best = (float(share[one] - part[one]), cause)
    return () if best is None else (best[1],)


def _cause(
    found: Found,
    *,
    observed: float,
    expected: float,
    contribution: float,
    change: float,
    rate_effect: float | None = None,
    mix_effect: float | None = None,
) -> Cause:
    return Cause(
        elements=dict(found.element),
        layer=len(found.element),
        observed=observed,
        expected=expected,
        contribution=contribution,
        share=contribution / change,
        rate_effect=rate_effect,
        mix_effect=mix_effect,
        gain=round(found.gain, 2),
        confidence=round(found.confidence, 4),
    )


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _pyramid(values: Values, walk: Walk | None, asked: Asked, change: float | None) -> Pyramid:
    if walk is None or not change:
        return NONE
    pairs = {}
    for name in walk.metrics:
        track = values.track(name, asked.slice)
        if track is None or track.observed is None or track.expected is None:
            return NONE
        pairs[name] = (track.observed, track.expected)
    own = values.track(asked.metric, asked.slice)
    if walk.implied is not None and own is not None and own.observed is not None and own.expected is not None:
        pairs[asked.metric] = (own.observed, own.expected)
    return divided(walk, change, pairs)


def _since(track: Track) -> Since | None:
    """The first day of the level the period is at; None when no change is to be seen."""
    from metrics_pipeline.detection.change_point import since

    found = since(track.value[None, :], len(track.days) - 1)
    at = int(found.index[0])
    return None if at < 0 else Since(track.days[at].date(), round(float(found.confidence[0]), 3))


def _controls(
    values: Values,
    views: Sequence[View],
    asked: Asked,
    track: Track,
    causes: Sequence[Cause],
    *,
    beside: Iterable[str],
) -> Iterable[Control]:
    """Metrics and members that would have shown half of the relative change and did not move."""
    assert track.expected is not None
    assert track.observed is not None
    moved = abs(track.observed / track.expected - 1.0) if track.expected else 0.0
    found: list[Control] = []
    for name in sorted(beside):
        other = values.track(name, asked.slice)
        if other is None or other.observed is None or not other.expected:
            continue
        detectable, own = _SIGNIFICANT * other.spread, abs(other.observed / other.expected - 1.0)
        if detectable <= min(moved / 2, MOST_DETECTABLE) and own <= detectable / 2:
            found.append(Control(name, {}, other.observed, other.expected, round(detectable, 4)))
    found.sort(key=lambda one: one.detectable)
    return [*found[:MOST_CONTROLS], *_still_members(asked.metric, views, causes)]


def _still_members(metric: str, views: Sequence[View], causes: Sequence[Cause]) -> list[Control]:
    """Members beside the first cause, of its own dimensions, that did not move."""
    if not causes:
        return []
    first = causes[0]
    shift = views[0].shift if views else 0.0
    factor = abs(_divide(first.observed + shift, first.expected + shift) - 1.0)
    for view in views:
        if not set(first.elements) <= set(view.leaves.dimensions):
            continue
        found = []
        for dimension, member in first.elements.items():
            place = view.leaves.dimensions.index(dimension)
            size, codes = len(view.leaves.members[place]), view.leaves.codes[:, place]
            v, f = (np.bincount(codes, one, size) for one in (view.leaves.observed, view.leaves.expected))
            noise = view.leaves.noise
            assert noise is not None
            variance = np.bincount(codes, noise.variance(view.leaves.expected), size)
            weight = f if view.exposure is None else np.bincount(codes, view.exposure, size)
            for at, name in enumerate(view.leaves.members[place]):
                if f[at] <= 0 or name == member or f[at] < 0.03 * f.sum():
                    continue
                detectable = max(_SIGNIFICANT * math.sqrt(variance[at]) / f[at], 0.03)
                if detectable <= factor / 2 and abs(v[at] / f[at] - 1.0) <= detectable:
                    unit = 1.0 if view.exposure is None else max(float(weight[at]), 1e-300)
                    seen, usual = (float(one[at]) / unit - shift for one in (v, f))
                    found.append(Control(metric, {dimension: name}, seen, usual, round(detectable, 4)))
        return sorted(found, key=lambda one: one.detectable)[:MOST_CONTROLS]
    return []


def _coinciding(
    published: Published, context: Context, metric: Metric, change: Happening, direction: str
) -> Iterable[Coinciding]:
    problems = context.problems
    if problems is None:
        problems = data_problems_on(published, change.on, context.promotions)
    found = [*promotions_on(context.promotions, change), *noted_on(context.notes, change)]
    found += [one for one in problems if change.touches(one.elements)]
    if direction == "down" and "stock_on_hand" in published.metrics and sells(metric, context.catalogue):
        found += sold_out_on(published, change)
    if "ad_spend" in published.metrics:
        found += campaigns_on(published, metric, change)
    return found


def _reasons(track: Track, views: Sequence[View], metric: Metric, *, is_ordinary: bool) -> tuple[str, str]:
    if track.expected is None:
        return (
            "历史不足(少于 7 个普通日),无法给出期望值",
            "too little history for an expectation (fewer than 7 ordinary days)",
        )
    if is_ordinary:
        usual = f"{_SIGNIFICANT * track.spread:.0%}"
        return (
            f"变化在平日波动(±{usual})之内,无需解释",
            f"the change lies within what ordinary days do (±{usual}); there is nothing to explain",
        )
    if not views:
        listed = ", ".join(name for name in metric.slices if name != "all") or "–"
        return (
            f"没有可相加到该切片的已发布维度(指标的切片:{listed}),未做维度归因",
            f"no published slices add up to this one (slices of the metric: {listed}), so no members were searched",
        )
    return ("", "")
