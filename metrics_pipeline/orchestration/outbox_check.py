"""What the page of `alerts/outbox` says of deliveries: counts, the last errors, and a check that fails when messages do not arrive.

Said by whoever wrote messages (the asset) and by whoever sent them (the delivery job), so that the page is never older than the
last run of either. Light: no dbt, no DuckDB.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg

from metrics_pipeline.delivery.standing import Standing, standing
from metrics_pipeline.orchestration.keys import DELIVERIES_CHECK, OUTBOX_KEY
from metrics_pipeline.store import Store

DELIVERIES = dg.AssetCheckSpec(
    DELIVERIES_CHECK,
    asset=OUTBOX_KEY,
    description="消息是否送达：有消息被放弃为错误，正在重试为警告。"
    "Whether messages arrive: an error when some were given up, a warning while some are tried again.",
)


def look(store: Store, *, now: datetime) -> Standing:
    """How deliveries stand now (`now`: aware)."""
    with store.reading() as connection:
        return standing(connection, now=now)


def standing_metadata(found: Standing) -> dict[str, Any]:
    """The standing as metadata of the asset and of the check."""
    return {
        "deliveries_by_channel": dg.MetadataValue.json(found.by_channel()),
        "delivered": sum(one.sent for one in found.receivers),
        "waiting": sum(one.waiting for one in found.receivers),
        "retrying": sum(one.retrying for one in found.receivers),
        "dead_letters": sum(one.dead for one in found.receivers),
        "deliveries_by_receiver": dg.MetadataValue.md(found.markdown()),
    }


def check_result(found: Standing) -> dg.AssetCheckResult:
    """The check, for a step that makes the asset."""
    return dg.AssetCheckResult(check_name=DELIVERIES_CHECK, asset_key=OUTBOX_KEY, **_outcome(found))


def check_evaluation(found: Standing) -> dg.AssetCheckEvaluation:
    """The check, for a step that makes no asset."""
    outcome = _outcome(found)
    metadata = {
        name: dg.MetadataValue.int(value) if isinstance(value, int) else value
        for name, value in outcome.pop("metadata").items()
    }
    return dg.AssetCheckEvaluation(asset_key=OUTBOX_KEY, check_name=DELIVERIES_CHECK, metadata=metadata, **outcome)


def _outcome(found: Standing) -> dict[str, Any]:
    zh, en = found.summary
    return {
        "passed": found.severity == "ok",
        "severity": dg.AssetCheckSeverity.ERROR if found.severity == "error" else dg.AssetCheckSeverity.WARN,
        "description": f"{zh} {en}",
        "metadata": standing_metadata(found),
    }
