"""The command line: help, answers, exit codes and what a person is told when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli import app, main
from metrics_pipeline.settings import PROJECT_ROOT, read_installation

METRICS = [sys.executable, "-m", "metrics_pipeline.cli"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICS_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one call, errors told as by the program."""
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom metrics_pipeline.cli import app\n"
        "result = CliRunner().invoke(app, ['--help'])\nassert result.exit_code == 0, result.output\n"
        "print([name for name in ('dagster', 'dbt', 'duckdb', 'pandas', 'sqlalchemy') if name in sys.modules])"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("verb", ["demo", "load", "nightly", "backfill", "value", "doctor", "ui", "rules", "alerts"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert "Usage" in out
    if verb not in {"rules", "alerts"}:
        assert f"metrics {verb}" in " ".join(out.split())


def test_an_unknown_verb_is_wrong_usage(home: Path) -> None:
    assert run("nonsense")[0] == 2


def test_a_day_that_is_none_is_wrong_usage(home: Path) -> None:
    code, _, err = run("nightly", "--day", "yesterday")
    assert code == 2
    assert "2026-11-11" in err


def test_values_before_the_first_publish_say_what_to_do(home: Path) -> None:
    done = subprocess.run([*METRICS, "value", "gmv"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "metrics demo" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_installation_is_named_with_its_file(home: Path) -> None:
    (home / "installation.yml").write_text("timezone: Mars/Olympus\n")
    done = subprocess.run([*METRICS, "nightly"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "installation.yml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shipped_rules_have_no_problems(home: Path) -> None:
    code, out, _ = run("rules", "lint", "--json")
    assert json.loads(out)["problems"] == []
    assert code == 0


def test_lint_tells_all_problems_with_file_and_line(home: Path) -> None:
    folder = home / "rules"
    folder.mkdir()
    (folder / "bad.yml").write_text("groups:\n  - name: one\n    rules:\n      - alert: a_rule\n        metric: gmvv\n")
    code, out, _ = run("rules", "lint", str(folder))
    assert code == 1
    assert "bad.yml:4" in out


def test_a_generated_model_is_never_stale(home: Path) -> None:
    assert run("compile", "--check")[0] == 0


def test_alerts_of_an_empty_installation_are_none(home: Path) -> None:
    code, out, _ = run("alerts", "list", "--json")
    assert (code, json.loads(out)) == (0, [])


def test_the_doctor_finds_that_nothing_is_loaded(home: Path) -> None:
    code, out, _ = run("doctor", "--json")
    findings = {one["check"]: one for one in json.loads(out)}
    assert code == 1
    assert findings["versions"]["status"] == "ok"
    assert findings["source"]["status"] == "problem"
    assert "metrics" in findings["published"]["detail"]


def test_a_source_that_does_not_exist_is_named(home: Path) -> None:
    done = subprocess.run([*METRICS, "load", "auto", "/no/such/folder"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/no/such/folder" in done.stderr
    assert not (home / "installation.yml").exists()


def test_the_program_is_what_the_package_installs() -> None:
    assert callable(main)
    assert 'metrics = "metrics_pipeline.cli:main"' in (PROJECT_ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.slow
def test_the_demo_from_nothing_to_messages(home: Path) -> None:
    done = subprocess.run(
        [*METRICS, "demo", "--no-ui", "--json", "--days", "42", "--scale", "0.02", "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["success"]
    installation = read_installation(home)
    assert installation.source == "simulator"
    assert installation.first_day == date.fromisoformat(report["day"]) - timedelta(days=41)
    code, out, _ = run("value", "gmv", "--by", "region", "--json")
    values = json.loads(out)["values"]
    assert code == 0
    assert values
    assert max(value["period"] for value in values) == report["day"]
    wide = run("value", "refund_rate")[1]
    assert max(len(line) for line in wide.splitlines()) <= 120
    assert run("value", "gmvv")[0] == 2
    assert run("value", "gmv", "--by", "planet")[0] == 2
    assert run("doctor")[0] == 0
    messages = json.loads(run("alerts", "messages", "--json")[1])
    assert {message["state"] for message in messages} <= {"sent"}
    code, out, _ = run("load", "olist", str(home))
    assert code == 1
