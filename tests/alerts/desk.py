"""A desk of one shop: routes from text, ticks and time passing, and what each receiver was told."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from metrics_pipeline.alerts import Notice, RuleCard, apply_verdicts
from metrics_pipeline.alerts.dispatch import dispatch_due
from metrics_pipeline.alerts.silencing import acknowledge, add_silence, expire_silence, read_matchers, snooze
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.store import Store
from metrics_pipeline.store.tables import outbox
from tests.alerts.builders import make_card, make_verdict
from tests.routing.builders import make_routing

START = datetime(2025, 11, 12, 2, 0, tzinfo=UTC)
"""10:00 in Shanghai, on the morning after the first period."""
BEGINS = ("new",)
ENDS = ("resolved", "corrected", "cancelled")
PLAIN = """
route: {receiver: room, group_by: [alertname], group_wait: 0s, group_interval: 0s, repeat_interval: 0s}
receivers:
  - {name: room, channels: [file]}
incidents: false
"""
PYRAMID = {
    "gmv_drop": make_card("gmv_drop", metric="gmv", layer="strategic", upstream=("orders", "price", "visits")),
    "orders_drop": make_card("orders_drop", metric="orders", layer="operational", upstream=("visits",), owner="sales"),
    "visits_drop": make_card("visits_drop", metric="visits", layer="base", owner="after-sales"),
    "refund_rate_surge": make_card(layer="operational"),
}


@dataclass
class Desk:
    """Ticks and time on one store."""

    store: Store
    folder: Path
    routes: str = PLAIN
    cards: dict[str, RuleCard] = field(default_factory=lambda: dict(PYRAMID))
    now: datetime = START
    version: int = 1

    def __post_init__(self) -> None:
        self.route(self.routes)

    def route(self, routes: str) -> Routing:
        """Other routes from here on."""
        self.routing = make_routing(self.folder, routes)
        assert self.routing.problems == (), self.routing.problems
        return self.routing

    def at(self, **passed) -> Desk:
        """The clock so much after the start."""
        self.now = START + timedelta(**passed)
        return self

    def tick(self, *tiers: str, period: int = 0, members: tuple[str, ...] = ("华北", "华东"), **changes):
        """One tick of a rule: a tier for each member."""
        verdicts = [
            make_verdict(tier, period, member=member, v=self.version, **changes)
            for tier, member in zip(tiers, members, strict=False)
        ]
        return self.judge(*verdicts)

    def judge(self, *verdicts, silent: bool = False):
        """A tick of these verdicts."""
        self.version += 1
        batch = [one._replace(data_version=f"v{self.version}", evaluated_at=self.now) for one in verdicts]
        return apply_verdicts(self.store, batch, self.cards, receivers=self.routing, now=self.now, silent=silent)

    def wait(self, step: timedelta = timedelta(minutes=5), **until) -> list[str]:
        """Let time pass in steps, as the sensor sees it; returns what was queued."""
        end = START + timedelta(**until)
        queued: list[str] = []
        while self.now < end:
            self.now = min(self.now + step, end)
            queued += dispatch_due(self.store, self.routing, now=self.now)
        return queued

    def due(self) -> tuple[str, ...]:
        """What has become due now."""
        return dispatch_due(self.store, self.routing, now=self.now)

    def silence(self, *matchers: str, hours: float = 1) -> int:
        return add_silence(
            self.store,
            read_matchers(matchers),
            author="li",
            reason="known",
            starts_at=self.now,
            expires_at=self.now + timedelta(hours=hours),
            now=self.now,
        )

    def unsilence(self, number: int) -> bool:
        return expire_silence(self.store, number, who="li", now=self.now)

    def ack(self, subject: str = "refund_rate_surge", hours: float = 8) -> list[str]:
        return acknowledge(self.store, subject, who="li", now=self.now, until=self.now + timedelta(hours=hours))

    def snooze(self, subject: str = "refund_rate_surge", hours: float = 1) -> list[str]:
        return snooze(self.store, subject, who="li", now=self.now, until=self.now + timedelta(hours=hours))

    # -- what was told ---------------------------------------------------------------------------------------------

    def notices(self, receiver: str | None = None) -> list[Notice]:
        with self.store.reading() as connection:
            payloads = connection.execute(sa.select(outbox.c.payload).order_by(outbox.c.id)).scalars()
            found = [Notice.from_json(payload) for payload in payloads]
        return [one for one in found if receiver in (None, one.receiver)]

    def said(self, receiver: str | None = None) -> list[str]:
        """`first new`, `repeat ongoing`: reason and changes of every notice."""
        return [f"{one.reason} {','.join(slice_.change for slice_ in one.slices)}" for one in self.notices(receiver)]

    def times(self, receiver: str | None = None) -> list[tuple[int, str]]:
        """Minutes since the start, and the reason, of every notice."""
        return [(int((one.created_at - START) / timedelta(minutes=1)), one.reason) for one in self.notices(receiver)]

    def contract(self) -> dict[str, tuple[Counter, Counter]]:
        """Receiver → how often the beginning and the end of each episode was told.

        What a digest counts as come and gone was never told as begun: both its ends are in that line.
        """
        begun: dict[str, Counter] = defaultdict(Counter)
        ended: dict[str, Counter] = defaultdict(Counter)
        for notice in self.notices():
            passed = 0
            for one in notice.slices:
                key = one.instance, one.since
                begun[notice.receiver][key] += one.change in BEGINS
                if one.change in ENDS and notice.reason == "digest" and not begun[notice.receiver][key]:
                    passed += 1
                else:
                    ended[notice.receiver][key] += one.change in ENDS
            assert passed <= notice.counts.passed, notice
        return {receiver: (+begun[receiver], +ended[receiver]) for receiver in begun.keys() | ended.keys()}
