"""Verdict → state → episode → notice.

`state` is the machine, pure and readable as a table. `verdict` is its input, `notice` its output for people, `apply`
carries both over the store: read, advance, write, with the notices, in one transaction. `listing` answers questions.
"""

from metrics_pipeline.alerts.apply import AppliedReport, apply_verdicts, retire_rules
from metrics_pipeline.alerts.notice import Notice, RuleCard, Series, SeriesKey
from metrics_pipeline.alerts.verdict import Verdict

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
