from __future__ import annotations

from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.rules.expression import (
    Expression,
    ExpressionError,
    Family,
    Threshold,
    parse_expression,
    parse_threshold,
)

NUMBERS = st.floats(-1e300, 1e300)


@st.composite
def expressions(draw):
    family = draw(st.sampled_from(get_args(Family)))
    match family:
        case "value" | "event" | "target" | "benchmark" | "freshness":
            return Expression(family)
        case "share":
            lag = draw(st.just(0) | st.integers(1, 9999))
            return Expression("share", lag_hours=lag, parent=draw(st.sampled_from(["", "region", "ad_channel"])))
        case "change":
            hours = draw(st.one_of(st.integers(1, 999), st.integers(1, 999).map(lambda days: days * 24)))
            return Expression("change", lag_hours=hours, over=draw(st.integers(1, 26)))
        case "quantile":
            probability = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
            return Expression("quantile", window_days=draw(st.integers(1, 9999)), probability=probability)
        case "anomaly":
            pattern = draw(st.sampled_from(["point", "drift", "together", "completeness"]))
            if pattern == "completeness":
                return parse_expression("completeness()")
            number, unit = draw(st.integers(1, 3)), draw(st.sampled_from(["week", "month", "quarter"]))
            return Expression("anomaly", pattern=pattern, budget=f"{number}/{unit}", red_budget="1/year")
        case "forecast":
            side = draw(st.sampled_from(["", "below", "above"]))
            bound = draw(st.none() | NUMBERS) if side else None
            return Expression("forecast", window_days=draw(st.integers(1, 28)), side=side, bound=bound)
        case "stockout":
            return Expression("stockout", window_days=draw(st.integers(0, 28)))
        case _:
            width = draw(st.none() | st.floats(0, 1e9, exclude_min=True))
            promotions = draw(st.sampled_from(["widen", "last_event", "ordinary"]))
            return Expression("band", weeks=draw(st.integers(1, 52)), width=width, promotions=promotions)


@st.composite
def thresholds(draw):
    operator = draw(st.sampled_from([">", ">=", "<", "<=", "outside", "inside"]))
    low = draw(NUMBERS)
    if operator in ("outside", "inside"):
        return Threshold(operator, low, draw(st.floats(low, 1e301, exclude_min=True)))
    return Threshold(operator, low, low)


@given(expressions())
def test_an_expression_reads_back_as_it_prints(expression):
    assert parse_expression(str(expression)) == expression


@given(thresholds())
def test_a_threshold_reads_back_as_it_prints(threshold):
    try:
        assert parse_threshold(str(threshold)) == threshold
    except ExpressionError:
        assert threshold.high == threshold.low  # an empty range does not print as one


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_with_a_reason(text):
    for parse in (parse_expression, parse_threshold):
        with suppress(ExpressionError):
            assert str(parse(text))


@given(thresholds(), thresholds(), NUMBERS)
def test_beyond_means_that_one_region_holds_the_other(inner, outer, observed):
    if inner.beyond(outer) and inner.holds(observed):
        assert outer.holds(observed)


@given(thresholds(), thresholds(), NUMBERS)
def test_recovery_and_trigger_never_hold_together(recovery, trigger, observed):
    if recovery.recovers(trigger):
        assert not (recovery.holds(observed) and trigger.holds(observed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("value", Expression("value")),
        ("pct_change(1w)", Expression("change", lag_hours=168)),
        ("pct_change(7d, over=4)", Expression("change", lag_hours=168, over=4)),
        ("quantile(90d,0.99)", Expression("quantile", window_days=90, probability=0.99)),
        ("band(seasonal)", Expression("band", weeks=8)),
        ("band(seasonal, weeks=6, k=5)", Expression("band", weeks=6, width=5.0)),
        ("band(seasonal, promotions=last_event)", Expression("band", weeks=8, promotions="last_event")),
    ],
)
def test_expressions(text, expected):
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("median(3d)", "'median' is not known"),
        ("pct_change()", "give one distance"),
        ("pct_change(7)", "'7' is not a duration"),
        ("pct_change(7d, weeks=2)", "'weeks' is not a parameter"),
        ("quantile(90d, 99)", "between 0 and 1"),
        ("quantile(90h, 0.9)", "in days"),
        ("band(weekly)", "band(seasonal)"),
        ("band(seasonal, weeks=0)", "weeks is a whole number"),
        ("band(seasonal, weeks=8, weeks=9)", "given twice"),
        ("band(seasonal, promotions=never)", "widen, last_event or ordinary"),
        ("forecast()", "how far ahead"),
        ("forecast(60d)", "1d to 28d"),
        ("forecast(7d, below=1, above=2)", "not both"),
        ("forecast(7d, below=many)", "not a number"),
        ("stockout(12h)", "1d to 28d"),
        ("value(3)", "'3' is not a parameter"),
        ("", "not an expression"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said(text, part):
    with pytest.raises(ExpressionError, match=part.replace("(", r"\(").replace(")", r"\)")):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("> 8%", "never percent"),
        ("8", "not a threshold"),
        ("outside 0", "above 0"),
        ("outside 5..3", "below the second"),
        ("> 3..4", "outside"),
        ("> 1e999", "too large"),
    ],
)
def test_what_is_wrong_with_a_threshold_is_said(text, part):
    with pytest.raises(ExpressionError, match=part):
        parse_threshold(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("anomaly(level)", "point or drift"),
        ("anomaly(budget=1)", "false alarms per"),
        ("anomaly(budget=1/fortnight)", "false alarms per"),
        ("anomaly(budget=1/year, red=1/month)", "no rarer than budget"),
        ("anomaly(budget=9/week)", "more than one false alarm in two days"),
        ("anomaly(weeks=8)", "it takes budget, red"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_with_the_mend(text, told):
    with pytest.raises(ExpressionError, match=told):
        parse_expression(text)


def test_an_anomaly_has_budgets_of_its_own_accord():
    assert str(parse_expression("anomaly()")) == "anomaly(budget=1/month, red=1/year)"
    assert parse_expression("anomaly(drift, budget=1 / quarter)").pattern == "drift"
