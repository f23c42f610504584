"""A shop with a history: values published, a rule that judged them night by night, and people who answered."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from metrics_pipeline.access.viewer import everybody
from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.alerts.work_orders import give_feedback
from metrics_pipeline.followup.proposals import Ground
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.proposals import Actor
from metrics_pipeline.rehearsal import rehearse
from metrics_pipeline.routing.decide import direct
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.seeds import Seeds
from metrics_pipeline.store import Store
from metrics_pipeline.store.audit import Caller
from metrics_pipeline.store.tables import episodes
from metrics_pipeline.warehouse.read import Published

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from shop import FIRST, Shop, day

__all__ = ["FIRST", "Shop", "day"]
ZONE = ZoneInfo("Asia/Shanghai")
RULES = """\
# Rules of a test.
groups:
  - name: orders_daily
    defaults:
      owner: sales
      labels: {scenario: orders}
    rules:
      - alert: few_orders
        why: Orders pay the bills.   # they do
        why_zh: 订单是收入来源。
        metric: orders_placed
        KEYS
        annotations:
          summary: Few orders.
          summary_zh: 订单过少。
"""
OPEN = Sight(everybody("li", {}, now=datetime(2025, 1, 1, tzinfo=UTC)), {})


def rules_folder(folder: Path, *keys: str) -> Path:
    """A folder with one rule, `few_orders`, with these lines."""
    folder.mkdir(parents=True, exist_ok=True)
    text = RULES.replace("KEYS", "\n        ".join(keys))
    (folder / "orders.yml").write_text(text, "utf-8")
    return folder


def ground(rules_dir: Path, catalogue: Catalogue, published: Published, seeds: Seeds | None = None) -> Ground:
    return Ground(rules_dir, catalogue, seeds or Seeds((), (), ()), published, ZONE)


def actor(name: str = "li", at: date | None = None) -> Actor:
    moment = datetime.combine(at or day(130), datetime.min.time(), ZONE).astimezone(UTC)
    return Actor(Caller(name, "cli"), moment)


def live(store: Store, here: Ground, first: int, last: int) -> None:
    """Judge the days `first` to `last`, each in its own night, and tell."""
    rules = load_rules(here.rules_dir, here.catalogue, here.seeds).rules
    rehearse(
        here.published, rules, day(first), day(last), cards=cards_of(rules, here.catalogue.metrics),
        routing=direct(("file",)), zone=here.zone, promotions=here.seeds.promotions, store=store,
    )  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """An episode: its key, and its first day as the shop counts them."""

    key: str
    day: int
    member: str


def alerts(store: Store) -> list[Alert]:
    """What fired, oldest first."""
    query = sa.select(episodes.c.key, episodes.c.first_period).order_by(episodes.c.first_period, episodes.c.key)
    with store.reading() as connection:
        rows = [(row.key, row.first_period) for row in connection.execute(query)]
    return [Alert(key, (at.date() - FIRST).days, key.partition("=")[2].partition("}")[0]) for key, at in rows]


def answer(store: Store, told: Iterable[Alert], words: Mapping[int, str]) -> None:
    """Say of each alert what `words` says of its day: true, false or expected; the others stay unanswered."""
    for one in told:
        if (word := words.get(one.day)) is not None:
            at = datetime.combine(day(one.day), datetime.min.time(), ZONE) + timedelta(days=1, hours=9)
            reason = "expected" if word == "expected" else ""
            give_feedback(store, one.key, is_useful=word == "true", reason=reason, who="li", now=at.astimezone(UTC))
