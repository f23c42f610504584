"""Previews on published history: the SQL of the model itself, on values in the place of tables."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
sys.path.insert(0, str(Path(__file__).parent))
from projects import edit, small_project
from shop import Shop, make_rule

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.changing import change
from metrics_pipeline.library.facts import PreviewError
from metrics_pipeline.library.preview import preview
from metrics_pipeline.rules.what_if import firings
from metrics_pipeline.warehouse.read import Published

FIRST, UNTIL = date(2025, 9, 1), date(2025, 11, 30)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project(tmp_path_factory.mktemp("preview"))


@pytest.fixture(scope="module")
def published(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Ninety days of orders, of which the north has no refunds on the last day."""
    metrics = Catalogue.read(project).metrics
    shop = Shop()
    days = (UNTIL - FIRST).days
    for member, dimension, share in (("all", "all", 1.0), ("n", "region", 0.6), ("s", "region", 0.4)):
        placed = [100.0 * share + n for n in range(days)]
        refunds: list = [4.0 * share] * days
        if member == "n":
            refunds[-1] = "missing"
        common = {"dimension": dimension, "member": member, "first": FIRST}
        shop.add("orders_placed", placed, version=metrics["orders_placed"].version, **common)
        shop.add("orders_paid", [value * 0.8 for value in placed], version=metrics["orders_paid"].version, **common)
        shop.add("refunded_orders", refunds, version=metrics["refunded_orders"].version, **common)
        rates = [
            (0.0 if refund == "missing" else refund, value * 0.8) for refund, value in zip(refunds, placed, strict=True)
        ]
        shop.add("refund_rate", rates, version=metrics["refund_rate"].version, **common)
    return shop.publish(tmp_path_factory.mktemp("published"))


def changed(project: Path, **given: str) -> Catalogue:
    return change(project, "refund_rate", given, UNTIL).after


def test_an_unchanged_definition_gives_what_is_published(project: Path, published: Published):
    found = preview(published, Catalogue.read(project), "refund_rate")
    assert (found.start, found.until) == (UNTIL - timedelta(days=90), UNTIL)
    assert (found.compared, found.different, found.only_old, found.only_new) == (3 * 90, 0, 0, 0)
    assert found.slices.empty


def test_a_changed_one_is_compared_value_by_value(project: Path, published: Published):
    found = preview(published, changed(project, formula="refunded_orders / orders_placed"), "refund_rate", days=10)
    assert (found.compared, found.different) == (30, 29)  # 0 of anything is 0
    assert len(found.daily) == 10
    for row in found.daily.itertuples():
        n = (row.period_start.date() - FIRST).days
        assert row.new == 4.0 / (100.0 + n)
        assert row.old == pytest.approx(row.new / 0.8)
    assert found.slices.difference.abs().is_monotonic_decreasing
    assert set(found.slices.dimension) == {"all", "region"}


def test_inputs_that_are_not_published_are_told(project: Path, published: Published):
    with pytest.raises(PreviewError, match="not all inputs of average_order_value"):
        preview(published, Catalogue.read(project), "average_order_value")
    edited = small_project(project.parent / "edited")
    edit(edited, "refunded_orders", "measure: refunded_orders", "measure: refund_amount")
    with pytest.raises(PreviewError, match="computed from facts"):
        preview(published, Catalogue.read(edited), "refunded_orders")


def test_rules_are_replayed_on_both(project: Path, published: Published):
    rules = [
        make_rule(alert="rate", metric="refund_rate", yellow_if="> 0.03"),
        make_rule(alert="by_region", metric="refund_rate", by=["region"], yellow_if="> 0.03"),
        make_rule(alert="growth", metric="refund_rate", expr="pct_change(7d)", yellow_if="> 1"),
        make_rule(alert="other", metric="orders_paid"),
    ]
    found = firings(
        published, changed(project, formula="refunded_orders / orders_placed"), "refund_rate", rules,
        start=date(2025, 9, 1), until=UNTIL,
    )  # fmt: skip
    assert [one.rule for one in found] == ["rate", "by_region", "growth"]
    rate = found[0]
    assert rate.before.yellow == sum(4.0 / (80.0 + 0.8 * n) > 0.03 for n in range(90))
    assert rate.after.yellow == sum(4.0 / (100.0 + n) > 0.03 for n in range(90))
    assert rate.before.yellow > rate.after.yellow > 0
    assert (found[2].before.yellow, found[2].after.yellow) == (0, 0)


def test_what_the_reader_may_not_see_is_in_no_preview(project: Path, published: Published):
    class Blind(Published):
        def relation(self, files):
            return f"(SELECT * FROM {super().relation(files)} WHERE metric <> 'orders_placed')"

    blind = Blind(published.directory, replace(published.manifest))
    found = preview(blind, changed(project, formula="refunded_orders / orders_placed"), "refund_rate", days=10)
    assert found.daily.new.isna().all()
    assert datetime.combine(UNTIL, datetime.min.time()) > found.daily.period_start.max()
