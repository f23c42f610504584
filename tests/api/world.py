"""A served installation for the tests of the API: real definitions, a small published shop, a real server on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx

from metrics_pipeline.api.serve import make_server
from metrics_pipeline.api.tokens import new_token
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store, audit
from metrics_pipeline.store import access as rows
from metrics_pipeline.store.tokens import add_token
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import MetricState
from tests.warehouse.metric_tables import ALL_TIME, Row, write_metric

UNTIL = datetime(2026, 11, 11)
DAYS = 12
LOADED = datetime(2026, 11, 11, 2, 30)
REGIONS = ("华东", "华北", "it's; DROP--", "西南")
CHANNELS = ("app", "web")
TOTALS = {"orders_paid": 300.0, "refunded_orders": 30.0, "gmv": 12_000.0, "cost_of_goods": 8_400.0}
RATIOS = {"refund_rate": ("refunded_orders", "orders_paid")}
PUBLISHED = (*TOTALS, *RATIOS, "profit_margin")
SLICES = {
    ("all", "all"): 1.0,
    **{("region", one): (number + 1) / 10 for number, one in enumerate(REGIONS)},
    **{("channel", one): 0.5 for one in CHANNELS},
    **{("region|channel", f"{one}|{other}"): (n + 1) / 20 for n, one in enumerate(REGIONS) for other in CHANNELS},
}


def numbers_of(metric: str, share: float, factor: float) -> tuple[float, float | None, float | None]:
    """Numerator, denominator and value."""
    if metric in RATIOS:
        above, below = (TOTALS[name] * share * factor for name in RATIOS[metric])
        return above, below, above / below
    if metric == "profit_margin":
        return 3_600.0 * share * factor, 12_000.0 * share, 0.3 * factor
    return TOTALS[metric] * share * factor, None, TOTALS[metric] * share * factor


def publish_shop(folder: Path, *, factor: float = 1.0, night: int = 0) -> None:
    """The shop as the nth night publishes it; every value times `factor`, but for the ratios."""
    with duckdb.connect() as con:
        tables = {}
        for metric in PUBLISHED:
            found = [
                Row(UNTIL - timedelta(days=day), value, dimension, member, "day", above, below, f"{metric[:4]}-v1")
                for (dimension, member), share in SLICES.items()
                for above, below, value in [numbers_of(metric, share, factor)]
                for day in range(1, DAYS + 1)
            ]
            if metric == "refund_rate":  # a day on which nothing was paid
                found[0] = found[0]._replace(value=None, numerator=0.0, denominator=0.0)
            write_metric(con, f"base.{metric}", found)
            tables[metric] = MetricTables((f"base.{metric}",), MetricState(f"{metric[:4]}-v1", UNTIL))
        tables["complaints"] = MetricTables(
            (), MetricState("none", None, "the source has no complaints", "数据源没有客诉")
        )
        publish(con, folder, tables=tables, window=ALL_TIME, run_id=f"run-{night}", now=LOADED + timedelta(days=night))


@dataclass
class World:
    """A running API and what it serves."""

    settings: Settings
    store: Store
    catalogue: Catalogue
    url: str

    def token(self, person: str = "li", *, expires_at: datetime | None = None) -> str:
        """A new token that acts as somebody."""
        made = new_token(person, "test", created_by="ops", now=datetime.now(UTC), expires_at=expires_at)
        with self.store.writing() as connection:
            add_token(connection, made.row)
        return made.text

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        """Somebody who asks."""
        held = self.token() if token is None else token
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {held}", **headers}, trust_env=False)

    def grant(self, person: str, *selectors: tuple[str, str], level: str = "hidden", **slices: list[str]) -> int:
        """Give somebody something to read; the policy is on from then on."""
        with self.store.writing() as connection:
            if rows.enabled(connection) is None:
                rows.enable(connection, "ops", now=datetime.now(UTC))
            given = rows.add_grant(
                connection,
                {
                    "subject_kind": "person", "subject": person, "actions": ["read"],
                    "selectors": [list(one) for one in selectors or [("all", "")]], "slices": slices, "level": level,
                    "starts_at": None, "expires_at": None, "granted_by": "ops", "granted_at": datetime.now(UTC), "reason": "test",
                },
            )  # fmt: skip
        return given.id

    def open_up(self) -> None:
        """Turn the policy off."""
        with self.store.writing() as connection:
            rows.disable(connection)

    def log(self, **wanted: Any) -> list[audit.Entry]:
        """The audit log, newest first."""
        with self.store.reading() as connection:
            return audit.entries(connection, **wanted)


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """A real server in a thread; its address."""
    server = make_server(settings, host="127.0.0.1", port=0, log_level="critical")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def settings_of(home: Path, **more: Any) -> Settings:
    rules = home / "rules"
    rules.mkdir(parents=True)
    (rules / "_people.yml").write_text("people:\n  - {id: li, name_zh: 李雷}\n  - {id: wang}\n", "utf-8")
    return Settings(home=home, rules_dir=rules, user="ops", **more)
