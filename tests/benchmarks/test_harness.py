from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.measure import MeasureError, Measurement, Stopwatch, least, measure_call, measure_command, ratio
from benchmarks.table import Benchmark, Table, count, milliseconds, seconds, write_section

BURN = "import time\nwhile time.process_time() < {}: pass"


def burn_in_a_child(watch: Stopwatch, cpu: float) -> dict[str, float]:
    """Burns outside the watch, then lets a child burn inside it."""
    exec(BURN.format(0.3))
    with watch:
        subprocess.run([sys.executable, "-c", BURN.format(cpu)], check=True)
    return {"asked": cpu}


def fail(_: Stopwatch) -> None:
    raise RuntimeError("the work went wrong")


def test_a_call_counts_its_children_and_not_its_preparation() -> None:
    measured = measure_call("tests.benchmarks.test_harness:burn_in_a_child", cpu=0.5)
    assert 0.5 <= measured.cpu_seconds < 0.75
    assert measured.wall_seconds >= 0.5
    assert measured.peak_mb > 5
    assert measured.figures == {"asked": 0.5}


def test_a_command_counts_its_children() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN.format(0.4)!r}])"
    assert 0.4 <= measure_command([sys.executable, "-c", child]).cpu_seconds < 0.9


def test_failed_work_is_an_error_with_what_it_printed() -> None:
    with pytest.raises(MeasureError, match="the work went wrong"):
        measure_call("tests.benchmarks.test_harness:fail")
    with pytest.raises(MeasureError, match="ended with 3"):
        measure_command([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_least_of_each_figure_counts() -> None:
    best = least([Measurement(2.0, 9.0, 50.0, {"rows": 1}), Measurement(4.0, 3.0, 40.0, {"rows": 2})])
    assert best == Measurement(2.0, 3.0, 40.0, {"rows": 2}, 2)
    assert ratio(Measurement(6.0, 1.0, 1.0), best) == 3.0


def test_a_section_is_added_once_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    first, other = (Benchmark(name, name.title(), "Words.", lambda *_: Table((), ())) for name in ("first", "other"))
    for benchmark, value in ((first, "1"), (other, "2"), (first, r"3 \1")):
        write_section(
            path, benchmark, Table(("case", "s"), [("a", value)], "Fast."), machine="2 cores", command="run it"
        )
    text = path.read_text("utf-8")
    assert text.startswith("# Performance\n")
    assert [text.count(f"| a | {value} |") for value in ("1", "2", r"3 \1")] == [0, 1, 1]
    assert text.index("## First") < text.index("## Other")
    assert "`run it` (2 cores)" in text


def test_figures_have_two_digits_and_a_unit() -> None:
    assert [seconds(value) for value in (0.0312, 0.314, 4.23, 38.4)] == ["0.031", "0.31", "4.2", "38"]
    assert [milliseconds(value) for value in (0.0004, 0.0312, 0.12)] == ["0.4", "31", "120"]
    assert [count(value) for value in (850, 12_345, 31_300_000)] == ["850", "12.3 k", "31.3 M"]


def test_every_benchmark_has_a_name_of_its_own() -> None:
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)


def test_an_unknown_benchmark_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nightlyy"])
    assert "unknown benchmark nightlyy; known: " in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["library", "--folder", str(tmp_path / "none")])
    assert "there is no such folder" in capsys.readouterr().err
