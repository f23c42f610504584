"""One shop per session: building it takes a minute."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

_SPEC = importlib.util.spec_from_file_location("orchestration_shop", Path(__file__).with_name("shop.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_SHOP = importlib.util.module_from_spec(_SPEC)
sys.modules["orchestration_shop"] = _SHOP
_SPEC.loader.exec_module(_SHOP)

if TYPE_CHECKING:
    from orchestration_shop import Shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose history is built and told to nobody. Tests that change it take a copy."""
    built: Shop = _SHOP.build_shop(tmp_path_factory.mktemp("orchestration") / "home")
    assert built.history.success, built.history.run.failures
    return built
