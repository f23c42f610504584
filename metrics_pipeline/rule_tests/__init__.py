"""Tests beside rules: from metric values to sent messages, on a virtual clock.

A file `alert_rules/<scenario>.test.yml` tells little stories in promtool's notation: what the values are night after
night, and what must follow, where any other message fails. Every night takes the real path — a published version, the
evaluation, the alert states, the outbox — of which only the number of publishes is kept small (`world`).
"""

from metrics_pipeline.rule_tests.load import find_test_files, load_tests
from metrics_pipeline.rule_tests.run import Outcome, run_file

__all__ = ["Outcome", "find_test_files", "load_tests", "run_file"]
