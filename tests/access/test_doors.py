"""Doors of the command line over generated grants: what is denied is in no answer and in no error.

Each value of each metric on each slice is a number of its own, so that it is recognised wherever it turns up; members and
metrics are recognised by their names.
"""

from __future__ import annotations

import functools
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from metrics_pipeline.access.model import Facts, Grant, Level, Selector, Subjects, facts_of
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.cli.app import app
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import PROJECT_ROOT, Settings
from metrics_pipeline.store import access, open_store

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import Shop

METRICS = ("gmv", "paid_amount", "gross_profit", "profit_margin", "orders_paid", "refunded_orders", "refund_rate")
SLICES = [
    ("all", "all"),
    *(("region", one) for one in ("塔城区", "漠河区")),
    *(("channel", one) for one in ("驿站", "商队")),
]
"""Members with names that are in no text of the product."""
DAYS = 3
COMMANDS = [
    ("value",),
    *(("value", metric) for metric in ("gmv", "profit_margin", "refund_rate")),
    ("value", "gmv", "--by", "region"),
    ("value", "gmv", "--by", "channel", "--as-of", "2026-01-01T00:00"),
    ("value", "profit_margin", "--by", "region", "--member", "漠河区"),
    ("value", "profit_margins"),
    ("value", "gmv", "--by", "region", "--member", "漠河"),
    ("forecast", "gmv"),
    ("forecast", "gmv", "--by", "region"),
    ("forecast", "profit_margins"),
    ("forecast", "profit_margin", "--by", "region", "--member", "漠河区"),
    ("stockout",),
    ("library", "list"),
    ("library", "show", "profit_margin"),
    ("library", "lineage", "profit_margin"),
    ("library", "usage"),
    ("alerts", "list"),
]


def number_of(metric: str, slice_: tuple[str, str]) -> float:
    """One number for each metric and slice: seven digits that nothing else has."""
    return 9_100_000 + METRICS.index(metric) * 1_000 + SLICES.index(slice_) * 100 + 37


@functools.cache
def library(folder: Path) -> Catalogue:
    return UNCACHED(folder)


UNCACHED = Catalogue.read


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")
    shop = Shop()
    for metric in METRICS:
        for dimension, member in SLICES:
            shop.add(metric, [number_of(metric, (dimension, member))] * DAYS, dimension=dimension, member=member)
    shop.publish(folder / "warehouse" / "published")
    store = open_store(Settings(home=folder))
    with store.writing("access") as connection:
        access.enable(connection, "test", now=datetime(2025, 1, 1, tzinfo=UTC))
    store.close()
    return folder


@pytest.fixture
def environment(home, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(Catalogue, "read", library)
    return home, monkeypatch


grants = st.lists(
    st.tuples(
        st.sampled_from(
            [
                Selector("all"),
                Selector("metric", "gmv"),
                Selector("metric", "profit_margin"),
                Selector("line", "service"),
                Selector("layer", "strategic"),
            ]
        ),
        st.sampled_from(
            [{}, {"region": ["塔城区"]}, {"channel": ["驿站"]}, {"region": ["塔城区"], "channel": ["驿站"]}]
        ),
        st.sampled_from(["hidden", "banded", "exact"]),
    ),
    max_size=3,
)


def give(home: Path, person: str, given: list[tuple[Selector, dict[str, list[str]], str]]) -> None:
    store = open_store(Settings(home=home))
    with store.writing("access") as connection:
        for selector, slices, level in given:
            fields = {
                "subject_kind": "person", "subject": person, "actions": ["read"], "selectors": [list(selector)],
                "slices": slices, "level": level, "starts_at": None, "expires_at": None,
                "granted_by": "test", "granted_at": datetime(2025, 1, 1, tzinfo=UTC), "reason": "test",
            }  # fmt: skip
            access.add_grant(connection, fields)
    store.close()


def viewer_with(person: str, given, facts: dict[str, Facts]) -> Viewer:
    held = tuple(
        Grant(
            number, "person", person, frozenset({"read"}), (selector,),
            {name: frozenset(members) for name, members in slices.items()}, Level[level.upper()],
        )
        for number, (selector, slices, level) in enumerate(given)
    )  # fmt: skip
    return Viewer(Subjects(person), facts, datetime.now(UTC), held)


people = iter(range(1_000_000))


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(given=grants)
def test_what_is_denied_is_in_no_answer_and_no_error(environment, given):
    home, monkeypatch = environment
    person = f"p{next(people)}"
    give(home, person, given)
    monkeypatch.setenv("METRICS_USER", person)
    viewer = viewer_with(person, given, facts_of(library(PROJECT_ROOT / "dbt_project").metrics))
    unknown = {name for name in viewer.metrics if not viewer.reading.knows(name)}
    for command in COMMANDS:
        result = CliRunner().invoke(app, [*command])
        assert result.exit_code in (0, 1, 2) and not isinstance(result.exception, TypeError | KeyError | AttributeError)
        for word in command:
            told = result.output.replace(f"'{word}'", "").replace(f"of {word} ", "")
        said = told.replace(",", "")
        for metric in METRICS:
            for slice_ in SLICES:
                if viewer.level(metric, *slice_) < Level.EXACT:
                    assert str(int(number_of(metric, slice_))) not in said, (command, metric, slice_)
        asked = {*command, *(one for _, slices, _ in given for members in slices.values() for one in members)}
        for name in unknown - asked:
            assert not re.search(rf"\b{name}\b", told), (command, name)
        for dimension, member in SLICES[1:]:
            if member not in asked and all(
                viewer.level(metric, dimension, member) == Level.DENIED for metric in METRICS
            ):
                assert member not in told, (command, member)
