"""Looking back: a week, or one alert. What happened, detected when, told whom, what was done, what came of it, and how good the rules are.

Plain data from the store alone, as its reader may see it: no values are read, so that the light code location can draw it. The words and the pictures are
`page`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.access.model import Grant, Level, Selector, Subjects
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.sight import Sight, is_general
from metrics_pipeline.alerts.story import Story, UnknownAlert, story_of
from metrics_pipeline.delivery.guard import facts_of_cards
from metrics_pipeline.followup.answers import read_answers, reported_misses
from metrics_pipeline.followup.cases import Case, cases_of
from metrics_pipeline.followup.quality import Quality, read_quality
from metrics_pipeline.store import Store, dispatch
from metrics_pipeline.store import rule_proposals as rows
from metrics_pipeline.store.advice import ActionRow, actions_of
from metrics_pipeline.store.missed import MissedRow
from metrics_pipeline.store.rule_proposals import ProposalRow

QUALITY_DAYS = 90
DAY_BEGINS = timedelta(hours=8)
"""After midnight: what the night tells by then of the day before belongs to that day, so that Monday's page has Sunday."""


class UnknownWeek(ValueError):
    """Text that is no ISO week."""


@dataclass(frozen=True)
class Week:
    """An ISO week of the shop."""

    name: str
    """`2025-W46`"""
    first: date

    @property
    def last(self) -> date:
        return self.first + timedelta(days=6)

    @property
    def before(self) -> Week:
        return week_of(self.first - timedelta(days=7))

    def span(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """Its first instant and the first one after it: Mondays, 08:00."""
        begins = (datetime.min + DAY_BEGINS).time()
        start = datetime.combine(self.first, begins, zone)
        return start, datetime.combine(self.first + timedelta(days=7), begins, zone)


@dataclass(frozen=True)
class Figures:
    """A week in numbers, of what its reader may see."""

    alerts: int
    red: int
    cases: int
    """Incidents and single alerts."""
    answered: int
    true: int
    unneeded: int
    open: int
    """Alerts that are not over."""
    messages: int
    hours_to_tell: float | None
    hours_to_act: float | None


@dataclass(frozen=True)
class WeekLook:
    """A week looked back on."""

    week: Week
    figures: Figures
    before: Figures
    """Of the week before."""
    days: tuple[tuple[date, int, int], ...]
    """Each day: yellow and red alerts that opened on it."""
    cases: tuple[Case, ...]
    quality: Quality = field(repr=False)
    """Of the 90 days that end with the week."""
    proposals: tuple[ProposalRow, ...] = field(repr=False)
    """Those that wait, and those decided in the last 90 days."""
    missed: tuple[MissedRow, ...] = ()
    """Incidents of its days that people reported because nobody was told."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "week": self.week.name,
            "first": self.week.first.isoformat(),
            "last": self.week.last.isoformat(),
            "figures": vars(self.figures),
            "week_before": vars(self.before),
            "days": [[f"{day}", yellow, red] for day, yellow, red in self.days],
            "cases": [one.as_json() for one in self.cases],
            "quality": self.quality.as_json(),
            "proposals": [proposal_json(row) for row in self.proposals],
            "missed": [
                {**one._asdict(), "starts_on": f"{one.starts_on}", "ends_on": f"{one.ends_on}"} for one in self.missed
            ],
        }


@dataclass(frozen=True)
class EpisodeLook:
    """One alert looked back on."""

    case: Case
    story: Story = field(repr=False)
    quality: Quality = field(repr=False)
    """Of its rule, over the 90 days before."""
    earlier: tuple[Case, ...]
    """Earlier alerts of the same rule and slice, the newest first."""
    proposals: tuple[ProposalRow, ...] = field(repr=False)
    """Of its rule."""
    actions: tuple[ActionRow, ...] = ()
    """What was done about it, oldest first."""

    def as_json(self, ui_url: str) -> dict[str, Any]:
        """Plain values."""
        return {
            "case": self.case.as_json(),
            "story": self.story.as_json(ui_url),
            "quality": self.quality.as_json(),
            "earlier": [one.as_json() for one in self.earlier],
            "proposals": [proposal_json(row) for row in self.proposals],
            "actions": [{**one._asdict(), "at": one.at.isoformat()} for one in self.actions],
        }


def week_of(day: date) -> Week:
    """The week a day lies in."""
    year, number, weekday = day.isocalendar()
    return Week(f"{year}-W{number:02d}", day - timedelta(days=weekday - 1))


def parse_week(text: str) -> Week:
    """`2025-W46`. Raises `UnknownWeek`."""
    match = re.fullmatch(r"(\d{4})-?W(\d{1,2})", text.strip())
    try:
        if match is not None:
            return week_of(date.fromisocalendar(int(match[1]), int(match[2]), 1))
    except ValueError:
        pass
    raise UnknownWeek(f"{text!r} is not a week; write it as 2025-W46")


def newest_week(store: Store, sight: Sight, *, zone: tzinfo, now: datetime) -> Week:
    """The last whole week; the present one when nothing was told in the last, but something since."""
    present = week_of((now.astimezone(zone) - DAY_BEGINS).date())
    with store.reading() as connection:
        for week in (present.before, present):
            start, until = week.span(zone)
            if len(read_answers(connection, sight, since=start, until=until)):
                return week
    return present.before


def metrics_looked_back_on(
    connection: Connection, sight: Sight, weeks: Iterable[Week], *, zone: tzinfo
) -> list[tuple[str, str]]:
    """(metric, week) of the alerts that the retrospectives of these weeks tell of, of what the reader may see."""
    metric_of = {rule: str(card["metric"]) for rule, card in dispatch.cards(connection).items()}
    found: dict[tuple[str, str], None] = {}
    for week in weeks:
        start, until = week.span(zone)
        rules = read_answers(connection, sight, since=start, until=until)["rule"].unique()
        found |= dict.fromkeys((metric_of[rule], week.name) for rule in rules if metric_of.get(rule))
    return list(found)


def look_at_week(
    store: Store, sight: Sight, week: Week, *, zone: tzinfo, people: Mapping[str, str], now: datetime
) -> WeekLook:
    """A week of the shop as its reader may see it. `people`: address → id of a person."""
    start, until = week.span(zone)
    with store.reading() as connection:
        answers = read_answers(connection, sight, since=start, until=until)
        cases = cases_of(connection, answers, sight, people=people, now=now)
        options: dict[str, Any] = {"zone": zone, "people": people}
        quality = read_quality(connection, sight, since=until - timedelta(days=QUALITY_DAYS), until=until, **options)
        own = read_quality(connection, sight, since=start, until=until, **options)
        former = week.before.span(zone)
        answers_before = read_answers(connection, sight, since=former[0], until=former[1])
        own_before = read_quality(connection, sight, since=former[0], until=former[1], **options)
        cases_before = len(_incidents(connection, answers_before["key"].tolist()))
        proposals = [row for row in rows.read(connection) if sees_proposal(sight, row) and _is_shown(row, until)]
        missed = [one for one in reported_misses(connection, sight, since=week.first) if one.starts_on <= week.last]
    local = (answers["opened_at"].dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None) - DAY_BEGINS).dt.date
    red = answers["worst_tier"] == "red"
    days = tuple(
        (day, int(((local == day) & ~red).sum()), int(((local == day) & red).sum()))
        for day in (week.first + timedelta(days=n) for n in range(7))
    )
    return WeekLook(
        week,
        _figures(answers, own, len(cases)),
        _figures(answers_before, own_before, cases_before),
        days,
        tuple(cases),
        quality,
        tuple(proposals),
        tuple(missed),
    )


def look_at_episode(
    store: Store, sight: Sight, key: str, *, zone: tzinfo, people: Mapping[str, str], now: datetime
) -> EpisodeLook:
    """One alert by the key of its episode. Raises `UnknownAlert` when there is none that the reader may see."""
    if sight.level_of(key) == Level.DENIED:
        raise UnknownAlert(f"there is no alert {key!r} that {sight.viewer.person} may see")
    story = story_of(store, key, now=now)
    with store.reading() as connection:
        answers = read_answers(connection, sight, until=now)
        of_slice = answers[answers["instance"] == key.rpartition("@")[0]]
        own = of_slice[of_slice["key"] == key]
        if own.empty:
            listed = ", ".join(of_slice["key"].tail(3)) or "`metrics alerts history` shows them"
            raise UnknownAlert(f"{key!r} is no episode; of this alert there are e.g. {listed}")
        [case] = cases_of(connection, own, sight, people=people, now=now)
        rule = str(own["rule"].iloc[0])
        since = case.opened_at - timedelta(days=QUALITY_DAYS)
        quality = read_quality(connection, sight, since=since, until=now, zone=zone, people=people)
        earlier = of_slice[of_slice["opened_at"] < own["opened_at"].iloc[0]].tail(10)
        former = cases_of(connection, earlier, sight, people=people, now=now, pictures=0)
        proposals = tuple(row for row in rows.read(connection, rule=rule) if sees_proposal(sight, row))
        actions = tuple(actions_of(connection, [key]))
    quality = Quality(quality.since, quality.until, tuple(one for one in quality.rules if one.rule == rule), ())
    newest = tuple(sorted(former, key=lambda one: one.opened_at, reverse=True))
    return EpisodeLook(case, story, quality, newest, proposals, actions)


def sees_proposal(sight: Sight, row: ProposalRow) -> bool:
    """Whether the reader sees all values of a proposal's rule: bounds and counts tell of every slice."""
    if sight.is_open:
        return True
    reading = sight.viewer.reading
    if not row.metric:  # an entry of the calendar names rules of any metric
        return is_general(reading)
    return {} in reading.slices_of(row.metric) and reading.decide(row.metric).level == Level.EXACT


def sight_of_records(connection: Connection, *, now: datetime) -> Sight:
    """What a page may show that lies where many look (a folder, the Dagster UI): all but the values of confidential metrics, policy or not."""
    cards = {name: RuleCard.from_json(card) for name, card in dispatch.cards(connection).items()}
    facts = facts_of_cards(cards)
    grant = Grant(0, "person", "records", frozenset({"read"}), (Selector("all"),), {}, Level.HIDDEN)
    return Sight(Viewer(Subjects("records"), facts, now, (grant,)), cards)


def proposal_json(row: ProposalRow) -> dict[str, Any]:
    """Plain values; instants as ISO text."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row._asdict().items()
        if name != "key"
    }


def _figures(answers: Any, quality: Quality, cases: int) -> Figures:
    counts = answers["outcome"].value_counts()
    told = (answers["told_at"] - answers["opened_at"]).dt.total_seconds().median() / 3600
    acted = (answers["acted_at"] - answers["told_at"]).dt.total_seconds().median() / 3600
    unneeded = int(counts.get("false", 0) + counts.get("expected", 0))
    return Figures(
        alerts=len(answers),
        red=int((answers["worst_tier"] == "red").sum()),
        cases=cases,
        answered=int(counts.get("true", 0)) + unneeded,
        true=int(counts.get("true", 0)),
        unneeded=unneeded,
        open=int(answers["closed_at"].isna().sum()),
        messages=sum(one.messages for one in quality.loads),
        hours_to_tell=None if told != told else max(float(told), 0.0),  # noqa: PLR0124
        hours_to_act=None if acted != acted else max(float(acted), 0.0),  # noqa: PLR0124
    )


def _incidents(connection: Connection, keys: list[str]) -> set[str]:
    """Incidents, and the episodes that belong to none."""
    known = dispatch.incidents_of(connection, keys)
    return {known.get(key, key) for key in keys}


def _is_shown(row: ProposalRow, until: datetime) -> bool:
    if row.at >= until or row.state == "superseded":
        return False
    decided = row.decided_at
    return row.state == "proposed" or (decided is not None and decided >= until - timedelta(days=QUALITY_DAYS))
