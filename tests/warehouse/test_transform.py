from __future__ import annotations

import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.settings import Installation, Settings
from metrics_pipeline.warehouse import transform
from metrics_pipeline.warehouse.build import BuildLocked
from metrics_pipeline.warehouse.transform import (
    DbtError,
    batch_size,
    dbt_arguments,
    dbt_environment,
    ensure_manifest,
    run_dbt,
    stream_dbt,
)
from metrics_pipeline.warehouse.window import Window

NIGHT = Window(date(2025, 11, 8), date(2025, 11, 12))

PROJECT = {
    "dbt_project.yml": "name: tiny\nversion: '1.0'\nprofile: tiny\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": (
        "tiny:\n  target: duckdb\n  outputs:\n    duckdb:\n      type: duckdb\n"
        "      path: \"{{ env_var('METRICS_BUILD_PATH') }}\"\n"
    ),
    "models/sessions.sql": (
        "{{ config(materialized='table') }}\n"
        "select '{{ invocation_args_dict.event_time_start }}' as window_start, "
        "'{{ invocation_args_dict.event_time_end }}' as window_end, '{{ env_var(\"METRICS_TIMEZONE\") }}' as zone, "
        "'{{ env_var(\"METRICS_BATCH_SIZE\") }}' as batch_size"
    ),
    "models/bounce_rate.sql": "select window_start from {{ ref('sessions') }}",
    "models/_tests.yml": (
        "models:\n  - name: bounce_rate\n    columns:\n      - name: window_start\n        data_tests:\n"
        "          - accepted_values:\n              arguments: {values: [never]}\n              config: {severity: warn}\n"
    ),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation with a dbt project of two models and a test that warns."""
    project = tmp_path / "project"
    for name, text in PROJECT.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return Settings(
        home=tmp_path / "home", dbt_project_dir=project, installation=Installation(timezone="America/Sao_Paulo")
    )


@pytest.mark.parametrize(
    ("days", "expected"), [(1, "day"), (7, "day"), (8, "month"), (100, "month"), (101, "year"), (730, "year")]
)
def test_long_windows_are_built_in_large_batches(days: int, expected: str) -> None:
    window = Window(date(2024, 1, 1), date.fromordinal(date(2024, 1, 1).toordinal() + days))
    assert batch_size(window) == expected


def test_arguments_name_the_window_and_every_place(settings: Settings) -> None:
    assert dbt_arguments(settings, NIGHT) == [
        "build",
        *("--project-dir", str(settings.dbt_project_dir)),
        *("--profiles-dir", str(settings.dbt_project_dir)),
        *("--target-path", str(settings.home / "dbt" / "target")),
        *("--log-path", str(settings.home / "dbt" / "logs")),
        *("--log-level-file", "none"),
        *("--event-time-start", "2025-11-08"),
        *("--event-time-end", "2025-11-12"),
        *("--exclude-resource-type", "unit_test"),
        "--no-write-json",
    ]


@pytest.mark.parametrize("select", ["+gmv path:models/hourly", ("+gmv", "path:models/hourly")])
def test_a_selection_comes_last(settings: Settings, select: str | tuple[str, ...]) -> None:
    chosen = dbt_arguments(settings, NIGHT, select)
    assert " ".join(chosen[chosen.index("--select") :]) == "--select +gmv path:models/hourly"


def test_the_environment_names_build_file_zone_and_batch(settings: Settings) -> None:
    assert dbt_environment(settings, NIGHT) == {
        "METRICS_BUILD_PATH": str(settings.build_path),
        "METRICS_TIMEZONE": "America/Sao_Paulo",
        "METRICS_SKU_DAYS": "92",
        "METRICS_DISTINCT": "exact",
        "METRICS_BATCH_SIZE": "day",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    assert dbt_environment(settings) == dbt_environment(settings, NIGHT)


def test_a_window_is_whole_days_and_not_empty() -> None:
    assert [month.isoformat() for month in Window(date(2025, 11, 30), date(2026, 1, 2)).months()] == [
        "2025-11-01",
        "2025-12-01",
        "2026-01-01",
    ]
    assert NIGHT.days == 4
    with pytest.raises(ValueError, match="an empty window"):
        Window(date(2025, 11, 8), date(2025, 11, 8))


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> list[list[str]]:
    """Replaces the dbt process; holds the arguments of every start."""
    starts: list[list[str]] = []

    def start(_: Settings, arguments: list[str], *__: object) -> None:
        starts.append(arguments)
        settings.dbt_target_dir.mkdir(parents=True, exist_ok=True)
        (settings.dbt_target_dir / "manifest.json").write_text("{}", "utf-8")

    monkeypatch.setattr(transform, "_run", start)
    return starts


def test_the_manifest_is_prepared_once(settings: Settings, parses: list[list[str]]) -> None:
    first = ensure_manifest(settings)
    assert ensure_manifest(settings) == first
    assert first.read_text("utf-8") == "{}"
    assert [arguments[0] for arguments in parses] == ["parse"]


@pytest.mark.parametrize(
    ("path", "is_source"),
    [
        ("models/sessions.sql", True),
        ("models/deep/new.sql", True),
        ("profiles.yml", True),
        ("macros/new.sql", True),
        ("target/compiled.sql", False),
        (".user.yml", False),
    ],
)
def test_the_manifest_is_prepared_again_when_a_source_changes(
    settings: Settings, parses: list[list[str]], path: str, is_source: bool
) -> None:
    first = ensure_manifest(settings)
    changed = settings.dbt_project_dir / path
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text("select 2", "utf-8")
    second = ensure_manifest(settings)
    assert (second != first) is is_source
    assert first.exists() is not is_source
    assert len(parses) == (2 if is_source else 1)


def test_the_manifest_is_prepared_again_for_another_time_zone(settings: Settings, parses: list[list[str]]) -> None:
    first = ensure_manifest(settings)
    assert (
        ensure_manifest(settings.model_copy(update={"installation": Installation(timezone="Asia/Shanghai")})) != first
    )


@pytest.mark.slow
def test_dbt_builds_a_window_and_reports_warnings(settings: Settings) -> None:
    lines: list[str] = []
    report = run_dbt(settings, NIGHT, progress=lines.append)
    with duckdb.connect(settings.build_path, read_only=True) as con:
        row = con.execute("SELECT * FROM sessions").fetchone()
    assert row == ("2025-11-08 00:00:00", "2025-11-12 00:00:00", "America/Sao_Paulo", "day")
    assert report.built == 2
    assert [warning.node.split(".")[0] for warning in report.warnings] == ["test"]
    assert "Got 1 result" in report.warnings[0].message
    assert len(lines) == 3
    assert ensure_manifest(settings).exists()
    assert not (settings.dbt_project_dir / "logs").exists()


@pytest.mark.slow
def test_a_failing_model_is_named_with_its_error_and_the_others_are_built(settings: Settings) -> None:
    (settings.dbt_project_dir / "models" / "bounce_rate.sql").write_text(
        "select nonsense from {{ ref('sessions') }}", "utf-8"
    )
    with pytest.raises(DbtError) as error:
        run_dbt(settings, NIGHT)
    first, problem, *rest = [line.strip() for line in str(error.value).splitlines()]
    assert first == "dbt build failed"
    assert problem.startswith('models/bounce_rate.sql: Binder Error: Referenced column "nonsense" not found')
    assert rest[0] == "1 nodes below were skipped and keep their former values"
    assert len(rest) == 1


@pytest.mark.slow
def test_a_model_whose_batch_fails_is_named_with_its_error(settings: Settings) -> None:
    (settings.dbt_project_dir / "models/by_day.sql").write_text(
        "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='day', batch_size='day', "
        "begin='2025-01-01', lookback=0) }}\nselect timestamp '2025-11-08' as day, no_such_column as n",
        "utf-8",
    )
    with pytest.raises(DbtError, match=r'\n  by_day: Binder Error: Referenced column "no_such_column"'):
        run_dbt(settings, NIGHT)


@pytest.mark.slow
def test_a_project_that_cannot_be_parsed_is_explained(settings: Settings) -> None:
    (settings.dbt_project_dir / "models" / "gmv.sql").write_text("select * from {{ ref('paid') }}", "utf-8")
    with pytest.raises(DbtError, match=r"dbt parse failed\n.*'model.tiny.gmv' .* depends on a node named 'paid'"):
        ensure_manifest(settings)


@pytest.mark.slow
def test_a_build_file_that_is_open_elsewhere_is_explained(settings: Settings) -> None:
    settings.warehouse_dir.mkdir(parents=True)
    hold = f"import duckdb; con = duckdb.connect({str(settings.build_path)!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(BuildLocked, match=f"Only one run may write.*PID {other.pid}"):
            run_dbt(settings, NIGHT)
        other.communicate("\n")


@pytest.mark.slow
def test_the_build_file_is_free_after_dbt(settings: Settings) -> None:
    run_dbt(settings, NIGHT)
    with duckdb.connect(settings.build_path, config={"threads": 1}) as con:
        con.execute("CREATE TABLE other AS SELECT 1")


@pytest.mark.slow
def test_who_leaves_early_stops_dbt(settings: Settings) -> None:
    models = settings.dbt_project_dir / "models"
    for number in range(6):
        former = f"{{{{ ref('m{number - 1}') }}}}" if number else "{{ ref('sessions') }}"
        (models / f"m{number}.sql").write_text(
            "{{ config(materialized='table') }} "
            f"select count(*) as n from range(300000000) as r, (select 1 from {former}) as s where r.range % 7 = 3",
            "utf-8",
        )
    events = stream_dbt(settings, dbt_arguments(settings, NIGHT), dbt_environment(settings, NIGHT))
    first = next(events)
    assert first["data"].get("node_info", {}).get("unique_id") == "model.tiny.sessions", first
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "dbt"]
    with duckdb.connect(settings.build_path, config={"threads": 1}) as con:
        built = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert "sessions" in built
    assert "m5" not in built


@pytest.mark.slow
def test_dbt_does_not_read_the_source_of_every_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    from dbt_common import behavior_flags

    def walked() -> None:
        raise AssertionError("the call stack was walked")

    flag = {"name": "some_flag", "default": False, "description": "said"}
    monkeypatch.setattr(behavior_flags.BehaviorFlagRendered, "_default_source", walked)
    monkeypatch.setattr(behavior_flags.inspect, "stack", walked)
    transform._name_no_callers()
    assert behavior_flags.Behavior([flag], {}).some_flag.name == "some_flag"


def test_who_never_comes_back_for_the_events_holds_nobody_up(settings: Settings) -> None:
    left = stream_dbt(settings, dbt_arguments(settings, NIGHT), dbt_environment(settings, NIGHT))
    next(left)
    assert run_dbt(settings, NIGHT).built > 0
    left.close()
