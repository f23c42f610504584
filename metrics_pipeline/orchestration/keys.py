"""Names that both code locations share: asset keys, job names, tags. Imports nothing heavy."""

from __future__ import annotations

import dagster as dg

PUBLISHED_KEY = dg.AssetKey(["published", "metric_values"])
PUBLISHED_HOURLY_KEY = dg.AssetKey(["published", "hourly_values"])
FORECASTS_KEY = dg.AssetKey(["forecasts", "values"])
STOCKOUT_KEY = dg.AssetKey(["forecasts", "stockout_risk"])
EVALUATIONS_KEY = dg.AssetKey(["rules", "evaluations"])
OUTBOX_KEY = dg.AssetKey(["alerts", "outbox"])
ARRIVALS_KEY = dg.AssetKey(["raw", "hourly_arrivals"])
COVERAGE_KEY = dg.AssetKey(["raw", "_coverage"])

PROPOSALS_KEY = dg.AssetKey(["followup", "proposals"])
RETROSPECTIVE_KEY = dg.AssetKey(["followup", "retrospective"])

NIGHTLY = "nightly"
HOURLY = "hourly"
BACKFILL = "backfill"
DELIVER = "deliver_messages"
PROPOSALS = "rule_proposals"
RETROSPECTIVE = "weekly_retrospective"
WEEK_TAG = "metrics/week"
"""On a run of the retrospective: the ISO week it is about."""
DELIVERIES_CHECK = "deliveries"
"""The check of the outbox: whether its messages arrive."""

SILENT_TAG = "metrics/silent"
"""On a run whose alerts are told to nobody: a backfill."""
FROM_TAG = "metrics/from"
"""First day of a run that rebuilds more than its partition: a backfill is one run on its last day."""
ALERTS_SENSOR = "alerts_written"


def delivery_run_key(run_id: str) -> str:
    """The run key of the delivery after a run: whoever asks first starts it, nobody starts it twice."""
    return f"alerts:{run_id}"
