"""Another measure beside the one there is: what a metric counts from a day on, while earlier days keep the former one.

What is written is an expression over the columns of one fact; anything that could read something else is refused.
"""

from __future__ import annotations

import io
import re
from copy import deepcopy

import sqlglot
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from sqlglot import exp
from sqlglot.errors import SqlglotError

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.columns import Columns
from metrics_pipeline.library.definitions import SEMANTIC_FILE

_ALLOWED = (
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.Case, exp.If, exp.And, exp.Or, exp.Not,
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In, exp.Is, exp.Like, exp.Coalesce, exp.Nullif,
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Neg, exp.Abs, exp.Greatest, exp.Least, exp.Interval, exp.Var,
)  # fmt: skip


class ChangeError(ValueError):
    """A change that cannot be made; the message says what is expected."""


def with_measure(catalogue: Catalogue, measure: str, expression: str) -> tuple[str, str]:
    """The text of the file of measures with `expression` beside `measure`, aggregated and sliced as it is, and its name.

    Raises `ChangeError` when it is no expression over the columns of the fact.
    """
    models = catalogue.definitions.semantic_models
    model = next(one for one in models if any(found.name == measure for found in one.measures))
    text = expression.strip()
    _check(catalogue, model.fact, text)
    taken = {found.name for one in models for found in one.measures} | set(catalogue.metrics)
    stem = re.sub(r"_[0-9]+$", "", measure)
    name = next(one for one in (f"{stem}_{number}" for number in range(2, 10_000)) if one not in taken)
    path = catalogue.definitions.project_dir / SEMANTIC_FILE
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(path.read_text("utf-8"))
    entry = next(one for one in document["semantic_models"] if one["name"] == model.name)
    place = next(at for at, one in enumerate(entry["measures"]) if one["name"] == measure)
    former = entry["measures"][place]
    if former["expr"] == text:
        raise ChangeError(f"expr: that is what {measure} is already; nothing would change")
    fresh = deepcopy(former)
    fresh["name"], fresh["expr"] = name, DoubleQuotedScalarString(text)
    entry["measures"].insert(place + 1, fresh)
    for part in ("requires", "disjoint"):
        if measure in (known := entry["config"]["meta"]["cube"].get(part) or {}):
            known[name] = deepcopy(known[measure])
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue(), name


def _check(catalogue: Catalogue, fact: str, expression: str) -> None:
    try:
        parsed = sqlglot.parse_one(expression, read="duckdb")
    except SqlglotError as error:
        raise ChangeError(f"expr {expression!r} cannot be read: {str(error).splitlines()[0]}") from None
    for node in parsed.walk():
        if not isinstance(node, _ALLOWED):
            raise ChangeError(
                f"expr: {node.sql(dialect='duckdb')!r} is not allowed; write columns of {fact}, numbers, texts, "
                "comparisons, and/or/not, case, coalesce, nullif, + - * /"
            )
    sql = Columns(catalogue.definitions.project_dir).models.get(fact)
    query = sqlglot.parse_one(sql, read="duckdb") if sql else None
    have = query.named_selects if isinstance(query, exp.Query) else []
    for column in parsed.find_all(exp.Column):
        if column.table or (have and column.name not in have):
            raise ChangeError(f"expr: {fact} has no column {column.sql()!r}; it has {', '.join(have)}")
