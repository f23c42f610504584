"""Versions as a function of the day: definitions with effective dates, and what follows for what is made of them."""

from __future__ import annotations

import shutil
import sys
from datetime import date
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from projects import add_former, small_project

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import generated_files
from metrics_pipeline.library.definitions import DefinitionError
from metrics_pipeline.library.spans import VersionSpan, joined, version_on, versions_within

CHANGED = date(2025, 11, 1)
FORMER = """
        former:
          - until: "2025-11-01"
            type: ratio
            type_params: {numerator: refund_amount, denominator: paid_amount}
            description: Refunded money per paid money.
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path)


def test_a_metric_without_former_definitions_has_one_open_span(project: Path):
    metric = Catalogue.read(project).metrics["refund_rate"]
    assert metric.spans == (VersionSpan(None, metric.version),)
    assert metric.former == ()


def test_days_before_the_change_keep_the_former_formula_and_its_version(project: Path):
    plain = Catalogue.read(project).metrics["refund_rate"]
    metric = add_former(project, "refund_rate", FORMER).metrics["refund_rate"]
    assert metric.version == plain.version
    assert metric.version_on(CHANGED) == plain.version
    before = metric.defined_on(date(2025, 10, 31))
    assert (before.formula, before.definition_en) == ("refund_amount / paid_amount", "Refunded money per paid money.")
    assert metric.version_on(date(2025, 10, 31)) == before.version != plain.version
    assert metric.defined_on(CHANGED) is metric


def test_the_former_version_is_that_of_a_project_in_which_it_never_changed(project: Path):
    metric = add_former(project, "refund_rate", FORMER).metrics["refund_rate"]
    other = project.parent / "other"
    shutil.copytree(project, other)
    path = other / "models/operational/refund_rate.yml"
    text = path.read_text("utf-8").replace("refunded_orders", "refund_amount").replace("orders_paid", "paid_amount")
    path.write_text(text, "utf-8")
    assert Catalogue.read(other).metrics["refund_rate"].version == metric.version_on(date(2020, 1, 1))


def test_what_is_made_of_it_changes_its_version_on_the_same_day(project: Path):
    plain = Catalogue.read(project).metrics
    metrics = add_former(project, "refund_rate", FORMER).metrics
    health = metrics["order_health"]
    assert health.version == plain["order_health"].version
    assert [span.until for span in health.spans] == [CHANGED, None]
    assert health.former == ()
    assert metrics["average_order_value"].spans == plain["average_order_value"].spans


def test_a_moving_sum_has_a_version_of_its_own_while_it_sees_both(project: Path):
    former = """
        former:
          - {until: "2025-11-01", type: simple, type_params: {measure: refund_amount}}
"""
    metric = add_former(project, "units_sold", former).metrics["units_sold_28d"]
    assert [span.until for span in metric.spans] == [CHANGED, date(2025, 11, 28), None]
    assert len({span.version for span in metric.spans}) == 3


def test_generated_models_have_both_definitions_and_only_theirs(project: Path):
    files = generated_files(add_former(project, "refund_rate", FORMER))
    text = files[project / "models/operational/refund_rate.sql"]
    assert text.count("ratio_metric(") == 2
    assert text.index("ref('refund_amount')") < text.index("ref('refunded_orders')")
    assert "by_definition([\n    ['2025-11-01', ratio_metric(" in text
    health = files[project / "models/operational/order_health.sql"]
    assert "version=[['2025-11-01', '" in health
    assert health.count("derived_metric(") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{until: '2025-11-01', type: ratio, type_params: {numerator: no_such, denominator: orders_paid}}", "no_such"),
        ("{until: soon, type: ratio, type_params: {}}", "former.0.until"),
        ("{until: '2025-11-01', type: riddle, type_params: {}}", "kind"),
        (
            "{until: '2025-11-01', type: ratio, type_params: {numerator: order_health, denominator: orders_paid}}",
            "itself",
        ),
    ],
)
def test_a_wrong_former_definition_is_told_with_its_file(project: Path, text: str, said: str):
    with pytest.raises(DefinitionError) as caught:
        add_former(project, "refund_rate", f"\n        former:\n          - {text}\n")
    assert said in str(caught.value)
    assert ".yml:2: " in str(caught.value)


def test_former_days_must_ascend(project: Path):
    one = '          - {until: "2025-11-01", type: ratio, type_params: {numerator: buyers, denominator: orders_paid}}\n'
    with pytest.raises(DefinitionError, match="must be after the one before it"):
        add_former(project, "refund_rate", f"\n        former:\n{one}{one}")


def test_spans_answer_for_days_and_for_stretches_of_days():
    spans = (VersionSpan(date(2025, 1, 5), "a"), VersionSpan(date(2025, 1, 9), "b"), VersionSpan(None, "c"))
    assert [version_on(spans, date(2025, 1, day)) for day in (1, 4, 5, 8, 9)] == ["a", "a", "b", "b", "c"]
    assert versions_within(spans, date(2025, 1, 4), date(2025, 1, 5)) == ("a", "b")
    assert versions_within(spans, date(2025, 1, 5), date(2025, 1, 8)) == ("b",)
    assert versions_within(spans, date(2025, 1, 1), date(2026, 1, 1)) == ("a", "b", "c")
    assert joined((VersionSpan(date(2025, 1, 5), "a"), VersionSpan(None, "a"))) == (VersionSpan(None, "a"),)
