"""The command line: help, answers, exit codes and what a person is told when something is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli import app as cli
from metrics_pipeline.cli.app import app, main
from metrics_pipeline.orchestration.operations import DaysOutside, check_days
from metrics_pipeline.settings import PROJECT_ROOT, Installation, Settings, read_installation, write_installation
from metrics_pipeline.sources.simulator import simulate

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
        "import sys\nfrom typer.testing import CliRunner\nfrom metrics_pipeline.cli.app import app\n"
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
    assert f"metrics {verb}" in " ".join(out.partition("Usage")[2].partition("\n")[2].split())


def test_an_unknown_verb_is_wrong_usage(home: Path) -> None:
    assert run("nonsense")[0] == 2


def test_a_day_that_is_none_is_wrong_usage(home: Path) -> None:
    code, _, err = run("nightly", "--day", "yesterday")
    assert code == 2
    assert "2026-11-11" in err


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("nightly", "--day", "2999-01-01"), "2999-01-01 is not over on the shop's clock (Asia/Shanghai)"),
        (("nightly", "--day", "2001-01-01"), "2001-01-01 is before the first day of this installation"),
        (("backfill", "--from", "2026-11-20", "--to", "2026-11-01"), "the days end (2026-11-01) before they begin"),
        (("value", "gmv", "--from", "2026-11-20", "--to", "2026-11-01"), "the days end (2026-11-01) before they begin"),
        (("value", "gmv", "--grain", "week"), "--grain 'week' is not known; write day or hour"),
        (("load", "olst", "/tmp"), "there is no source 'olst'; use simulator, olist, merch_store, files or auto"),
        (("load", "files"), "files needs the folder or mapping file to read: metrics load files PATH"),
        (("load", "auto"), "auto needs the folder or mapping file to read: metrics load auto PATH"),
        (("load", "simulator", "--timezone", "Mars/Olympus"), "--timezone 'Mars/Olympus' is not known; write an IANA"),
        (("value", "gmvv"), "there is no metric 'gmvv' — did you mean 'gmv'?"),
        (("alerts", "list", "--rule", "gmv_anomali"), "there is no rule 'gmv_anomali' — did you mean 'gmv_anomaly'"),
        (("alerts", "history", "--rule", "nonsense"), "there is no rule 'nonsense'"),
        (("alerts", "messages", "--rule", "nonsense"), "there is no rule 'nonsense'"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_wrong_usage_with_a_word_of_what_can(call: tuple[str, ...], words: str, home: Path) -> None:
    code, _, err = run(*call)
    assert code == 2
    assert words in err


def test_days_that_are_not_over_are_told_by_the_shops_clock(home: Path) -> None:
    settings = Settings(home=home, installation=Installation(first_day=date(2026, 1, 1)))
    day, before_midnight = date(2026, 11, 22), datetime(2026, 11, 22, 15, 59, tzinfo=UTC)
    check_days(settings, date(2026, 1, 1), date(2026, 11, 21), now=before_midnight)
    check_days(settings, day, day, now=before_midnight + timedelta(minutes=1))
    for first, last in ((day, day), (date(2025, 12, 31), date(2026, 1, 2)), (date(2026, 2, 2), date(2026, 2, 1))):
        with pytest.raises(DaysOutside):
            check_days(settings, first, last, now=before_midnight)


@pytest.mark.parametrize(
    "call", [("demo", "--no-ui"), ("nightly",), ("value", "gmv"), ("alerts", "list")], ids=lambda call: call[0]
)
def test_a_home_that_cannot_be_written_is_named(
    call: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "taken").write_text("a file", "utf-8")
    monkeypatch.setenv("METRICS_HOME", str(home / "taken"))
    monkeypatch.setattr(sys, "argv", ["metrics", *call])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert "taken" in told
    assert "METRICS_HOME" in told or "metrics demo" in told


def test_a_page_that_cannot_be_written_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["metrics"])
    monkeypatch.setattr(cli, "app", lambda: Path("/no/such/folder/page.html").write_text("", "utf-8"))
    with pytest.raises(SystemExit):
        main()
    assert "/no/such/folder/page.html: No such file or directory" in capsys.readouterr().err


def test_the_version_is_told() -> None:
    assert run("--version")[:2] == (0, "metrics-pipeline 0.1.0\n")


def test_a_small_demo_says_what_was_made_to_go_wrong(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day, settings = date(2026, 11, 21), Settings(home=home)
    simulate(settings.source_dir, seed=7, scale=0.02, days=60, until=day)
    cli._tell_truth(settings, day, 0.02)
    told = " ".join(capsys.readouterr().out.split())
    for word in ("payment_outage", "payment_method=alipay", "stock_out", "sku=", "About 25 orders a day are too few"):
        assert word in told


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


@pytest.mark.parametrize("call", [("alerts", "--json"), ("alerts", "list", "--json")], ids=" ".join)
def test_alerts_of_an_empty_installation_are_none(call: tuple[str, ...], home: Path) -> None:
    code, out, _ = run(*call)
    assert (code, json.loads(out)) == (0, [])


def test_the_doctor_finds_that_nothing_is_loaded(home: Path) -> None:
    code, out, _ = run("doctor", "--json")
    findings = {one["check"]: one for one in json.loads(out)}
    assert code == 1
    assert findings["home"]["status"] == "ok"
    assert findings["versions"]["status"] == "ok"
    assert findings["source"]["status"] == "problem"
    assert "metrics" in findings["published"]["detail"]


def test_the_doctor_finds_a_home_that_is_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "taken").write_text("a file", "utf-8")
    monkeypatch.setenv("METRICS_HOME", str(home / "taken"))
    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert ("problem", f"{home / 'taken'} is no folder") in [(one["status"], one["detail"]) for one in json.loads(out)]


def test_a_source_that_does_not_exist_is_named(home: Path) -> None:
    done = subprocess.run([*METRICS, "load", "auto", "/no/such/folder"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/no/such/folder" in done.stderr
    assert not (home / "installation.yml").exists()


def test_the_program_is_what_the_package_installs() -> None:
    assert callable(main)
    assert 'metrics = "metrics_pipeline.cli.app:main"' in (PROJECT_ROOT / "pyproject.toml").read_text("utf-8")


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
    code, _, err = run("value", "gmv", "--by", "region", "--member", "华比")
    assert code == 2
    assert "gmv by region has no member '华比'; there are 7, such as" in err
    listed = {one["metric"]: one for one in json.loads(run("value", "--json")[1])["metrics"]}
    assert len(listed) == 54
    assert listed["gmv"]["day"] == report["day"]
    assert listed["gmv"]["unit"] == "CNY"
    assert listed["gmv"]["value"] == pytest.approx(
        sum(value["value"] for value in values if value["period"] == report["day"])
    )
    assert run("value", "gmv", "--by", "planet")[0] == 2
    assert run("doctor")[0] == 0
    messages = json.loads(run("alerts", "messages", "--json")[1])
    assert {message["state"] for message in messages} <= {"sent"}
    code, out, _ = run("load", "olist", str(home))
    assert code == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc")
def test_a_terminated_ui_takes_its_server_and_daemon_along(home: Path) -> None:
    write_installation(home, Installation())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    as_in_the_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # where a shell makes commands ignore Ctrl-C
    process = subprocess.Popen(
        [*as_in_the_background, *METRICS, "ui", "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    started: set[int] = set()
    try:
        deadline = time.monotonic() + 120
        while len(family(process.pid)) < 3:  # itself, `dagster dev`, the first of its own
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        started = family(process.pid)
        process.terminate()
        process.communicate(timeout=120)
        while alive(started):
            assert time.monotonic() < deadline + 60, alive(started)
            time.sleep(0.2)
    finally:
        for pid in {process.pid, *alive(started)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def family(pid: int) -> set[int]:
    """A process and everything that it started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run."""
    return {pid for pid in pids if "State:\tZ" not in _status(pid) and _status(pid)}


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
