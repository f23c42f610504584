"""Units: what may be added, and which declared unit fits a formula."""

from __future__ import annotations

import pytest

from metrics_pipeline.library.formula import parse_formula
from metrics_pipeline.library.units import Unit, UnitClash, mixed_nouns, unit_of

UNITS = {
    "gmv": Unit.declared("currency"),
    "orders": Unit.declared("orders"),
    "people": Unit.declared("people"),
    "visits": Unit.declared("visits"),
    "stock": Unit.declared("pieces"),
    "sold": Unit.declared("pieces"),
    "rate": Unit.declared("ratio"),
}


@pytest.mark.parametrize(
    ("formula", "fits", "not_"),
    [
        ("gmv / orders", {"currency"}, {"ratio", "orders", "days"}),
        ("orders / visits", {"ratio", "score"}, {"currency", "visits"}),
        ("stock / (sold / 28)", {"days", "ratio"}, {"pieces"}),
        ("0.6 * rate + 0.4 * (1 - orders / people)", {"score", "ratio"}, {"currency"}),
        ("gmv * rate", {"currency"}, {"ratio"}),
        ("gmv - 0.5 * gmv", {"currency"}, {"orders"}),
        ("gmv * gmv", set(), {"currency", "ratio", "score"}),
        ("1 / orders", set(), {"orders", "ratio"}),
        ("orders * 2", {"orders"}, {"people", "visits"}),
        ("orders / people", {"orders", "ratio"}, {"people"}),
    ],
)
def test_a_declared_unit_must_fit_the_computed_one(formula: str, fits: set[str], not_: set[str]) -> None:
    unit = unit_of(parse_formula(formula), UNITS)
    assert {name for name in fits | not_ if unit.fits(name)} == fits


@pytest.mark.parametrize(
    ("formula", "named"),
    [
        ("rate + gmv", r"adds rate \(a pure number\) and gmv \(currency\)"),
        ("gmv - orders", r"subtracts gmv \(currency\) and orders \(orders\)"),
        ("gmv / orders + gmv", r"\(currency per orders\)"),
        ("1 + gmv", r"adds 1 \(a pure number\)"),
    ],
)
def test_different_kinds_are_not_added(formula: str, named: str) -> None:
    with pytest.raises(UnitClash, match=named):
        unit_of(parse_formula(formula), UNITS)


def test_different_things_counted_are_noticed_where_they_are_added() -> None:
    assert mixed_nouns(parse_formula("(orders + people) / visits"), UNITS) == ("orders", "people")
    assert mixed_nouns(parse_formula("orders / visits + people / visits"), UNITS) is None
