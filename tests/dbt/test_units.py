"""dbt's unit tests of the models run and pass: a build leaves them out, so nothing else would notice when they do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from metrics_pipeline.settings import PROJECT_ROOT, Settings
from metrics_pipeline.warehouse.transform import dbt_environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("small_shop")]

PROJECT = PROJECT_ROOT / "dbt_project"


def test_every_unit_test_of_a_model_passes(small_shop: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "build.duckdb"  # dbt opens it for writing, and reads from it which columns the inputs have
    shutil.copy(small_shop.build_path, copy)
    written = {
        test["name"]
        for path in PROJECT.glob("models/**/_unit_tests.yml")
        for test in YAML(typ="safe").load(path.read_text("utf-8"))["unit_tests"]
    }
    places = ("--project-dir", PROJECT, "--profiles-dir", PROJECT, "--target-path", tmp_path, "--log-path", tmp_path)
    done = subprocess.run(
        [Path(sys.executable).with_name("dbt"), "test", *places, "--select", "test_type:unit"],
        env={**os.environ, **dbt_environment(small_shop), "METRICS_BUILD_PATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    results = json.loads((tmp_path / "run_results.json").read_text("utf-8"))["results"]
    failed = {one["unique_id"]: one["message"] for one in results if one["status"] != "pass"}
    assert not failed, done.stdout
    assert {one["unique_id"].rpartition(".")[2] for one in results} == written
