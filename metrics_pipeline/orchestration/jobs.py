"""Jobs: named selections of the assets. `nightly` and `backfill` are the days, `hourly` the hours.

Here: what is selected and how it is executed. Not here: when (`schedules`), or delivery (`notify`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from metrics_pipeline.orchestration.keys import (
    BACKFILL,
    EVALUATIONS_KEY,
    HOURLY,
    NIGHTLY,
    OUTBOX_KEY,
    PROPOSALS_KEY,
    SILENT_TAG,
)


def build_jobs(hourly_keys: Sequence[dg.AssetKey]) -> list[Any]:
    """The jobs of the pipeline; `hourly_keys` are the assets with hourly partitions.

    In one process: each further process costs about 6 s, and there is one writer anyway.
    """
    hourly = dg.AssetSelection.assets(*hourly_keys)
    daily = dg.AssetSelection.all() - hourly - dg.AssetSelection.assets(PROPOSALS_KEY)
    return [
        dg.define_asset_job(
            NIGHTLY,
            selection=daily,
            executor_def=dg.in_process_executor,
            description="A night: load, rebuild the window, publish, judge every rule, write the alerts.",
            tags={"metrics/kind": NIGHTLY},
        ),
        dg.define_asset_job(
            HOURLY,
            selection=hourly | dg.AssetSelection.assets(EVALUATIONS_KEY, OUTBOX_KEY),
            executor_def=dg.in_process_executor,
            description="An hour: load what arrived, rebuild the day's hours, publish, judge, write the alerts.",
            tags={"metrics/kind": HOURLY},
        ),
        dg.define_asset_job(
            BACKFILL,
            selection=daily,
            executor_def=dg.in_process_executor,
            description="Any stretch of days in one run, told to nobody.",
            tags={"metrics/kind": BACKFILL, SILENT_TAG: "true"},
        ),
    ]
