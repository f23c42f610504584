"""Where the real data is, for tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("METRICS_REAL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def folder(name: str) -> Path:
    """The folder of one extract, or skip the test with the reason."""
    path = ROOT / name
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set METRICS_REAL_DATA to the folder that has {name}")
    return path
