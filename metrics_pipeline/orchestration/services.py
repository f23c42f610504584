"""Whether a run may do its work: every step that changes something asks, so that a revoked grant counts at once."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from metrics_pipeline.access.services import NIGHTLY, require_work
from metrics_pipeline.access.viewer import Denied
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import open_store


def require_nightly(settings: Settings) -> None:
    """Fail the step, and do not try it again, when the grant of `service.nightly` was revoked."""
    store = open_store(settings)
    try:
        with store.reading() as connection:
            require_work(connection, NIGHTLY, now=datetime.now(UTC))
    except Denied as denied:
        raise dg.Failure(str(denied), allow_retries=False) from None
    finally:
        store.close()
