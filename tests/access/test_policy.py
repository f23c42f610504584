"""One policy: what it decides about a slice, and the SQL that follows from it, agree; and it gives what its words say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.bands import band, bounds_sql, least_of
from metrics_pipeline.access.model import Facts, Grant, Level, Selector, Subjects
from metrics_pipeline.access.policy import Rights, decide, derivable

NOW = datetime(2026, 11, 11, 8, tzinfo=UTC)
METRICS = {
    one.id: one
    for one in (
        Facts("orders_paid", "base", "order", "trade", unit="count"),
        Facts("refunded_orders", "base", "order", "service", unit="count"),
        Facts("refund_rate", "operational", "order", "service", inputs=("refunded_orders", "orders_paid")),
        Facts("gmv", "strategic", "finance", "finance", unit="currency"),
        Facts("gross_profit", "operational", "finance", "finance", "confidential", "currency"),
        Facts("profit_margin", "strategic", "finance", "finance", "confidential", inputs=("gross_profit", "gmv")),
    )
}
SLICES = [
    ("all", "all"),
    *(("region", region) for region in ("华北", "华东", "it's")),
    *(("channel", channel) for channel in ("app", "web")),
    *(("region|channel", f"{region}|{channel}") for region in ("华北", "华东") for channel in ("app", "web")),
    *(("category|region", f"食品|{region}") for region in ("华北", "华东")),
    ("region|channel", "华北"),
    ("region|channel", "华北|app|web"),
    ("region", "华北|app"),
]


def make_grant(number: int = 1, subject: str = "li", **fields: object) -> Grant:
    values: dict[str, object] = {
        "id": number,
        "subject_kind": "person",
        "subject": subject,
        "actions": frozenset({"read"}),
        "selectors": (Selector("all"),),
    }
    return Grant(**{**values, **fields})  # type: ignore[arg-type]


def level(grants: list[Grant], metric: str, dimension: str = "all", member: str = "all", **person: object) -> Level:
    subjects = Subjects(**{"person": "li", **person})  # type: ignore[arg-type]
    return decide(subjects, "read", metric, grants, METRICS, now=NOW, dimension=dimension, member=member).level


def test_nothing_is_allowed_that_no_grant_allows():
    assert level([], "gmv") == Level.DENIED
    assert level([make_grant(subject="wang")], "gmv") == Level.DENIED
    assert level([make_grant(actions=frozenset({"export"}))], "gmv") == Level.DENIED


def test_a_grant_on_everything_shows_no_confidential_value_unless_it_says_so():
    assert level([make_grant()], "gmv") == Level.EXACT
    assert level([make_grant()], "profit_margin") == Level.HIDDEN
    assert level([make_grant(level=Level.BANDED)], "profit_margin") == Level.BANDED
    assert level([make_grant(level=Level.EXACT)], "profit_margin") == Level.EXACT


NORTH = {"region": frozenset({"华北"})}


@pytest.mark.parametrize(
    ("dimension", "member", "is_given"),
    [
        ("region", "华北", True),
        ("region|channel", "华北|app", True),
        ("category|region", "食品|华北", True),
        ("region", "华东", False),
        ("region|channel", "华东|app", False),
        ("all", "all", False),
        ("channel", "app", False),
        ("region|channel", "华北", False),
        ("category|region", "华北|食品", False),
    ],
)
def test_a_grant_on_a_region_gives_its_slices_and_no_total(dimension, member, is_given):
    assert (level([make_grant(slices=NORTH)], "gmv", dimension, member) == Level.EXACT) is is_given


def test_a_grant_on_two_dimensions_gives_only_what_has_both():
    grants = [make_grant(slices={**NORTH, "channel": frozenset({"app"})})]
    given = [one for one in SLICES if level(grants, "gmv", *one) == Level.EXACT]
    assert given == [("region|channel", "华北|app")]


def test_positions_and_lines_give_to_those_who_hold_them():
    grants = [make_grant(subject_kind="position", subject="sales"), make_grant(subject_kind="line", subject="trade")]
    assert level(grants[:1], "gmv", positions=frozenset({"sales"})) == Level.EXACT
    assert level(grants[1:], "gmv", lines=frozenset({"trade"})) == Level.EXACT
    assert level(grants, "gmv") == Level.DENIED
    assert level([make_grant(subject_kind="channel")], "gmv") == Level.DENIED


@pytest.mark.parametrize(
    ("times", "holds"),
    [
        ({"starts_at": NOW}, True),
        ({"starts_at": NOW + timedelta(seconds=1)}, False),
        ({"expires_at": NOW + timedelta(seconds=1)}, True),
        ({"expires_at": NOW}, False),
        ({"revoked_at": NOW}, False),
    ],
)
def test_a_grant_counts_from_its_beginning_to_its_end(times, holds):
    assert (level([make_grant(**times)], "gmv") == Level.EXACT) is holds


def test_what_follows_from_a_ratio_and_one_of_its_parts_is_named():
    def of(*grants: Grant) -> list[tuple[str, str]]:
        return derivable(Rights.of(Subjects("li"), "read", grants, METRICS, now=NOW), METRICS)

    ratio = make_grant(selectors=(Selector("metric", "profit_margin"),), level=Level.EXACT)
    assert of(make_grant()) == []
    assert of(make_grant(), ratio) == [("gross_profit", "profit_margin, gmv")]
    assert of(make_grant(level=Level.EXACT)) == []


members = st.sets(st.sampled_from(["华北", "华东", "app", "web", "食品", "it's"]), max_size=3).map(frozenset)
grants_of_anybody = st.lists(
    st.builds(
        make_grant,
        number=st.integers(1, 99),
        subject_kind=st.sampled_from(["person", "position", "line", "channel"]),
        subject=st.sampled_from(["li", "sales", "trade"]),
        actions=st.sets(st.sampled_from(["read", "export"])).map(frozenset),
        selectors=st.lists(
            st.sampled_from(
                [
                    Selector("all"),
                    Selector("metric", "gmv"),
                    Selector("line", "service"),
                    Selector("layer", "base"),
                    Selector("category", "finance"),
                    Selector("sensitivity", "confidential"),
                    Selector("metric", "nobody_knows"),
                ]
            ),
            max_size=2,
        ).map(tuple),
        slices=st.dictionaries(st.sampled_from(["region", "channel", "category"]), members, max_size=2),
        level=st.sampled_from([Level.HIDDEN, Level.BANDED, Level.EXACT]),
        expires_at=st.sampled_from([None, NOW, NOW + timedelta(days=1)]),
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def values():
    with duckdb.connect() as con:
        con.execute("CREATE TABLE slices (metric VARCHAR, dimension VARCHAR, member VARCHAR)")
        rows = [(metric, *one) for metric in (*METRICS, "nobody_knows") for one in SLICES]
        con.executemany("INSERT INTO slices VALUES (?, ?, ?)", rows)
        yield con


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grants=grants_of_anybody)
def test_the_decision_and_the_sql_agree_on_every_slice(values, grants):
    subjects = Subjects("li", frozenset({"sales"}), frozenset({"trade"}))
    rights = Rights.of(subjects, "read", grants, METRICS, now=NOW)
    found = values.execute(f"SELECT metric, dimension, member, {rights.level_sql()} FROM slices").fetchall()
    assert {row[:3]: row[3] for row in found} == {
        row[:3]: int(rights.decide(*row[:3]).level) for row in found
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(grants=grants_of_anybody, more=grants_of_anybody)
def test_another_grant_never_takes_anything_away(grants, more):
    fewer = Rights.of(Subjects("li"), "read", grants, METRICS, now=NOW)
    all_ = Rights.of(Subjects("li"), "read", [*grants, *more], METRICS, now=NOW)
    for metric in METRICS:
        for one in SLICES:
            assert all_.decide(metric, *one).level >= fewer.decide(metric, *one).level


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "count", "-10 – 10"),
        (9.99, "count", "-10 – 10"),
        (10, "count", "10 – 20"),
        (1999, "currency", "1,000 – 2,000"),
        (2000, "currency", "2,000 – 5,000"),
        (-7500, "currency", "-10,000 – -5,000"),
        (0.034, "ratio", "0.02 – 0.05"),
        (0.001, "ratio", "-0.01 – 0.01"),
    ],
)
def test_a_band_is_a_step_of_one_two_five(value, unit, shown):
    assert str(band(value, unit)) == shown


numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)


def test_bands_are_the_same_in_sql_and_hold_their_value():
    found: list[float] = []

    @settings(max_examples=200, deadline=None)
    @given(numbers)
    def collect(value: float) -> None:
        found.append(value)

    collect()
    low, high = bounds_sql("value", str(least_of("count")))
    with duckdb.connect() as con:
        con.execute("CREATE TABLE one (n INTEGER, value DOUBLE)")
        con.executemany("INSERT INTO one VALUES (?, ?)", list(enumerate(found)))
        rows = con.execute(f"SELECT value, {low}, {high} FROM one ORDER BY n").fetchall()
    for value, first, last in rows:
        assert (first, last) == pytest.approx(tuple(band(value, "count")), rel=1e-12)
        assert (
            first <= value * (1 + 1e-12 * (1 if value > 0 else -1))
            and value * (1 - 1e-12 * (1 if value > 0 else -1)) <= last
        )
