"""The formula language of derived metrics: what passes, what it means, and when two formulas are the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.library.formula import (
    FormulaError,
    Input,
    Negative,
    Node,
    Number,
    Operation,
    atom,
    divisors,
    formula_text,
    input_names,
    linear_parts,
    normal_text,
    parse_formula,
    polynomial,
    readable_text,
)

NAMES = ("a", "b", "c")
NODES: st.SearchStrategy[Node] = st.recursive(
    st.one_of(st.sampled_from(NAMES).map(Input), st.sampled_from(["1", "2.5", "0.125", "3"]).map(Number)),
    lambda inner: st.one_of(
        inner.map(Negative),
        st.builds(Operation, st.sampled_from(["+", "-", "*"]), inner, inner),
        st.builds(Operation, st.just("/"), inner, st.sampled_from(NAMES).map(Input)),
    ),
    max_leaves=6,
)


def normal(text: str) -> str:
    return normal_text(polynomial(parse_formula(text), {name: atom(name) for name in NAMES}))


def value(node: Node, at: dict[str, float]) -> float:
    """What a formula is worth, computed from the tree alone."""
    match node:
        case Number():
            return float(node.value)
        case Input(name):
            return at[name]
        case Negative(of):
            return -value(of, at)
        case Operation("+", left, right):
            return value(left, at) + value(right, at)
        case Operation("-", left, right):
            return value(left, at) - value(right, at)
        case Operation("*", left, right):
            return value(left, at) * value(right, at)
        case Operation(_, left, right):
            return value(left, at) / value(right, at)


@settings(max_examples=60, deadline=None)
@given(NODES)
def test_what_is_written_is_read_back_as_the_same(node: Node) -> None:
    assert parse_formula(formula_text(node)) == node


@settings(max_examples=60, deadline=None)
@given(NODES)
def test_the_written_formula_has_the_value_of_its_tree(node: Node) -> None:
    import duckdb

    at = {"a": 3.0, "b": 7.0, "c": -2.0}
    columns = ", ".join(f"{number}::double as {name}" for name, number in at.items())
    row = duckdb.sql(f"select ({formula_text(node)})::double from (select {columns})").fetchall()[0]
    assert row[0] == pytest.approx(value(node, at), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "a; drop table gmv",
        "a -- b",
        "a /* b */",
        "(select 1)",
        "a || b",
        "a = b",
        "'a'",
        '"a"',
        "a b",
        "A + b",
        "1e9",
        "0x1",
        "a.b",
        "sum(a)",
        "nullif(a, 0) + b",
        "a / nullif(b, 1)",
        "a / nullif(b)",
        "a / 0.0",
        "a +",
        "(a",
        "",
        "a ** b",
        "a::int",
        "a, b",
        "{{ a }}",
        "a\x00",
        "１",
        "(" * 200 + "a" + ")" * 200,
        "-" * 200 + "a",
        "a+" * 1500 + "a",
    ],
)
def test_nothing_but_arithmetic_passes(text: str) -> None:
    with pytest.raises(FormulaError):
        parse_formula(text)


def test_an_error_names_the_column() -> None:
    with pytest.raises(FormulaError, match=r"';.*' at column 9 is not allowed"):
        parse_formula("0.6 * a ; b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.6*a + 0.4*(1-b)", " .40 * (1 - b) + a*0.60"),
        ("a / b", "a * 1 / b"),
        ("(a - b) / c", "a / c - b / c"),
        ("a / nullif(b, 0)", "a / b"),
        ("a / (b / 28)", "28.0 * a / b"),
        ("a / (b + c)", "2 * a / (c * 2 + 2 * b)"),
        ("-(a - b)", "b - a"),
    ],
)
def test_the_same_formula_is_the_same_in_any_writing(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(("one", "other"), [("a - b", "b - a"), ("a / b", "b / a"), ("0.6*a", "0.61*a"), ("a", "a*a")])
def test_different_formulas_stay_different(one: str, other: str) -> None:
    assert normal(one) != normal(other)


def test_a_divisor_is_guarded_in_sql_and_not_for_people() -> None:
    node = parse_formula("a / (b / 28.0)")
    assert formula_text(node) == "a / nullif(b / 28.0, 0)"
    assert readable_text(node, {"a": "库存量", "b": "近28日销量"}.__getitem__) == "库存量 ÷ (近28日销量 ÷ 28.0)"
    assert [formula_text(one) for one in divisors(node)] == ["b / 28.0"]
    assert input_names(node) == ("a", "b")


def test_a_weighted_sum_is_known_as_one() -> None:
    inputs = {name: atom(name) for name in NAMES}
    parts = linear_parts(polynomial(parse_formula("2 * (a - b) + b / 4"), inputs))
    assert parts is not None
    assert {name: float(weight) for name, weight in parts.items()} == {"a": 2.0, "b": -1.75}
    for text in ("a + 1", "a * b", "a / b"):
        assert linear_parts(polynomial(parse_formula(text), inputs)) is None


def test_products_of_many_sums_are_refused_instead_of_filling_memory() -> None:
    text = " * ".join(["(a + b + c + 1)"] * 40)
    with pytest.raises(FormulaError, match="split it"):
        normal(text)
