"""A generated model's SQL without dbt: its macro call rendered with the project's own macros, on whatever tables the caller has.

What is tried before it is built (previews) is therefore computed by the SQL that dbt would run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment
from jinja2.runtime import Context, Macro

_MACROS = ("macros/metrics/metric.sql", "macros/metrics/cube.sql", "macros/time/window.sql")


class DuckDBMacros:
    """The part of dbt's portable functions that metric macros use, as DuckDB has it."""

    @staticmethod
    def dateadd(part: str, amount: Any, column: str) -> str:
        return f"({column} + ({amount}) * interval '1' {part})"


class Relation(str):
    """A table as macros take it: text that can be asked for without the filter of a batch, of which there is none here."""

    __slots__ = ()

    def render(self) -> str:
        return str(self)


def default_of(_name: str, default: str = "") -> str:
    """An environment without variables."""
    return default


def render(
    project_dir: Path, call: str, *, ref: Callable[[str], str], start: date, until: date, distinct: str = "exact"
) -> str:
    """The SQL of a macro call for the days [start, until), `ref` giving the table in the place of each model.

    `distinct`: how distinct things are counted, exact or approximate. Slices by SKU the caller leaves out of the call.
    """
    return render_model(project_dir, f"{{{{ {call} }}}}", ref=ref, start=start, until=until, distinct=distinct)


def render_model(
    project_dir: Path, text: str, *, ref: Callable[[str], str], start: date, until: date, distinct: str = "exact"
) -> str:
    """The same of the whole text of a model, as a build of all its days."""
    macros = "\n".join((project_dir / name).read_text("utf-8") for name in _MACROS)
    template = _environment().from_string(f"{macros}\n{text}")
    return template.render(
        {"return": _return},
        ref=lambda name: Relation(ref(name)),
        dbt=DuckDBMacros,
        env_var=lambda name, default="": {"METRICS_DISTINCT": distinct}.get(name, default),
        first_sku_period=_no_sku,
        invocation_args_dict={"event_time_start": f"{start}", "event_time_end": f"{until}"},
        model={},
        config=lambda **_: "",
        is_incremental=lambda: False,
    )


class _Returned(Exception):
    def __init__(self, value: object) -> None:
        self.value = value


def _return(value: object) -> None:
    raise _Returned(value)


class _DbtContext(Context):
    """Macros that `return()` give that value instead of their text, as they do in dbt."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().call(*args, **kwargs)
        except _Returned as returned:
            if args and isinstance(args[0], Macro):
                return returned.value
            raise


def _environment() -> Environment:
    environment = Environment(extensions=["jinja2.ext.do"], autoescape=False)  # noqa: S701 - SQL, not HTML
    environment.context_class = _DbtContext
    return environment


def _no_sku(days_before: int = 0) -> str:
    """The first period with slices by SKU, of which there are none here."""
    return f"timestamp '1970-01-01' - interval '{days_before}' day"
