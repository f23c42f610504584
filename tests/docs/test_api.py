"""The examples of docs/api.md run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from urllib.parse import parse_qsl, urlsplit

import pytest

from metrics_pipeline.settings import PROJECT_ROOT
from tests.api.conftest import running, world  # noqa: F401 - fixtures

TEXT = (PROJECT_ROOT / "docs" / "api.md").read_text("utf-8")


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_examples_run(world, number):  # noqa: F811
    program = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[number]
    environment = {**os.environ, "TOKEN": world.token(), "METRICS_API": world.url, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("华北" in done.stdout) if number == 0 else ("mean" in done.stdout)


def test_every_address_of_the_curl_examples_answers(world):  # noqa: F811
    addresses = re.findall(r'"http://127\.0\.0\.1:8000(/v1/\S+)"', TEXT)
    assert len(addresses) == 3
    with world.client() as client:
        for address in addresses:
            parts = urlsplit(address)
            answer = client.get(parts.path, params=parse_qsl(parts.query))
            assert answer.status_code == 200, answer.text


def test_the_document_names_every_address_and_parameter(world):  # noqa: F811
    from metrics_pipeline.api.app import openapi_document

    paths = openapi_document(world.settings)["paths"]
    assert all(f"`GET {path.replace('{metric}', '{id}')}`" in TEXT for path in paths)
    named = {one["name"] for one in paths["/v1/metrics/{metric}/values"]["get"]["parameters"] if one["in"] == "query"}
    assert not [name for name in named if f"`{name}`" not in TEXT]
