"""A console-like reader: the current version, a query over it and the firing alerts, four times a second until terminated.

`reader.py HOME REPORT`; what it saw goes to REPORT as JSON. Run by `test_kill.py`.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from metrics_pipeline.alerts.listing import current_alerts
from metrics_pipeline.settings import load_settings
from metrics_pipeline.store import open_store
from metrics_pipeline.warehouse.read import Published

PAUSE = 0.25
WHOLE_EVERY = 20
"""Polls after which all values of the version are read, not only one series."""


def read(home: Path, report: Path) -> None:
    settings = load_settings({"METRICS_HOME": str(home)})
    contents: dict[str, set[str]] = {}
    errors: list[str] = []
    polls = 0
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    store = open_store(settings)
    while not stopped:
        try:
            published = Published.open(settings.published_dir)
            fresh = published.version not in contents
            start = published.manifest.window.until - timedelta(days=14)
            assert not published.series("orders_placed", dimension="region", member=None, start=start).empty
            if fresh or polls % WHOLE_EVERY == 0:
                contents.setdefault(published.version, set()).add(_content(published))
            current_alerts(store)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        polls += 1
        report.with_suffix(".begun").touch()
        time.sleep(PAUSE)
    store.close()
    seen: dict[str, Any] = {
        "polls": polls,
        "versions": {version: sorted(found) for version, found in contents.items()},
        "errors": errors,
    }
    report.write_text(json.dumps(seen), "utf-8")


def _content(published: Published) -> str:
    """A sum over everything in the version; raises when it is not whole."""
    with published.connect() as con:
        con.execute("SET threads = 1")
        row = con.execute(
            "SELECT count(*), bit_xor(hash(metric, period_start, grain, dimension, member, value)) FROM metric_values"
        ).fetchone()
    assert row is not None
    told = sum(file.rows for file in published.manifest.values)
    assert row[0] == told, f"{published.version}: {row[0]} rows, its manifest says {told}"
    return f"{row[0]} {row[1]}"


if __name__ == "__main__":
    read(Path(sys.argv[1]), Path(sys.argv[2]))
