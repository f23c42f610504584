from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.rule_tests.notation import (
    NotationError,
    Sample,
    parse_series,
    parse_words,
    series_text,
)


def numbers(text: str) -> list[float | str | None]:
    return [sample.absence or sample.value for sample in parse_series(text)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("100x6", [100] * 7),
        ("1+2x5", [1, 3, 5, 7, 9, 11]),
        ("1-2x4", [1, -1, -3, -5, -7]),
        ("-2+4x3", [-2, 2, 6, 10]),
        ("1x4", [1] * 5),
        ("1 _x3 2", [1, "missing", "missing", "missing", 2]),
        ("1 _x3 stale", [1, "missing", "missing", "missing", "stale"]),
        ("1+0x3 0+0x1", [1, 1, 1, 1, 0, 0]),
        ("_ null stale", ["missing", "null", "stale"]),
        ("nullx2 stalex0", ["null", "null"]),
        ("100x0 88 86 _ 101", [100, 88, 86, "missing", 101]),
        (".5 1e3 -1.5e-1", [0.5, 1000, -0.15]),
        ("5/100 0/0 1/4x1", [0.05, None, 0.25, 0.25]),
        ("", []),
    ],
)
def test_the_notation_is_promtools(text, values):
    assert (
        numbers(text) == pytest.approx(values) if all(isinstance(v, float) for v in values) else numbers(text) == values
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("12o", "'12o' is no value"),
        ("1+2", "needs a number of repeats"),
        ("1/2+1x3", "a ratio has no step"),
        ("1e999", "too large"),
        ("1x1000000", "more than 100,000"),
        ("1x99999 1x99999", "more than 100,000"),
        ("a+bxn", "is no value"),
        ("x3", "is no value"),
        ("NaN", "is no value"),
        ("{{schema:1}}", "is no value"),
    ],
)
def test_what_is_no_series_is_told(text, part):
    with pytest.raises(NotationError, match=r"^'") as caught:
        parse_series(text)
    assert part in str(caught.value)


def test_words_are_repeated_like_gaps():
    assert parse_words("ok redx2 _ okx1", ("ok", "red", "_")) == ["ok", "red", "red", "_", "ok"]
    with pytest.raises(NotationError, match="'orange' is not known; write ok, red"):
        parse_words("ok orange", ("ok", "red"))


VALUES = st.floats(-1e12, 1e12, allow_nan=False)
SAMPLES = st.one_of(
    VALUES.map(lambda value: Sample(value, value)),
    st.tuples(VALUES, st.floats(0.001, 1e9)).map(lambda pair: Sample(pair[0] / pair[1], *pair)),
    st.sampled_from([Sample(absence="missing"), Sample(absence="null"), Sample(absence="stale")]),
)


@given(st.lists(SAMPLES, max_size=20))
def test_a_series_reads_back_as_it_prints(samples):
    assert parse_series(series_text(samples)) == samples


@given(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.integers(0, 50))
def test_a_step_is_added_as_often_as_it_says(start, step, times):
    sign = "-" if step < 0 else "+"
    found = numbers(f"{start!r}{sign}{abs(step)}x{times}")
    assert found == pytest.approx([start + n * step for n in range(times + 1)])


@given(st.text(alphabet="0123456789.+-x/_ enulstaok", max_size=30))
def test_any_text_is_read_or_refused_with_a_reason(text):
    try:
        found = parse_series(text)
    except NotationError as error:
        reason = str(error)
    else:
        assert all(isinstance(sample, Sample) for sample in found)
        return
    assert reason.startswith("'")
