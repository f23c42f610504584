"""Which columns of the sources a column of a fact comes from, through staging, read from the models' SQL itself.

dbt's manifest knows models, not columns. The models of `staging/` and `facts/` are rendered with the project's own
macros, `ref()` and `source()` as plain names, and followed column by column by sqlglot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from jinja2 import Environment, UndefinedError
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import lineage

from metrics_pipeline.library.rendering import DuckDBMacros, default_of

_RAW = "raw__"
_FOLDERS = ("models/staging", "models/facts")


class Origin(NamedTuple):
    """A column of a source, and the models it comes through, nearest to the source first."""

    table: str
    column: str
    through: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """The columns behind the facts of a dbt project."""

    project_dir: Path

    @cached_property
    def models(self) -> Mapping[str, str]:
        """Model → its SQL, of staging and facts."""
        environment = Environment(extensions=["jinja2.ext.do"], autoescape=False)  # noqa: S701 - SQL, not HTML
        macros = (self.project_dir / "macros/time/window.sql").read_text("utf-8")
        found = {}
        for folder in _FOLDERS:
            for path in sorted((self.project_dir / folder).rglob("*.sql")):
                template = environment.from_string(f"{macros}\n{path.read_text('utf-8')}")
                try:
                    found[path.stem] = template.render(**_CONTEXT).strip()
                except UndefinedError:  # a calendar made of nothing but dates
                    continue
        return found

    def origins(self, fact: str, expression: str) -> tuple[Origin, ...]:
        """The source columns of an expression over the columns of a fact; () when its SQL cannot be followed."""
        try:
            names = [one.name for one in sqlglot.parse_one(expression, read="duckdb").find_all(exp.Column)]
        except SqlglotError:
            return ()
        return tuple(sorted({origin for name in dict.fromkeys(names) for origin in self._of_column(fact, name)}))

    def _of_column(self, fact: str, column: str) -> Iterable[Origin]:
        key = (fact, column)
        if key not in self._known:
            try:
                root = lineage(column, self.models[fact], {}, sources=self._sources(fact), dialect="duckdb")
            except (SqlglotError, KeyError, ValueError):
                self._known[key] = ()
            else:
                self._known[key] = tuple(dict.fromkeys(_leaves(root, (), frozenset(self.models))))
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, str], tuple[Origin, ...]]:
        return {}

    def _sources(self, fact: str) -> dict[str, Any]:
        return {name: query for name, query in self._queries.items() if name != fact}

    @cached_property
    def _queries(self) -> dict[str, str]:
        """Model → its SQL; what reads one relation says of each column that it is of this one."""
        return {name: _qualified(sql) for name, sql in self.models.items()}


def _qualified(sql: str) -> str:
    tree = sqlglot.parse_one(sql, read="duckdb")
    tables = list(tree.find_all(exp.Table))
    if len(tables) != 1:
        return sql
    for column in tree.find_all(exp.Column):
        if not column.table:
            column.set("table", exp.to_identifier(tables[0].alias_or_name))
    return str(tree.sql(dialect="duckdb"))


def _leaves(node: Any, through: tuple[str, ...], models: frozenset[str]) -> Iterable[Origin]:
    source = node.source_name
    if source in models and source not in through:
        through = (source, *through)
    if not node.downstream:
        table = node.expression
        if isinstance(table, exp.Table) and table.name.startswith(_RAW):
            yield Origin(table.name.removeprefix(_RAW), node.name.rsplit(".", 1)[-1].strip('"'), through)
        return
    for one in node.downstream:
        yield from _leaves(one, through, models)


class _Relation(str):
    """A relation by its name; `render()` names it, too."""

    __slots__ = ()

    def render(self) -> str:
        return str(self)


class _Target:
    schema = "main"
    name = "dev"
    type = "duckdb"


def _source(_schema: str, table: str) -> _Relation:
    return _Relation(f"{_RAW}{table}")


def _nothing(*_arguments: Any, **_named: Any) -> str:
    return ""


def _same(column: str) -> str:
    """A clock on the shop's wall is still the same column."""
    return f"({column})"


def _no() -> bool:
    return False


_CONTEXT: Mapping[str, Any] = {
    "ref": _Relation,
    "source": _source,
    "config": _nothing,
    "return": _nothing,
    "env_var": default_of,
    "var": default_of,
    "is_incremental": _no,
    "dbt": DuckDBMacros,
    "model": {},
    "shop_time": _same,
    "utc_time": _same,
    "invocation_args_dict": {},
    "target": _Target,
}
