"""Replay: what the rules would have said over stored history, and how that compares with labelled incidents.

The statement is the one of the night, run over pieces of four weeks. Breaching periods of one slice that follow each
other, with at most one quiet period (with `keep_firing_for: N` at most N) between two of them, are one episode; a rule with
`for: N` fires at the N-th breaching period in a row (periods without data neither count nor interrupt).

Matching (stated because every figure depends on it). An episode and an incident belong together when
1. the incident lists the rule's metric, and
2. their slices do not contradict each other: the total goes with everything, and of the dimensions that both name the
   members are the same (a drop in 华北 may show by channel; it cannot show in 华南), and
3. the episode fired, or was still breaching, between the incident's first day and `grace_days` after its last one.
A rule is asked for an incident when 1 holds and 2 can hold for some slice of it. Recall = incidents found ÷ incidents
asked for; precision = episodes that belong to an incident ÷ all episodes; delay = days from an incident's first day to
the first period in which an episode that belongs to it was firing. Harmless labels (promotions, duplicate loads) are
never found: an episode that only meets those is a false alarm. Hourly episodes are compared by day.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.rules.evaluate import Judging, Stamp, moment, verdict_table
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.past_incidents import PastIncident
from metrics_pipeline.rules.statement import Span
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PIECE_DAYS = 28
GRACE_DAYS = 1
MERGE_GAP = 1
"""Quiet periods between two breaches that do not end an episode; more where a rule keeps firing for longer."""


class LabelError(ValueError):
    """A file of labels that cannot be used; names file, line and what was expected."""


class Label(BaseModel):
    """One known incident, or a harmless event that must not alert."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: str
    scenario: str
    metrics: tuple[str, ...]
    """Metrics it shows in; () = none, as for harmless events."""
    direction: str | None = None
    dimension: str
    member: str
    starts_on: date
    ends_on: date
    """Last day, inclusive."""
    is_harmless: bool = False

    @property
    def slice(self) -> Mapping[str, str]:
        """Dimension → member; {} for the total."""
        return slice_of(self.dimension, self.member)


@dataclass(frozen=True)
class Episode:
    """One alert on one slice from the first breach to the last."""

    rule: str
    metric: str
    dimension: str
    member: str
    fired_at: datetime
    """Period in which it would have been told: the N-th breach in a row."""
    first_breach: datetime
    last_breach: datetime
    breaches: int
    reds: int
    red_at: datetime | None
    """First red period."""
    worst_period: datetime
    worst_value: float | None
    worst_observed: float
    worst_baseline: float | None

    @property
    def tier(self) -> Literal["yellow", "red"]:
        """The worst tier it reached."""
        return "red" if self.reds else "yellow"


@dataclass(frozen=True)
class RuleReplay:
    """What one rule did over the whole time."""

    rule: str
    scenario: str
    judged: int
    """Slices × periods with a verdict."""
    yellow: int
    red: int
    no_data: int
    episodes: int
    firings_per_week: float
    """Episodes per week, over all slices."""
    messages: int
    """Days with something to tell (first breach or escalation of any slice): one grouped message each."""
    worst: Episode | None


@dataclass(frozen=True)
class Score:
    """How well a rule, a scenario or a kind of incident was served; see the module for what belongs together."""

    by: Literal["rule", "scenario", "kind", "all"]
    name: str
    incidents: int
    """Incidents asked for."""
    found: int
    episodes: int
    """0 for kinds: an episode has no kind of its own."""
    true_episodes: int
    harmless_episodes: int
    """False alarms that fall on a harmless event."""
    delays: tuple[int, ...]
    """Of each incident found, days from its first day to the first alert."""

    @property
    def median_delay_days(self) -> float | None:
        """None when nothing was found."""
        return float(statistics.median(self.delays)) if self.delays else None

    @property
    def recall(self) -> float | None:
        """None when no incident was asked for."""
        return self.found / self.incidents if self.incidents else None

    @property
    def precision(self) -> float | None:
        """None when there was no episode."""
        return self.true_episodes / self.episodes if self.episodes else None


@dataclass(frozen=True)
class Replay:
    """What the rules would have said in [start, until)."""

    start: datetime
    until: datetime
    rules: tuple[RuleReplay, ...]
    episodes: tuple[Episode, ...] = field(repr=False)
    """By moment of firing."""
    messages_per_day: Mapping[date, int] = field(repr=False)
    """Every day of the replay → rules with something to tell on it."""
    scores: tuple[Score, ...]
    """Empty without labels: all, then scenarios, kinds and rules."""
    missed: tuple[Label, ...]
    """Incidents that some rule was asked for and none found."""
    unasked: tuple[Label, ...]
    """Incidents that no rule looks at."""
    errors: Mapping[str, str]

    @property
    def median_messages_per_day(self) -> float:
        """Median over all days of the rules that had something to tell."""
        return float(statistics.median(self.messages_per_day.values())) if self.messages_per_day else 0.0

    @property
    def weeks(self) -> tuple[tuple[date, Mapping[str, int]], ...]:
        """Every week of the replay by its Monday, and how often each rule that fired did so in it."""
        monday = self.start.date() - timedelta(days=self.start.weekday())
        found: dict[date, dict[str, int]] = {}
        while monday < self.until.date():
            found[monday] = {}
            monday += timedelta(days=7)
        for episode in self.episodes:
            of_week = found[episode.fired_at.date() - timedelta(days=episode.fired_at.weekday())]
            of_week[episode.rule] = of_week.get(episode.rule, 0) + 1
        return tuple(found.items())

    def frame(self) -> pd.DataFrame:
        """One row per rule: the fields of `RuleReplay`, with the worst episode's member, period and value."""
        import pandas as pd

        rows = []
        for rule in self.rules:
            row = {name: value for name, value in vars(rule).items() if name != "worst"}
            row |= {
                "worst_member": rule.worst.member if rule.worst else None,
                "worst_period": rule.worst.worst_period if rule.worst else None,
                "worst_value": rule.worst.worst_value if rule.worst else None,
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def episode_frame(self) -> pd.DataFrame:
        """One row per episode, the fields of `Episode`."""
        import pandas as pd

        return pd.DataFrame([{**vars(episode), "tier": episode.tier} for episode in self.episodes])


def replay(
    published: Published,
    rules: Sequence[Rule],
    start: date | datetime,
    until: date | datetime,
    *,
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
    incidents: Sequence[PastIncident] = (),
    labels: Sequence[Label] = (),
    grace_days: int = GRACE_DAYS,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Judge the rules over [start, until), shop-local, as if every period had just ended. Writes nothing.

    `incidents`: of `past_incidents`, each left out of baselines from the Monday on at which it was known. `progress` is told the
    share that is done. Composite rules need the rules they look at (`composite.with_parts`).
    """
    span = Span(moment(start), moment(until))
    with published.connect(span.start, span.until) as con:
        judging = Judging(con, published, datetime.max, promotions, references, incidents=incidents)
        con.execute(_CREATE)
        for piece in span.pieces(PIECE_DAYS):
            judging.run("piece", rules, piece)
            con.execute(_KEEP)
            if progress is not None:
                progress((piece.until - span.start) / (span.until - span.start))
        counts = {row[0]: row[1:] for row in con.execute(_COUNTS).fetchall()}
        con.register("holds", _holds(rules))
        episodes = tuple(Episode(*row) for row in con.execute(_EPISODES).fetchall())
    told = _told(episodes)
    weeks = max((span.until - span.start) / timedelta(weeks=1), 1 / 7)
    by_rule: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_rule.setdefault(episode.rule, []).append(episode)
    replays = []
    for rule in rules:
        own = by_rule.get(rule.id, [])
        judged, yellow, red, no_data = counts.get(rule.id, (0, 0, 0, 0))
        replays.append(
            RuleReplay(
                rule=rule.id,
                scenario=rule.scenario,
                judged=judged,
                yellow=yellow,
                red=red,
                no_data=no_data,
                episodes=len(own),
                firings_per_week=len(own) / weeks,
                messages=len({day for name, day in told if name == rule.id}),
                worst=max(own, key=lambda e: (e.reds > 0, abs(e.worst_observed)), default=None),
            )
        )
    days = (span.until.date() - span.start.date()).days or 1
    per_day = {span.start.date() + timedelta(days=n): 0 for n in range(days)}
    for _, day in told:
        per_day[day] = per_day.get(day, 0) + 1
    scored = _Scoring(rules, episodes, [label for label in labels if _within(label, span)], grace_days)
    return Replay(
        start=span.start,
        until=span.until,
        rules=tuple(replays),
        episodes=episodes,
        messages_per_day=per_day,
        scores=scored.scores() if labels else (),
        missed=scored.missed(),
        unasked=scored.unasked(),
        errors=judging.errors,
    )


def verdict_pieces(
    published: Published,
    rules: Sequence[Rule],
    start: date | datetime,
    until: date | datetime,
    *,
    errors: dict[str, str],
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
    incidents: Sequence[PastIncident] = (),
) -> Iterator[tuple[datetime, pa.Table]]:
    """All verdicts of [start, until), shop-local, in stretches of four weeks: the end of each and its verdicts, in no order.

    The columns are those of `evaluate`; slices of metrics that the source lacks are left out. `errors` is told which rules the
    database cannot judge.
    """
    span = Span(moment(start), moment(until))
    with published.connect(span.start, span.until) as con:
        judging = Judging(con, published, datetime.max, promotions, references, incidents=incidents)
        for piece in span.pieces(PIECE_DAYS):
            judging.run("piece", rules, piece)
            found = con.sql("SELECT * FROM found WHERE reason <> 'absent'").to_arrow_table()
            errors.update(judging.errors)
            yield piece.until, verdict_table(found, judging.ruleset, Stamp(published.version, piece.until, "replay"))


def read_labels(path: Path) -> tuple[Label, ...]:
    """Labels from JSON Lines. Raises `LabelError` with file and line."""
    found: list[Label] = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror}; give the file of labels the simulator writes") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(Label.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            raise LabelError(f"{path}:{number}: not JSON ({error.msg}); write one object a line") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise LabelError(f"{path}:{number}: {first['loc'][0]}: {first['msg']}; see rules.replay.Label") from None
    return tuple(found)


def slice_of(dimension: str, member: str) -> Mapping[str, str]:
    """`region|channel`, `华北|app` → {"region": "华北", "channel": "app"}; {} for the total."""
    if dimension == "all":
        return {}
    names, members = dimension.split("|"), member.split("|")
    return dict(zip(names, members, strict=False))


def compatible(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two slices can overlap: no dimension that both name has different members."""
    return all(other.get(name, member) == member for name, member in one.items())


def _within(label: Label, span: Span) -> bool:
    return label.starts_on < span.until.date() and label.ends_on >= span.start.date()


def _told(episodes: Iterable[Episode]) -> set[tuple[str, date]]:
    """(rule, day) on which a person would have got a message: a first breach, or an escalation to red."""
    found: set[tuple[str, date]] = set()
    for episode in episodes:
        found.add((episode.rule, episode.fired_at.date()))
        if episode.red_at is not None and episode.red_at > episode.fired_at:
            found.add((episode.rule, episode.red_at.date()))
    return found


def _holds(rules: Sequence[Rule]) -> object:
    import pyarrow as pa

    return pa.table(
        {
            "rule": [rule.id for rule in rules],
            "hold": pa.array([rule.hold for rule in rules], pa.int32()),
            "gap": pa.array([max(MERGE_GAP, rule.keep_firing_for) for rule in rules], pa.int32()),
        }
    )


class _Scoring:
    """Episodes against labels."""

    def __init__(
        self, rules: Sequence[Rule], episodes: Sequence[Episode], labels: Sequence[Label], grace_days: int
    ) -> None:
        self._rules = {rule.id: rule for rule in rules}
        self._episodes = episodes
        self._incidents = [label for label in labels if not label.is_harmless]
        self._harmless = [label for label in labels if label.is_harmless]
        self._grace = timedelta(days=grace_days)
        self._found: dict[tuple[str, str], list[int]] = {}
        """(rule, incident) → delays in days of the episodes that belong to it."""
        self._true: dict[str, int] = {}
        self._on_harmless: dict[str, int] = {}
        for episode in episodes:
            self._place(episode)

    def scores(self) -> tuple[Score, ...]:
        """All, by scenario, by kind, by rule."""
        everything = list(self._rules)
        scenarios = sorted({rule.scenario for rule in self._rules.values()} | {i.scenario for i in self._incidents})
        kinds = sorted({incident.kind for incident in self._incidents})
        found = [self._score("all", "all", everything, self._incidents)]
        for name in scenarios:
            rules = [rule.id for rule in self._rules.values() if rule.scenario == name]
            found.append(self._score("scenario", name, rules, [i for i in self._incidents if i.scenario == name]))
        for name in kinds:
            incidents = [incident for incident in self._incidents if incident.kind == name]
            found.append(self._score("kind", name, everything, incidents, with_episodes=False))
        for name in everything:
            found.append(self._score("rule", name, [name], self._incidents))
        return tuple(found)

    def missed(self) -> tuple[Label, ...]:
        """Asked for and not found by any rule."""
        found = {incident for _, incident in self._found}
        return tuple(i for i in self._incidents if i.id not in found and self._asked(i, self._rules))

    def unasked(self) -> tuple[Label, ...]:
        """Nobody looks at any of its metrics in a slice that can hold it."""
        return tuple(incident for incident in self._incidents if not self._asked(incident, self._rules))

    def _place(self, episode: Episode) -> None:
        own = slice_of(episode.dimension, episode.member)
        matched = False
        for incident in self._incidents:
            if episode.metric not in incident.metrics or not compatible(own, incident.slice):
                continue
            if self._meets(episode, incident):
                matched = True
                first = max(episode.fired_at.date(), incident.starts_on)
                delay = (first - incident.starts_on).days
                self._found.setdefault((episode.rule, incident.id), []).append(delay)
        if matched:
            self._true[episode.rule] = self._true.get(episode.rule, 0) + 1
        elif any(compatible(own, label.slice) and self._meets(episode, label) for label in self._harmless):
            self._on_harmless[episode.rule] = self._on_harmless.get(episode.rule, 0) + 1

    def _meets(self, episode: Episode, label: Label) -> bool:
        return episode.fired_at.date() <= label.ends_on + self._grace and episode.last_breach.date() >= label.starts_on

    def _asked(self, incident: Label, rules: Iterable[str]) -> bool:
        return any(self._rules[name].metric in incident.metrics for name in rules)

    def _score(
        self,
        by: Literal["rule", "scenario", "kind", "all"],
        name: str,
        rules: Sequence[str],
        incidents: Sequence[Label],
        *,
        with_episodes: bool = True,
    ) -> Score:
        asked = [incident for incident in incidents if self._asked(incident, rules)]
        delays = []
        for incident in asked:
            of_it = [delay for rule in rules for delay in self._found.get((rule, incident.id), [])]
            if of_it:
                delays.append(min(of_it))
        chosen = set(rules) if with_episodes else set()
        return Score(
            by=by,
            name=name,
            incidents=len(asked),
            found=len(delays),
            episodes=sum(1 for episode in self._episodes if episode.rule in chosen),
            true_episodes=sum(self._true.get(rule, 0) for rule in chosen),
            harmless_episodes=sum(self._on_harmless.get(rule, 0) for rule in chosen),
            delays=tuple(sorted(delays)),
        )


_CREATE = """
CREATE TEMP TABLE judged_periods (
    rule VARCHAR, metric VARCHAR, dimension VARCHAR, member VARCHAR, period_start TIMESTAMP, tier VARCHAR,
    value DOUBLE, observed DOUBLE, baseline DOUBLE, severity DOUBLE
)"""
_KEEP = """
INSERT INTO judged_periods
SELECT rule, metric, dimension, member, period_start, tier, value, observed, baseline, severity FROM piece"""
_COUNTS = """
SELECT
    rule, count(*) FILTER (WHERE tier IN ('ok', 'yellow', 'red')), count(*) FILTER (WHERE tier = 'yellow'),
    count(*) FILTER (WHERE tier = 'red'), count(*) FILTER (WHERE tier = 'no_data')
FROM judged_periods GROUP BY rule"""
_EPISODES = """
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY rule, dimension, member ORDER BY period_start) AS position
    FROM judged_periods
    WHERE tier IN ('ok', 'yellow', 'red') AND observed IS NOT NULL
),
breaches AS (
    SELECT
        *,
        position - row_number() OVER slice AS run_no,
        coalesce(position - lag(position) OVER slice > gap + 1, TRUE) AS is_first
    FROM numbered
    JOIN holds USING (rule)
    WHERE tier IN ('yellow', 'red')
    WINDOW slice AS (PARTITION BY rule, dimension, member ORDER BY period_start)
),
grouped AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY rule, dimension, member, run_no ORDER BY period_start) AS in_run,
        count(*) FILTER (WHERE is_first) OVER (
            PARTITION BY rule, dimension, member ORDER BY period_start
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS episode_no
    FROM breaches
)
SELECT
    g.rule, any_value(g.metric), g.dimension, g.member,
    min(g.period_start) FILTER (WHERE g.in_run >= g.hold) AS fired_at,
    min(g.period_start), max(g.period_start), count(*), count(*) FILTER (WHERE g.tier = 'red'),
    min(g.period_start) FILTER (WHERE g.tier = 'red'),
    max_by(g.period_start, g.severity), max_by(g.value, g.severity), max_by(g.observed, g.severity),
    max_by(g.baseline, g.severity)
FROM grouped AS g
GROUP BY g.rule, g.dimension, g.member, g.episode_no
HAVING fired_at IS NOT NULL
ORDER BY fired_at, g.rule, g.dimension, g.member"""
