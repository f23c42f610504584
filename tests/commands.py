"""The program `metrics` in processes of its own, for tests that start many nights.

Each is forked from one process that has imported what a night imports, which is a third of a small night's work. What
it does is what `python -m metrics_pipeline.cli` does, and a kill is a kill.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "metrics_pipeline.cli.app",
        "metrics_pipeline.orchestration.operations",
        "metrics_pipeline.orchestration.pipeline",
        "metrics_pipeline.delivery.plots",
        "dagster_dbt",
        "dbt.adapters.duckdb",
        "dbt.cli.main",
        "great_expectations",
        "matplotlib.figure",
    ]
)


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Running:
    """A command that was started."""

    process: ForkServerProcess
    folder: Path

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL, and the end of the process awaited."""
        self.process.kill()
        self.process.join()

    def answer(self, timeout: float) -> Answer:
        """Wait for the end; a command that runs longer is killed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
        code = self.process.exitcode
        assert code is not None
        return Answer(code, *((self.folder / name).read_text("utf-8") for name in ("out", "err")))


def start(*arguments: str, environment: Mapping[str, str]) -> Running:
    """Start `metrics ARGUMENTS` with this environment and no other, as the leader of a session of its own."""
    folder = Path(tempfile.mkdtemp(prefix="command-"))
    process = _CONTEXT.Process(target=_main, args=(arguments, dict(environment), folder), daemon=True)
    process.start()
    return Running(process, folder)


def run(*arguments: str, environment: Mapping[str, str], timeout: float = 300) -> Answer:
    """Start `metrics ARGUMENTS` and wait for its end."""
    return start(*arguments, environment=environment).answer(timeout)


def _main(arguments: tuple[str, ...], environment: dict[str, str], folder: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["metrics", *arguments]
    from metrics_pipeline.cli.app import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()
