"""Rule files → rules → verdicts on every slice; and what rules would have done over history.

`load_rules` reads and lints `alert_rules/*.yml`; `evaluate` judges published values in one SQL statement; `replay`
says when each rule would have fired and, against labelled incidents, how well.
"""

from metrics_pipeline.rules.catalogue import Catalogue, MetricInfo
from metrics_pipeline.rules.evaluate import Evaluations, RuleSummary, evaluate, read_evaluations
from metrics_pipeline.rules.expression import Expression, ExpressionError, Threshold, parse_expression, parse_threshold
from metrics_pipeline.rules.load import Problem, RuleSet, load_rules
from metrics_pipeline.rules.model import Rule, rule_schema
from metrics_pipeline.rules.replay import Episode, Label, Replay, Score, read_labels, replay

__all__ = [
    "Catalogue",
    "Episode",
    "Evaluations",
    "Expression",
    "ExpressionError",
    "Label",
    "MetricInfo",
    "Problem",
    "Replay",
    "Rule",
    "RuleSet",
    "RuleSummary",
    "Score",
    "Threshold",
    "evaluate",
    "load_rules",
    "parse_expression",
    "parse_threshold",
    "read_evaluations",
    "read_labels",
    "replay",
    "rule_schema",
]
