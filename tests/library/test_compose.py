"""Composing metrics from others: what is written, what is refused, what the preview shows, and that nothing is half-written."""

from __future__ import annotations

import math
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import stale_files
from metrics_pipeline.library.compose import ComposeError, Request, compose, dependents, removed, saved
from metrics_pipeline.library.definitions import DefinitionError
from metrics_pipeline.library.facts import PreviewError
from metrics_pipeline.library.lint import lint
from metrics_pipeline.library.trial import trial
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.warehouse.read import Published

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from shop import FIRST, Shop

DBT = PROJECT_ROOT / "dbt_project"
DAYS = 40
PAID = [50.0 + day % 7 for day in range(DAYS)]
PLACED = [60.0 + day % 5 for day in range(DAYS)]
NEW = [1000.0 + 10 * day for day in range(DAYS)]
RETURNING = [500.0 + day * day for day in range(DAYS)]


@pytest.fixture(scope="module")
def library() -> Catalogue:
    return Catalogue.read(DBT)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the dbt project that a test may change."""
    shutil.copytree(DBT, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    return tmp_path / "dbt"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Forty days of five metrics; the region 华南 has no refunds and orders only on the last day."""
    shop = Shop()
    shop.add("orders_paid", PAID).add("orders_placed", PLACED)
    shop.add("new_buyer_amount", NEW).add("returning_buyer_amount", RETURNING)
    shop.add("gmv", [new + old for new, old in zip(NEW, RETURNING, strict=True)])
    shop.add("refunded_orders", [2.0] * 39 + ["missing"])
    shop.add("refunded_orders", [2.0] * 39, dimension="region", member="华北")
    shop.add("orders_paid", PAID, dimension="region", member="华北")
    shop.add("orders_paid", ["missing"] * 38 + [5.0, 5.0], dimension="region", member="华南")
    return shop.publish(tmp_path_factory.mktemp("published"))


def ask(form: str, **fields: object) -> Request:
    given = {"id": "made_up", "label": "Made up", "name_zh": "虚构指标", **fields}
    return Request(form=form, **given)  # type: ignore[arg-type]


def shown(published: Published, library: Catalogue, request: Request, member: str = "all") -> dict[date, float]:
    frame = trial(published, compose(library, request).catalogue, request.id)
    rows = frame[frame["member"] == member]
    return {
        moment.date(): value
        for moment, value in zip(rows["period_start"].tolist(), rows["value"].tolist(), strict=True)
    }


def test_an_expression_becomes_a_definition_with_what_follows_from_its_inputs(library: Catalogue) -> None:
    made = compose(library, ask("expr", expression=".6*payment_conversion_rate+0.4*(1-complaint_rate)", unit="score"))
    metric = made.metric
    assert metric.formula == ".6 * payment_conversion_rate + 0.4 * (1 - complaint_rate)"
    assert (metric.layer, metric.unit, metric.sensitivity, metric.owner) == (
        "operational",
        "score",
        "internal",
        "sales",
    )
    assert metric.slices == ("all", "region", "channel")
    assert metric.definition_zh == ".6 × 支付转化率 + 0.4 × (1 − 客诉率)。"
    assert made.catalogue.downstream["complaint_rate"] == ("made_up",)
    assert "made_up" not in library.metrics


def test_what_is_more_sensitive_makes_the_new_one_so(library: Catalogue) -> None:
    assert library.metrics["gross_profit"].sensitivity == "confidential"
    made = compose(library, ask("ratio", inputs=("gross_profit", "orders_paid")))
    assert made.metric.sensitivity == "confidential"
    assert made.metric.unit == "currency"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask("expr", expression="gmv + refund_rate"), r"adds gmv \(currency\) and refund_rate"),
        (ask("expr", expression="gmv * gmv"), "no unit of a metric"),
        (ask("expr", expression="gmv; drop table x"), "not allowed"),
        (ask("expr", expression="1 + 2"), "names no metric"),
        (ask("expr", expression="gmw * 2"), "did you mean gmv"),
        (ask("expr", expression="gmv * 2", unit="ratio"), "`unit` is 'ratio', but"),
        (ask("expr", expression="gmv - new_buyer_amount"), "means the same as that of returning_buyer_amount"),
        (ask("ratio", inputs=("orders_paid", "orders_placed")), "payment_conversion_rate: its formula .* means the same as that of made_up"),
        (ask("expr", expression="2 * gmv", id="gmv"), "there is a metric 'gmv' already"),
        (ask("expr", expression="2 * gmv", id="order"), "means something else"),
        (ask("expr", expression="2 * gmv", id="fct_orders"), "means something else"),
        (ask("expr", expression="2 * gmv", id="metric_targets"), "is a seed"),
        (ask("expr", expression="2 * gmv", id="../x"), "is no id"),
        (ask("expr", expression="2 * gmv", name_zh="成交总额"), "is called '成交总额', and so is gmv"),
        (ask("expr", expression="2 * gmv", label='GMV" #'), "is called 'gmv', and so is gmv"),
        (ask("expr", expression="2 * gmv", name_zh="twice"), "is not Chinese"),
        (ask("expr", expression="2 * gmv", layer="operational"), "uses 'gmv' of the higher layer strategic"),
        (ask("expr", expression="2 * gmv", layer="top"), "--layer 'top' is not known"),
        (ask("expr", expression="2 * gmv", stage="sale"), "stage"),
        (ask("expr", expression="arpu * 2", slices=("all", "payment_method")), "payment_method"),
        (ask("cumulative", inputs=("refund_rate",), days=7), "cannot be summed"),
        (ask("cumulative", inputs=("stock_on_hand",), days=7), "cannot be summed"),
        (ask("average", inputs=("buyers",), days=7), "cannot be summed"),
        (ask("cumulative", inputs=("gmv",), days=0), "between 1 and 366"),
        (ask("cumulative", inputs=("units_sold",), days=28), "units_sold_28d: its formula .* means the same as that of made_up"),
        (ask("growth", inputs=("gmv",), days=7), "means the same as that of gmv_growth_7d"),
        (ask("ratio", inputs=("refunded_orders", "sessions"), grain="hour"), "--grain hour: refunded_orders has no values by hour; .*orders_paid"),
        (ask("cumulative", inputs=("orders_paid",), days=7, grain="hour"), "a moving sum has values by day only"),
        (ask("conversion", inputs=("sessions", "orders_with_payment"), entity="session", days=1), "no entity 'session'"),
        (ask("conversion", inputs=("orders_placed", "orders_with_payment"), entity="order", days=9), "equal to 3"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_a_metric_is_refused(library: Catalogue, request_: Request, message: str) -> None:
    with pytest.raises((ComposeError, DefinitionError), match=message):
        compose(library, request_)


def test_a_ratio_is_shown_as_the_tables_would_have_it(library: Catalogue, published: Published) -> None:
    request = ask("ratio", inputs=("refunded_orders", "orders_placed"))
    assert shown(published, library, request) == {
        FIRST + timedelta(days=day): pytest.approx(2 / PLACED[day]) for day in range(39)
    }


def test_a_slice_without_refunds_had_none_only_where_they_are_known(library: Catalogue, published: Published) -> None:
    request = ask("expr", expression="orders_paid - 3 * refunded_orders")
    south = shown(published, library, request, "华南")
    assert south == {FIRST + timedelta(days=38): 5.0}


def test_a_moving_sum_of_a_composite_sums_its_measures(library: Catalogue, published: Published) -> None:
    made = compose(library, ask("cumulative", inputs=("gmv",), days=7))
    assert made.ids == ("new_buyer_amount_7d", "returning_buyer_amount_7d", "made_up")
    values = shown(published, library, ask("cumulative", inputs=("gmv",), days=7))
    assert min(values) == FIRST + timedelta(days=6)
    assert all(
        values[FIRST + timedelta(days=day)]
        == pytest.approx(sum(NEW[day - 6 : day + 1]) + sum(RETURNING[day - 6 : day + 1]))
        for day in range(6, DAYS)
    )


def test_an_average_and_a_change_are_what_they_say(library: Catalogue, published: Published) -> None:
    average = shown(published, library, ask("average", inputs=("orders_paid",), days=4))
    change = shown(published, library, ask("change", inputs=("orders_paid",), days=10))
    growth = shown(published, library, ask("growth", inputs=("orders_paid",), days=10))
    day = FIRST + timedelta(days=30)
    assert average[day] == pytest.approx(sum(PAID[27:31]) / 4)
    assert change[day] == PAID[30] - PAID[20]
    assert growth[day] == pytest.approx(PAID[30] / PAID[20] - 1)
    assert min(change) == FIRST + timedelta(days=10)
    assert not any(math.isnan(value) for value in growth.values())


def test_a_preview_reaches_no_further_back_than_asked(library: Catalogue, published: Published) -> None:
    made = compose(library, ask("expr", expression="2 * orders_paid"))
    frame = trial(published, made.catalogue, "made_up", days=5)
    assert sorted(set(frame["period_start"].dt.date)) == [FIRST + timedelta(days=day) for day in range(35, 40)]


def test_what_has_no_published_inputs_has_no_preview_and_says_why(library: Catalogue, published: Published) -> None:
    with pytest.raises(PreviewError, match="sessions has no published values"):
        trial(published, compose(library, ask("expr", expression="2 * sessions")).catalogue, "made_up")
    request = ask("conversion", inputs=("orders_placed", "orders_with_payment"), entity="order", days=2)
    with pytest.raises(PreviewError, match="made_up has no published values"):
        trial(published, compose(library, request).catalogue, "made_up")


def test_a_conversion_is_in_the_unit_of_what_it_counts(library: Catalogue) -> None:
    made = compose(library, ask("conversion", inputs=("orders_placed", "orders_with_payment"), entity="order", days=2))
    assert made.metric.unit == library.metrics["orders_placed"].unit == "orders"


def test_saved_definitions_are_part_of_the_library_with_their_models(project: Path) -> None:
    library = Catalogue.read(project)
    made = compose(library, ask("cumulative", inputs=("gmv",), days=7))
    with saved(made) as paths:
        pass
    after = Catalogue.read(project)
    assert after.metrics["made_up"].inputs == ("new_buyer_amount_7d", "returning_buyer_amount_7d")
    assert stale_files(after) == []
    assert "ref('new_buyer_amount_7d')" in (project / "models/strategic/made_up.sql").read_text("utf-8")
    assert paths[-1] == project / "models/strategic/made_up.yml"
    assert [one for one in lint(project) if one.severity == "error"] == []
    assert not list(project.rglob("*.part"))


def test_an_hourly_composite_gets_a_table_by_hour(project: Path) -> None:
    request = ask("expr", expression="orders_placed - 2 * orders_paid", grain="hour")
    with saved(compose(Catalogue.read(project), request)) as paths:
        pass
    assert {path.name for path in paths} >= {"made_up.yml", "made_up.sql", "made_up_hourly.sql"}
    after = Catalogue.read(project)
    assert after.metrics["made_up"].hour_slices == ("all", "region", "channel", "payment_method")
    assert "ref('orders_placed_hourly')" in (project / "models/hourly/made_up_hourly.sql").read_text("utf-8")


def test_a_conversion_gets_a_cube_of_its_own(project: Path) -> None:
    request = ask("conversion", inputs=("orders_placed", "orders_with_payment"), entity="order", days=2)
    with saved(compose(Catalogue.read(project), request)):
        pass
    assert Catalogue.read(project).metrics["made_up"].settle_days == 2
    assert "days=2" in (project / "models/cubes/cube_made_up.sql").read_text("utf-8")


def test_when_saving_fails_nothing_has_changed(project: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}

    before = content()
    made = compose(Catalogue.read(project), ask("cumulative", inputs=("gmv",), days=7))
    with pytest.raises(ZeroDivisionError), saved(made) as paths:
        len(paths) / (content() == before)
    assert content() == before


def test_what_changed_meanwhile_is_not_overwritten(project: Path) -> None:
    made = compose(Catalogue.read(project), ask("expr", expression="2 * orders_paid"))
    path = project / "models/operational/refund_rate.yml"
    path.write_text(path.read_text("utf-8").replace("denominator: orders_paid", "denominator: orders_placed"), "utf-8")
    with pytest.raises(ComposeError, match="refund_rate changed meanwhile"), saved(made):
        pass
    with saved(compose(Catalogue.read(project), ask("expr", expression="2 * orders_paid"))):
        pass
    with pytest.raises(ComposeError, match="was written meanwhile"), saved(made):
        pass


def test_removing_takes_definition_and_models_and_names_what_would_break(project: Path) -> None:
    library = Catalogue.read(project)
    assert dependents(library, "orders_paid_within_day") == ("payment_within_day_rate",)
    assert dependents(library, "payment_within_day_rate") == ()
    with removed(library, "payment_within_day_rate"):
        pass
    with removed(Catalogue.read(project), "orders_paid_within_day"):
        pass
    after = Catalogue.read(project)
    assert not {"payment_within_day_rate", "orders_paid_within_day"} & after.metrics.keys()
    assert stale_files(after) == []
    assert not (project / "models/cubes/cube_orders_paid_within_day.sql").exists()
