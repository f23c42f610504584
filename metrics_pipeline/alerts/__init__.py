"""Verdict → state → episode → notice.

`state` is the machine, pure and readable as a table, `ladder` the kinds of missing data; `verdict` is its input. `arrays`
is the same machine over columns (`batch`). `apply` carries it over the store: read, advance, write, open `work_orders`, and
hand the `tick` to `dispatch`, which queues what people are told as `notice`s, all in one transaction. `listing` and `story`
answer questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metrics_pipeline.alerts.notice import Notice, RuleCard, Series, SeriesKey
from metrics_pipeline.alerts.verdict import Verdict

if TYPE_CHECKING:
    from metrics_pipeline.alerts.apply import AppliedReport, apply_verdicts, retire_rules

__all__ = [
    "AppliedReport",
    "Notice",
    "RuleCard",
    "Series",
    "SeriesKey",
    "Verdict",
    "apply_verdicts",
    "retire_rules",
]


def __getattr__(name: str) -> Any:
    """Applying needs numpy and Arrow; whoever only sends or lists does not wait for them."""
    if name in ("AppliedReport", "apply_verdicts", "retire_rules"):
        from metrics_pipeline.alerts import apply

        return getattr(apply, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
