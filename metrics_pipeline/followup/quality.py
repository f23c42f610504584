"""How good each rule is: precision by what people said, delays, noise; and what lands on each person a week.

Precision = true ÷ (true + false + expected): an alert that was expected was right and still nobody needed it. What nobody
answered, and what was set aside as a duplicate or a data problem, is counted apart and is in no share. The interval is
Wilson's score interval at 90 %: with three answers it is wide, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.delivery.standing import masked
from metrics_pipeline.followup.answers import read_answers
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.store.outbox import instances_told
from metrics_pipeline.store.tables import outbox

if TYPE_CHECKING:
    import pandas as pd

Z90 = 1.6448536269514722
"""Quantile of the normal distribution for an interval of 90 %."""


@dataclass(frozen=True)
class RuleQuality:
    """One rule over some time. Delays are medians in hours; None where nothing of the kind happened."""

    rule: str
    episodes: int
    true: int
    false: int
    expected: int
    aside: int
    unanswered: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    red: int
    messages: int
    """That were sent to anybody, of all reasons, and are headed by this rule."""
    episodes_a_week: float
    messages_a_week: float
    hours_to_open: float | None
    """From the end of the first breaching period until the alert was open: the night, and the rule's `for`."""
    hours_to_tell: float | None
    """From then until a channel took the first message."""
    hours_to_act: float | None
    """From the first message until somebody acknowledged it, or was given or closed the order."""

    @property
    def answered(self) -> int:
        return self.true + self.false + self.expected

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Load:
    """What one receiver got in one week."""

    receiver: str
    """A person by id where the address is somebody's; else masked."""
    week: str
    """ISO week of the shop: `2025-W46`."""
    messages: int
    red: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Quality:
    """All rules and all receivers over some time."""

    since: datetime
    until: datetime
    rules: tuple[RuleQuality, ...]
    """The least precise first, then the noisiest."""
    loads: tuple[Load, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values; instants as ISO text."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "rules": [one.as_json() for one in self.rules],
            "loads": [one.as_json() for one in self.loads],
        }


def read_quality(
    connection: Connection,
    sight: Sight,
    *,
    since: datetime,
    until: datetime,
    zone: tzinfo,
    people: Mapping[str, str] | None = None,
) -> Quality:
    """The quality of every rule with an episode in [since, until) (aware), as far as the viewer may know of them.

    `zone`: the shop's; `people`: address → id of a person.
    """
    answers = read_answers(connection, sight, since=since, until=until)
    sent = _sent(connection, sight, since=since, until=until)
    return Quality(since, until, _rules(answers, sent, zone, until - since), _loads(sent, zone, people or {}))


def interval(true: int, answered: int) -> tuple[float, float] | None:
    """Wilson's interval of a share at 90 %; None without answers."""
    if not answered:
        return None
    share, spread = true / answered, Z90**2 / answered
    centre = (share + spread / 2) / (1 + spread)
    half = Z90 * math.sqrt(share * (1 - share) / answered + spread / (4 * answered)) / (1 + spread)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _rules(answers: pd.DataFrame, sent: pd.DataFrame, zone: tzinfo, length: timedelta) -> tuple[RuleQuality, ...]:
    import pandas as pd

    if answers.empty:
        return ()
    weeks = max(length / timedelta(weeks=1), 1 / 7)
    table = answers.assign(**_delays(answers, zone))
    by_rule = table.groupby("rule")
    counts = pd.crosstab(table["rule"], table["outcome"]).reindex(
        columns=["true", "false", "expected", "aside", "unanswered"], fill_value=0
    )
    medians = by_rule[["open", "tell", "act"]].median()
    reds = table["worst_tier"].eq("red").groupby(table["rule"]).sum()
    messages = sent.groupby("rule").size()
    found = []
    for rule, row in counts.iterrows():
        true, false, expected = int(row["true"]), int(row["false"]), int(row["expected"])
        answered, total, told = true + false + expected, int(row.sum()), int(messages.get(str(rule), 0))
        low, high = interval(true, answered) or (None, None)
        delays = [None if math.isnan(one) else one for one in medians.loc[[str(rule)]].to_numpy()[0].tolist()]
        found.append(
            RuleQuality(
                str(rule), total, true, false, expected, int(row["aside"]), int(row["unanswered"]),
                true / answered if answered else None, low, high, int(reds[str(rule)]), told, total / weeks, told / weeks,
                *delays,
            )
        )  # fmt: skip
    return tuple(
        sorted(found, key=lambda one: (1.0 if one.precision is None else one.precision, -one.episodes, one.rule))
    )


def _delays(answers: pd.DataFrame, zone: tzinfo) -> dict[str, pd.Series[float]]:
    """Hours of each episode, by name; NaN where it has none."""
    import pandas as pd

    hour = pd.Timedelta(hours=1)
    local = answers["opened_at"].dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
    ends = answers["first_period"] + answers["grain"].map({"hour": hour, "day": 24 * hour})
    return {
        "open": _hours(local - ends),
        "tell": _hours(answers["told_at"] - answers["opened_at"]),
        "act": _hours(answers["acted_at"] - answers["told_at"]),
    }


def _hours(lengths: pd.Series[Any]) -> pd.Series[float]:
    hours: pd.Series[float] = (lengths.dt.total_seconds() / 3600).clip(lower=0)
    return hours


def _sent(connection: Connection, sight: Sight, *, since: datetime, until: datetime) -> pd.DataFrame:
    """Messages that a channel took: receiver, rule, tier, sent_at; those all of whose alerts the viewer may know of."""
    import pandas as pd

    query = sa.select(outbox.c.key, outbox.c.receiver, outbox.c.rule, outbox.c.tier, outbox.c.sent_at).where(
        outbox.c.sent_at >= since, outbox.c.sent_at < until, ~outbox.c.rule.contains(":")
    )
    found = pd.DataFrame(
        [tuple(row) for row in connection.execute(query)], columns=["key", "receiver", "rule", "tier", "sent_at"]
    )
    if not sight.is_open and not found.empty:
        told = instances_told(connection, found["key"].tolist())
        shown = [bool(told.get(key)) and all(map(sight.sees, told[key])) for key in found["key"]]
        found = found[shown].reset_index(drop=True)
    return found


def _loads(sent: pd.DataFrame, zone: tzinfo, people: Mapping[str, str]) -> tuple[Load, ...]:
    if sent.empty:
        return ()
    address = sent["receiver"].str.partition(":")[2]
    names = {one: masked(one) for one in sent["receiver"].unique()}
    who = address.map(dict(people)).fillna(sent["receiver"].map(names))
    week = _weeks(sent["sent_at"], zone)
    table = sent.assign(who=who, week=week, is_red=sent["tier"].eq("red"))
    counts = table.groupby(["who", "week"], as_index=False)["is_red"].agg(["size", "sum"])
    return tuple(
        Load(who, week, messages, red)
        for who, week, messages, red in counts[["who", "week", "size", "sum"]].itertuples(index=False, name=None)
    )


def _weeks(moments: pd.Series[datetime], zone: tzinfo) -> pd.Series[str]:
    """The ISO week of each moment, on the shop's clock."""
    import pandas as pd

    calendar = pd.to_datetime(moments, utc=True).dt.tz_convert(zone).dt.isocalendar()
    return calendar["year"].astype(str) + "-W" + calendar["week"].astype(str).str.zfill(2)


def addresses(routing: Routing) -> dict[str, str]:
    """Address → id of the person it is a contact of, over all channels."""
    kinds = {card.contact for card in routing.channels.values() if card.contact is not None}
    directory = routing.directory
    return {
        address: person.id
        for person in directory.people.values()
        for kind in sorted(kinds)
        if (address := directory.contact(person, kind))
    }
