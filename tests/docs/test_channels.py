"""The examples of docs/channels.md are settings that open."""

from __future__ import annotations

import re

import pytest

from metrics_pipeline.delivery.channels.settings import KINDS, read_channels
from metrics_pipeline.delivery.forms import FIELDS
from metrics_pipeline.settings import PROJECT_ROOT

TEXT = (PROJECT_ROOT / "docs" / "channels.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_right(example, tmp_path):
    path = tmp_path / "channels.yml"
    path.write_text(example, encoding="utf-8")
    found = read_channels(path)
    assert found.problems == ()
    assert found.settings


def test_every_kind_and_field_is_told():
    assert all(f"kind: {kind}" in TEXT for kind in KINDS)
    assert all(f"`{field}`" in TEXT for field in FIELDS)
