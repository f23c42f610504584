"""A night that is killed in any phase and started again leaves what an undisturbed one leaves; readers notice nothing.

`metrics nightly` runs as a process of its own that is killed (SIGKILL) while the phase is under way. One home is killed
in several phases, one after the other, each the first time that the night gets that far.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from ruamel.yaml import YAML

from metrics_pipeline.orchestration.in_process import partition_tags, run_in_process
from metrics_pipeline.orchestration.instance import open_instance
from metrics_pipeline.orchestration.keys import FROM_TAG, NIGHTLY
from metrics_pipeline.orchestration.operations import _definitions, run_delivery
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.settings import Installation, Settings, write_installation
from metrics_pipeline.sources.simulator import simulate
from metrics_pipeline.warehouse.history import history_sql
from metrics_pipeline.warehouse.read import Published
from tests.commands import Running, start

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nightly")]

NIGHT = date(2025, 12, 3)
DAYS = 100
SEED = 11
SCALE = 0.01
LATE_DAYS = 1
"""Each day that a night rebuilds costs dbt a batch of every cube; one says what three would say."""
LONGEST_PHASE = 300.0
READER = Path(__file__).with_name("reader.py")

RULES: dict[str, dict[str, Any]] = {
    "orders_by_region": {"metric": "orders_placed", "by": ["region"], "expr": "pct_change(1d)", "red_if": "> 0.5"},
    "orders_by_channel": {"metric": "orders_placed", "by": ["channel"], "expr": "pct_change(1d)", "red_if": "< -0.3"},
    "gmv_by_category": {"metric": "gmv", "by": ["category"], "expr": "quantile(30d, 0.5)", "yellow_if": "outside 0.4"},
    "gmv_band": {"metric": "gmv", "expr": "band(seasonal)", "yellow_if": "outside 0.5", "red_if": "outside 4"},
    "sessions_band": {"metric": "sessions", "by": ["channel"], "expr": "band(seasonal)", "yellow_if": "outside 1"},
    "paid_for_two": {"metric": "orders_paid", "by": ["region"], "expr": "value", "yellow_if": "> 1", "for": 2},
    "refund_rate_high": {"metric": "refund_rate", "by": ["category"], "expr": "value", "red_if": "> 0"},
}
"""So sensitive that alerts begin, go on and end every night in a shop of twelve orders a day."""


@dataclass(frozen=True)
class Shop:
    """A home with all history but the last day; every case starts from a copy of it at the same path.

    At the same path, because the prepared dbt project names the path of the build file.
    """

    settings: Settings
    pristine: Path
    reference: Path
    """The home after an undisturbed night."""
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.settings.home

    def renew(self) -> None:
        """The home as it was before the night."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.pristine, self.home)

    def start(self) -> Running:
        """`metrics nightly` as a process of its own."""
        return start("nightly", "--day", NIGHT.isoformat(), environment=self.environment)

    def run_to_the_end(self) -> None:
        answer = self.start().answer(timeout=2 * LONGEST_PHASE)
        assert answer.code == 0, answer.out + answer.err


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    root = tmp_path_factory.mktemp("nightly")
    home, rules = root / "home", root / "rules"
    _write_rules(rules)
    yesterday, first = NIGHT - timedelta(days=1), NIGHT - timedelta(days=DAYS)
    installation = Installation(seed=SEED, scale=SCALE, first_day=first)
    write_installation(home, installation)
    settings = Settings(home=home, installation=installation, rules_dir=rules, late_days=LATE_DAYS)
    simulate(settings.source_dir, seed=SEED, scale=SCALE, days=DAYS, until=yesterday)
    project = Project.open(settings)
    with open_instance(
        settings
    ) as instance:  # history as one night that tells, so that alerts are known when the next ends them
        history = run_in_process(
            _definitions(project).resolve_job_def(NIGHTLY),
            instance,
            location="pipeline",
            tags={**partition_tags(yesterday), FROM_TAG: first.isoformat()},
        )
        assert history.success, history.failures
        assert run_delivery(settings, instance, after=history.run_id).success
    environment = {**os.environ, "METRICS_HOME": str(home), "METRICS_RULES_DIR": str(rules)}
    environment["METRICS_LATE_DAYS"] = str(LATE_DAYS)
    built = Shop(settings, root / "pristine", root / "reference", environment)
    home.rename(built.pristine)
    built.renew()
    with reader(home, root / "seen.json") as seen:
        built.run_to_the_end()
    assert seen["errors"] == []
    home.rename(built.reference)
    return built


def _write_rules(folder: Path) -> None:
    common = {
        "why": "To see alerts.",
        "why_zh": "用于测试。",
        "owner": "test",
        "labels": {"scenario": "test"},
        "annotations": {"summary": "Test.", "summary_zh": "测试。"},
    }
    folder.mkdir()
    group = {"name": "nightly", "rules": [{"alert": name, **common, **rule} for name, rule in RULES.items()]}
    route = {"receiver": "everybody", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"}
    # A second between two messages of a group: a night told late, because it was killed, says what it would have said.
    routes = {"route": route, "receivers": [{"name": "everybody", "channels": ["file"]}]}
    for name, content in (("rules.yml", {"groups": [group]}), ("_routes.yml", routes)):
        with (folder / name).open("w", encoding="utf-8") as stream:
            YAML().dump(content, stream)


# -- phases --------------------------------------------------------------------------------------------------------


def _event(kind: str, step: str) -> Callable[[Settings, int], bool]:
    def is_there(settings: Settings, since: int) -> bool:
        return _rows_of(
            settings,
            "SELECT count(*) FROM event_logs WHERE id > ? AND dagster_event_type = ? AND step_key = ?",
            [since, kind, step],
        )

    return is_there


def _publishing(settings: Settings, since: int) -> bool:
    return _event("STEP_START", "published__metric_values")(settings, since) and any(
        (settings.published_dir / ".staging").glob("*.parquet")
    )


def _delivering(settings: Settings, since: int) -> bool:
    if not _event("STEP_START", "deliver")(settings, since):
        return False
    with closing(sqlite3.connect(f"file:{settings.home / 'store.db'}?mode=ro", uri=True)) as con:
        return bool(con.execute("SELECT count(*) FROM outbox WHERE state = 'leased'").fetchone()[0])


PHASES: dict[str, tuple[Callable[[Settings, int], bool], float]] = {
    "raw": (_event("STEP_START", "raw_tables"), 2.0),
    "dbt": (_event("ASSET_MATERIALIZATION", "dbt_daily"), 3.0),
    "publish": (_publishing, 0.5),
    "evaluate": (_event("STEP_START", "rules__evaluations"), 0.8),
    "alerts": (_event("STEP_START", "alerts__outbox"), 0.4),
    "delivery": (_delivering, 0.2),
}
"""Phase → how to see that it is under way, and the longest wait in seconds until the kill."""


def _rows_of(settings: Settings, query: str, parameters: list[object]) -> int:
    path = settings.dagster_home / "history" / "event_log.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as con:
        return int(con.execute(query, parameters).fetchone()[0] or 0)


def kill_in(shop: Shop, phase: str) -> float:
    """Start a night and kill it in that phase; returns how long after the phase was seen."""
    under_way, longest = PHASES[phase]
    since = _rows_of(shop.settings, "SELECT max(id) FROM event_logs", [])
    wait = random.uniform(0, longest)
    night = shop.start()
    try:
        deadline = time.monotonic() + LONGEST_PHASE
        while not under_way(shop.settings, since):
            assert night.code is None, f"the night ended before {phase}: {night.answer(1)}"
            assert time.monotonic() < deadline, f"{phase} was not reached"
            time.sleep(0.01)
        time.sleep(wait)
        assert night.code is None, f"the night ended within {wait:.2f} s of {phase}"
    finally:
        night.kill()
    return wait


# -- the reader ----------------------------------------------------------------------------------------------------


@contextmanager
def reader(home: Path, report: Path) -> Iterator[dict[str, Any]]:
    """A second process that reads all the time; what it saw is in the dictionary afterwards."""
    seen: dict[str, Any] = {}
    begun = report.with_suffix(".begun")
    begun.unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, str(READER), str(home), str(report)])
    try:
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield seen
    finally:
        process.terminate()
        process.wait(timeout=60)
    seen.update(json.loads(report.read_text("utf-8")))


# -- what a night leaves -------------------------------------------------------------------------------------------

_NUMBERS = ("value", "numerator", "denominator", "observed", "baseline", "lower", "upper", "yellow_bound", "red_bound")
_RUN = ("id", "data_version", "run_id")


def _digits(column: str) -> str:
    """A number to ten digits: the last ones of a sum depend on the order of its rows."""
    return f"CASE WHEN {column} IS NOT NULL THEN format('{{:.10g}}', {column}) END AS {column}"


def differences(left: Path, right: Path) -> dict[str, list[Any]]:
    """Rows of published values, latest history and evaluations that only one of two homes has."""
    found = {}
    key = "metric, grain, dimension, member, period_start"
    numbers = ", ".join(_digits(name) for name in _NUMBERS[:3])
    judged = ", ".join(_digits(name) for name in _NUMBERS)
    queries = {
        "values": f"SELECT {key}, {numbers}, definition_version FROM HOME_values",
        "history": f"SELECT {key}, {numbers}, definition_version FROM HOME_history"
        f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY computed_at DESC) = 1",
        "evaluations": f"SELECT rule, metric, dimension, member, grain, period_start, tier, reason, rule_hash,"
        f" metric_version, {judged} FROM HOME_evaluations",
    }
    versions = [Published.open(home / "warehouse" / "published") for home in (left, right)]
    values = [{file.path for file in one.manifest.values} for one in versions]
    changes = [{(file.month, file.part, file.path) for file in one.manifest.history} for one in versions]
    months = {(month, part) for month, part, _ in changes[0] ^ changes[1]}
    with duckdb.connect() as con:
        for name, home, one in zip(("first", "second"), (left, right), versions, strict=True):
            # Files are named by their content and never changed: what both have is the same.
            paths = [file for file in one.files() if str(file.relative_to(one.directory)) not in values[0] & values[1]]
            history = [file for file in one.manifest.history if (file.month, file.part) in months]
            for view, sql in (
                ("values", one._values_sql(paths)),
                ("history", history_sql(one.directory, history)),
                ("evaluations", f"SELECT * FROM read_parquet('{home}/warehouse/evaluations/month=*/*.parquet')"),
            ):
                con.execute(f"CREATE VIEW {name}_{view} AS {sql}")
        for name, query in queries.items():
            one, other = query.replace("HOME", "first"), query.replace("HOME", "second")
            found[name] = con.execute(
                f"(({one}) EXCEPT ALL ({other})) UNION ALL (({other}) EXCEPT ALL ({one})) LIMIT 10"
            ).fetchall()
    return found


def told(home: Path) -> dict[str, Any]:
    """Alerts and messages of a home, without moments, runs and versions."""
    left: dict[str, Any] = {}
    with closing(sqlite3.connect(home / "store.db")) as con:
        con.row_factory = sqlite3.Row
        for table in ("alert_instances", "episodes", "episode_receivers", "transitions"):
            left[table] = Counter(
                tuple((name, _plain(name, row[name])) for name in row.keys() if name not in _RUN)  # noqa: SIM118
                for row in con.execute(f"SELECT * FROM {table}")
            )
        left["messages"] = [
            tuple(row)
            for row in con.execute(
                "SELECT key, receiver, group_key, sequence, reason, tier, state FROM outbox ORDER BY key"
            )
        ]
        left["sent"] = Counter(
            row[0] for row in con.execute("SELECT notification FROM deliveries WHERE outcome = 'sent'")
        )
    left["files"] = Counter(path.name.split("-", 1)[1] for path in (home / "messages").glob("*"))
    return left


def _plain(name: str, value: Any) -> Any:
    """Numbers to ten digits; of an instant only that there is one."""
    if isinstance(value, float):
        return f"{value:.10g}"
    return value is not None if name == "at" or name.endswith("_at") else value


# -- tests ---------------------------------------------------------------------------------------------------------


def test_the_undisturbed_night_is_worth_comparing_with(shop: Shop) -> None:
    before, after = told(shop.pristine), told(shop.reference)
    new = [message for message in after["messages"] if message not in before["messages"]]
    assert len(new) >= 2  # one a group of alerts
    assert before["messages"]
    assert set(after["sent"].values()) == {1}
    assert len(after["files"]) == 2 * len(after["messages"])
    assert after["transitions"] - before["transitions"]
    changed = differences(shop.pristine, shop.reference)
    assert all(changed.values())


def test_a_night_killed_in_every_phase_and_started_again_is_an_undisturbed_one(shop: Shop, tmp_path: Path) -> None:
    shop.renew()
    former = Published.open(shop.settings.published_dir).version
    with reader(shop.home, tmp_path / "seen.json") as seen:
        waits = {phase: kill_in(shop, phase) for phase in PHASES}
        shop.run_to_the_end()
        time.sleep(0.2)
    print({phase: round(wait, 2) for phase, wait in waits.items()}, seen["polls"], "polls")
    assert seen["errors"] == []
    assert seen["polls"] > 50
    current = Published.open(shop.settings.published_dir).version
    assert set(seen["versions"]) == {former, current}
    assert all(len(contents) == 1 for contents in seen["versions"].values())
    assert_as_undisturbed(shop)


def assert_as_undisturbed(shop: Shop) -> None:
    assert not any(differences(shop.reference, shop.home).values())
    left, wanted = told(shop.home), told(shop.reference)
    for part, rows in wanted.items():
        assert left[part] == rows, part
