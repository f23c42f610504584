"""Fixtures that many packages share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metrics_pipeline.settings import PROJECT_ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("METRICS_REAL_DATA") or PROJECT_ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set METRICS_REAL_DATA)")
    return folder
