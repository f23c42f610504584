"""Measuring one piece of work: in a process of its own, CPU seconds with all its children, peak memory, wall time.

A function under test takes a `Stopwatch` first and runs what is to be measured inside `with watch:`; what it prepares
outside is not counted. It may return figures of its own (rows, bytes). A command is measured from start to exit.
Noise only ever adds, so of several repetitions the least is taken.

The system counts the memory of the starting process as its child's until the child's program is loaded, so whoever
measures stays small: data is prepared in processes of their own, too.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class MeasureError(RuntimeError):
    """The measured work failed; the message is the end of what it printed."""


@dataclass(frozen=True)
class Measurement:
    """What one piece of work cost, the least of `repeated` repetitions for each figure."""

    cpu_seconds: float
    """User and system time, child processes included."""
    wall_seconds: float
    peak_mb: float
    """Largest resident memory of one process, in units of 10⁶ bytes, preparation included."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What the work said of itself, of the last repetition."""
    repeated: int = 1


class Stopwatch:
    """CPU and wall time of the `with` blocks it is used for, of this process and of children that ended in them."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.wall_seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._cpu, self._wall = _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_seconds += time.perf_counter() - self._wall
        self.cpu_seconds += _cpu_seconds() - self._cpu


def measure_call(target: str, *, repeat: int = 1, **arguments: Any) -> Measurement:
    """Measure `package.module:function(watch, **arguments)` in fresh processes; arguments and result are JSON.

    Raises `MeasureError` when the function fails.
    """
    runs: list[Measurement] = []
    for _ in range(repeat):
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.measure", target, json.dumps(arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode != 0:
            raise MeasureError(f"{target} failed:\n{process.stderr[-2000:]}")
        runs.append(Measurement(**json.loads(process.stdout.splitlines()[-1])))
    return least(runs)


def measure_command(
    command: Sequence[str], *, repeat: int = 1, environment: Mapping[str, str] | None = None
) -> Measurement:
    """Measure a command from start to exit, its children included. Raises `MeasureError` when it fails."""
    runs: list[Measurement] = []
    for _ in range(repeat):
        began = time.perf_counter()
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise MeasureError(f"{' '.join(command)} ended with {process.returncode}:\n{output[-2000:]}")
        runs.append(
            Measurement(usage.ru_utime + usage.ru_stime, time.perf_counter() - began, _megabytes(usage.ru_maxrss))
        )
    return least(runs)


def least(runs: Sequence[Measurement]) -> Measurement:
    """The least of each figure over repetitions."""
    return Measurement(
        cpu_seconds=min(run.cpu_seconds for run in runs),
        wall_seconds=min(run.wall_seconds for run in runs),
        peak_mb=min(run.peak_mb for run in runs),
        figures=runs[-1].figures,
        repeated=len(runs),
    )


def ratio(large: Measurement, small: Measurement) -> float:
    """How many times the CPU the larger piece of work takes."""
    return large.cpu_seconds / small.cpu_seconds


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _megabytes(maxrss: int) -> float:
    return maxrss / 1e6 if sys.platform == "darwin" else maxrss * 1024 / 1e6


def _main(target: str, arguments: str) -> None:
    module, _, function = target.partition(":")
    watch = Stopwatch()
    figures = getattr(importlib.import_module(module), function)(watch, **json.loads(arguments))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    result = {
        "cpu_seconds": watch.cpu_seconds,
        "wall_seconds": watch.wall_seconds,
        "peak_mb": _megabytes(peak),
        "figures": figures or {},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
