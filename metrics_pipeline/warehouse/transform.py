"""Running dbt for a window: arguments and environment, the manifest prepared only when stale, and what came of it.

dbt runs in a thread of this process, by its own `dbtRunner` (docs/decisions/0006): who kills the process kills dbt with
it, and 3 s of imports, of writing artifacts nobody reads and of passing events as text are saved in every run. Nothing
in this module knows Dagster; `orchestration/` follows the same events.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from metrics_pipeline.settings import Settings
from metrics_pipeline.warehouse.build import BuildLocked
from metrics_pipeline.warehouse.window import Window

LONGEST_DAILY_WINDOW = 7
"""Days up to which cubes are built day by day: a nightly run rebuilds no day it was not asked for."""
LONGEST_MONTHLY_WINDOW = 100
"""Days up to which cubes are built month by month. A batch costs about 50 ms of dbt's own work in each of 19 cubes, so
two years day by day would be 11 minutes of it, and year by year is 2 seconds."""

_NOT_SOURCES = {"target", "logs", "dbt_packages"}
_SHOWN_FAILURES = 5


class DbtError(RuntimeError):
    """dbt did not do what it was asked; the message names each model and its error, not the whole log."""


@dataclass(frozen=True)
class DbtFailure:
    """One node that failed or warned."""

    node: str
    """dbt's unique id, e.g. `model.metrics_pyramid.refund_rate`; "" when the project as a whole is at fault."""
    message: str


@dataclass(frozen=True)
class DbtRunReport:
    """What a successful run did."""

    window: Window
    seconds: float
    """Wall time, dbt's start included."""
    built: int
    """Nodes built or passed."""
    warnings: tuple[DbtFailure, ...]
    """Tests of severity `warn` that failed."""


def batch_size(window: Window) -> str:
    """How much one microbatch of a cube spans: day, month or year."""
    if window.days <= LONGEST_DAILY_WINDOW:
        return "day"
    return "month" if window.days <= LONGEST_MONTHLY_WINDOW else "year"


def dbt_arguments(settings: Settings, window: Window, select: str | Sequence[str] | None = None) -> list[str]:
    """Arguments of `dbt` that build the metrics for a window; `select` is dbt's own selection, None = everything."""
    arguments = [
        "build",
        *_locations(settings),
        "--event-time-start",
        window.start.isoformat(),
        "--event-time-end",
        window.until.isoformat(),
        "--exclude-resource-type",
        "unit_test",
        # Nobody reads the artifacts of a build: its events say the same, sooner, and writing them takes 1 s.
        "--no-write-json",
    ]
    if select is not None:
        arguments += ["--select", *([select] if isinstance(select, str) else select)]
    return arguments


def dbt_environment(settings: Settings, window: Window | None = None) -> dict[str, str]:
    """The variables that profile and models read. Without a window cubes are built day by day."""
    return {
        "METRICS_BUILD_PATH": str(settings.build_path),
        "METRICS_TIMEZONE": settings.installation.timezone,
        "METRICS_SKU_DAYS": str(settings.sku_days),
        "METRICS_DISTINCT": settings.distinct_counts,
        "METRICS_BATCH_SIZE": "day" if window is None else batch_size(window),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }


def ensure_manifest(settings: Settings) -> Path:
    """The manifest of the dbt project as it is now; parses only when a source file or the environment has changed.

    A copy of its own, never a file that a running dbt writes. Raises `DbtError` when the project cannot be parsed.
    """
    prepared = settings.dbt_target_dir.parent / "manifest"
    path = prepared / f"{_fingerprint(settings)}.json"
    if path.exists():
        return path
    prepared.mkdir(parents=True, exist_ok=True)
    _run(settings, ["parse", *_locations(settings)], dbt_environment(settings), None)
    content = (settings.dbt_target_dir / "manifest.json").read_bytes()
    with tempfile.NamedTemporaryFile(dir=prepared, delete=False) as part:
        part.write(content)
    Path(part.name).replace(path)
    for former in prepared.glob("*.json"):
        if former != path:
            former.unlink(missing_ok=True)
    return path


def run_dbt(
    settings: Settings,
    window: Window,
    select: str | Sequence[str] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> DbtRunReport:
    """Build the metrics for a window; `progress` gets one line for each finished node.

    Raises `DbtError` when a node fails (those below it are skipped, all others are built) and `BuildLocked` when
    another process has the build file open.
    """
    began = time.monotonic()
    outcome = _run(settings, dbt_arguments(settings, window, select), dbt_environment(settings, window), progress)
    return DbtRunReport(window, time.monotonic() - began, outcome.built, tuple(outcome.warnings))


@dataclass
class _Outcome:
    """What dbt's events said, as they come."""

    progress: Callable[[str], None] | None = None
    built: int = 0
    skipped: int = 0
    failures: list[DbtFailure] = field(default_factory=list)
    warnings: list[DbtFailure] = field(default_factory=list)
    of_batches: dict[str, str] = field(default_factory=dict)
    """Node → what stopped one of its batches: the result of the node itself says no more than "ERROR"."""

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event of dbt's structured log."""
        name, data, message = event["info"]["name"], event["data"], str(event["info"]["msg"]).strip()
        node = str(data.get("node_info", {}).get("unique_id", ""))
        if name in _OF_BATCH:
            self.of_batches[node] = _of_batch(node, str(data["exc"]))
        elif name == "RunResultError":
            is_told = message != _FAILED_BATCH
            self.failures.append(DbtFailure(node, message if is_told else self.of_batches.get(node, message)))
        elif name == "MainEncounteredError":
            self.failures.append(DbtFailure("", str(data["exc"])))
        elif name == "RunResultWarningMessage":
            self.warnings.append(DbtFailure(node, message))
        elif name == "StatsLine":
            stats = data["stats"]
            self.built, self.skipped = int(stats.get("pass", 0)), int(stats.get("skip", 0))
        elif name in RESULTS and self.progress is not None:
            self.progress(message)


RESULTS = frozenset({"LogModelResult", "LogTestResult", "LogSeedResult"})
"""Events that say how one node ended."""
_FAILED_BATCH = "ERROR"
_OF_BATCH = frozenset({"GenericExceptionOnRun", "CatchableExceptionOnRun"})
_TAKEN = RESULTS | _OF_BATCH | {"RunResultError", "MainEncounteredError", "RunResultWarningMessage", "StatsLine"}
_ONE_AT_A_TIME = threading.Lock()
"""dbt keeps flags, adapters and event loggers in the process: a second run waits for the first one."""


def stream_dbt(
    settings: Settings, arguments: Sequence[str], environment: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Run dbt and yield the events that matter (`RESULTS`, failures, warnings), as dictionaries of its structured log.

    Raises `DbtError` or `BuildLocked` at the end when a node, or dbt itself, failed. Who leaves early stops dbt: the
    node in progress ends or is cancelled, none is begun.
    """
    yield from _stream(settings, arguments, environment, _Outcome())


def _stream(
    settings: Settings, arguments: Sequence[str], environment: Mapping[str, str], outcome: _Outcome
) -> Iterator[dict[str, Any]]:
    """`stream_dbt`, which also tells `outcome`."""
    settings.warehouse_dir.mkdir(parents=True, exist_ok=True)
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    ended: list[Any] = []

    def run() -> None:
        try:
            # Held by the thread, which always ends, and not by this generator, which a caller may never resume.
            with _ONE_AT_A_TIME, _process_environment(environment):
                ended.append(_invoke(arguments, events.put))
        except KeyboardInterrupt:  # of `_interrupt`, before dbt had begun
            pass
        finally:
            events.put(None)

    thread = threading.Thread(target=run, name="dbt", daemon=True)
    thread.start()
    try:
        while (event := events.get()) is not None:
            outcome.take(event)
            yield event
    finally:
        if thread.is_alive():
            _interrupt(thread)
        thread.join()
    result = ended[0] if ended else None
    if result is None or not result.success or outcome.failures:
        raise _error(settings, arguments[0], outcome, None if result is None else result.exception)


def _invoke(arguments: Sequence[str], tell: Callable[[dict[str, Any]], None]) -> Any:
    """One call of dbt in this thread; `tell` gets its events. Returns dbt's own result."""
    # Imported here: 2 s that only a process that runs dbt shall pay.
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner
    from google.protobuf.json_format import MessageToDict

    _name_no_callers()

    def hear(message: Any) -> None:
        if message.info.name in _TAKEN:
            tell(MessageToDict(message, preserving_proto_field_name=True))

    try:
        return dbtRunner(callbacks=[hear]).invoke([*arguments, "--log-level", "none"])
    finally:
        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]  # else the file stays open


def _name_no_callers() -> None:
    """dbt names the module that declared a behaviour flag, from the call stack with the source of every frame.

    That walks all modules of the process for each frame of each flag: 2 CPU seconds where Dagster is imported, for a word in
    a warning that is not shown here.
    """
    from dbt_common.behavior_flags import BehaviorFlagRendered

    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")  # type: ignore[method-assign]


def _interrupt(thread: threading.Thread) -> None:
    """Raise `KeyboardInterrupt` in dbt's thread, by which dbt cancels its connections and stops."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))


@contextmanager
def _process_environment(values: Mapping[str, str]) -> Iterator[None]:
    """The process environment with `values`, while dbt reads it."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _run(
    settings: Settings,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    progress: Callable[[str], None] | None,
) -> _Outcome:
    outcome = _Outcome(progress)
    for _ in _stream(settings, arguments, environment, outcome):
        pass
    return outcome


def _error(
    settings: Settings, command: str, outcome: _Outcome, exception: BaseException | None
) -> DbtError | BuildLocked:
    if exception is not None and not outcome.failures:
        outcome.failures.append(DbtFailure("", str(exception)))
    for failure in outcome.failures:
        if "Could not set lock on file" in failure.message:
            return BuildLocked(
                f"{settings.build_path}: open in another process, so dbt cannot write. Only one run may write at a "
                f"time: wait for it to end, or close the program that has the file open. ({failure.message})"
            )
    lines = [f"dbt {command} failed"]
    lines += [_told(failure) for failure in outcome.failures[:_SHOWN_FAILURES]]
    if (more := len(outcome.failures) - _SHOWN_FAILURES) > 0:
        lines.append(f"and {more} more")
    if outcome.skipped:
        lines.append(f"{outcome.skipped} nodes below were skipped and keep their former values")
    if not outcome.failures:
        lines.append("it ended without saying why")
    return DbtError("\n  ".join(lines))


def _of_batch(node: str, text: str) -> str:
    """What a batch failed with, under a headline that names the model as those of other failures do."""
    headline, _, rest = text.removeprefix("Exception on worker thread.").strip().partition("\n")
    return text if "(" in headline else f"{headline} in model ({node.rpartition('.')[2]})\n{rest}"


def _told(failure: DbtFailure) -> str:
    """`refund_rate: Binder Error: …`, without dbt's headline, which repeats the model."""
    lines = [line.strip() for line in failure.message.strip().splitlines() if line.strip()]
    if len(lines) > 1 and " in " in lines[0] and "(" in lines[0]:
        headline, *rest = lines
        where = headline[headline.rindex("(") + 1 :].rstrip(")")
        return f"{where}: {' '.join(rest)}"
    return " ".join(lines)


def _locations(settings: Settings) -> list[str]:
    project = str(settings.dbt_project_dir.resolve())
    return [
        "--project-dir",
        project,
        "--profiles-dir",
        project,
        "--target-path",
        str(settings.dbt_target_dir),
        "--log-path",
        str(_log_dir(settings)),
        # The run's own record holds every event; writing a debug log beside it is a tenth of what dbt costs.
        "--log-level-file",
        "none",
    ]


def _log_dir(settings: Settings) -> Path:
    return settings.dbt_target_dir.parent / "logs"


def _fingerprint(settings: Settings) -> str:
    """Sixteen hexadecimal digits over everything a manifest depends on."""
    digest = hashlib.sha256()
    for name in ("dbt-core", "dbt-duckdb"):
        digest.update(f"{name} {installed_version(name)}\n".encode())
    for key, value in sorted(dbt_environment(settings).items()):
        digest.update(f"{key}={value}\n".encode())
    for path in _source_files(settings.dbt_project_dir):
        digest.update(f"{path.relative_to(settings.dbt_project_dir).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _source_files(project: Path) -> Iterator[Path]:
    for path in sorted(project.rglob("*")):
        inside = path.relative_to(project).parts
        if inside[0] not in _NOT_SOURCES and not any(part.startswith(".") for part in inside) and path.is_file():
            yield path
