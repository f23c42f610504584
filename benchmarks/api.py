"""The HTTP API: 90 days of 31 slices over a real connection, as JSON and as Arrow, in the open and under a policy."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx

from benchmarks.measure import ROOT, MeasureError, Stopwatch, measure_call
from benchmarks.metric_values import ALL_TIME, LAST_DAY, LOADED_AT
from benchmarks.table import Benchmark, Table, count, milliseconds
from metrics_pipeline.api.tokens import new_token
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import access as rows
from metrics_pipeline.store import open_store
from metrics_pipeline.store.tokens import add_token
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import MetricState

DAYS = 400
SHOWN_DAYS = 90
MEMBERS = 31
TIMES = 100
ARROW = "application/vnd.apache.arrow.stream"
GMV = "/v1/metrics/gmv/values?dimension=region&limit=5000"
CASES: dict[str, tuple[str, str, bool]] = {
    "JSON": (GMV, "application/json", False),
    "Arrow": (GMV, ARROW, False),
    "JSON, under a policy": (GMV, "application/json", True),
    "Arrow, under a policy": (GMV, ARROW, True),
    "Arrow, a ratio as of a moment, under a policy": (
        "/v1/metrics/refund_rate/values?dimension=region&limit=5000&as_of=2026-01-02",
        ARROW,
        True,
    ),
    "JSON, one slice": ("/v1/metrics/gmv/values?dimension=region&member=region%203", "application/json", False),
    "the same again, not modified": ("/v1/metrics/gmv/values?dimension=region&member=region%203", "304", False),
    "a definition": ("/v1/metrics/gmv", "application/json", True),
}


def run(folder: Path, repeat: int) -> Table:
    """Every case against a server of its own process."""
    home = folder / "home"
    values = measure_call("benchmarks.api:prepare", home=str(home)).figures["values"]
    lines = []
    with _server(home) as (url, process):
        for label, (path, accept, is_closed) in CASES.items():
            runs = [_asked(home, url, process, path, accept, is_closed=is_closed) for _ in range(repeat)]
            cpu, middle, slow, size, found = (min(column) for column in zip(*runs, strict=True))
            lines.append(
                (
                    label,
                    count(found) if found else "–",
                    f"{size / 1000:.0f}",
                    f"{1 / cpu:.0f}",
                    milliseconds(middle),
                    milliseconds(slow),
                )
            )
    return Table(
        ("answer", "rows", "kB", "requests per CPU s of the server", "p50 ms", "p95 ms"),
        lines,
        f"{count(values)} published values of all starter metrics, {DAYS} days by {MEMBERS} regions; {TIMES} requests one after the "
        f"other on one connection. Every request asks the store who it is and what they may see.",
    )


def prepare(_: Stopwatch, home: str) -> dict[str, Any]:
    """Published values of every starter metric by region."""
    settings = Settings(home=Path(home))
    settings.home.mkdir(parents=True)
    catalogue = Catalogue.read(settings.dbt_project_dir)
    first = LAST_DAY - timedelta(days=DAYS - 1)
    until = datetime.combine(LAST_DAY, datetime.min.time()) + timedelta(days=1)
    with duckdb.connect(str(settings.home / "build.duckdb")) as con:
        con.execute("CREATE SCHEMA base")
        for number, name in enumerate(catalogue.metrics):
            con.execute(
                f"""CREATE TABLE base.{name} AS
                SELECT TIMESTAMP '{first}' + to_days(day::INTEGER) AS period_start, 'day' AS grain, 'region' AS dimension,
                       'region ' || place AS member, (hash(day, place, {number}) % 100000)::DOUBLE AS numerator,
                       7.0 + place AS denominator, numerator / denominator AS value, 'abcdef123456' AS definition_version
                FROM range({DAYS}) AS days (day), range({MEMBERS}) AS places (place)"""
            )
        state = MetricState("abcdef123456", until)
        tables = {name: MetricTables((f"base.{name}",), state) for name in catalogue.metrics}
        publish(con, settings.published_dir, tables=tables, window=ALL_TIME, run_id="benchmark", now=LOADED_AT)
    return {"values": len(catalogue.metrics) * DAYS * MEMBERS}


@contextmanager
def _server(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`metrics api serve` on a free port; its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = {"METRICS_API_PER_MINUTE": "1000000", "METRICS_API_BURST": "1000000"}
    command = [sys.executable, "-m", "metrics_pipeline.cli", "api", "serve", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **limits, "METRICS_HOME": str(home)}, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            _awaited(url, process)
            yield url, process
        finally:
            process.terminate()


def _awaited(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/v1/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise MeasureError("`metrics api serve` did not begin to answer")


def _asked(
    home: Path, url: str, process: subprocess.Popen[bytes], path: str, accept: str, *, is_closed: bool
) -> tuple[float, float, float, int, int]:
    """CPU seconds of the server for one request, median and 95th percentile of the seconds waited, bytes, rows."""
    headers = {"Authorization": f"Bearer {_token(home, is_closed=is_closed)}"}
    is_held = accept == "304"
    headers["Accept"] = "application/json" if is_held else accept
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        first = client.get(path)
        first.raise_for_status()
        if is_held:
            client.headers["If-None-Match"] = first.headers["etag"]
        waited, began = [], _cpu_seconds(process.pid)
        for _ in range(TIMES):
            start = time.perf_counter()
            answer = client.get(path)
            waited.append(time.perf_counter() - start)
        if answer.status_code != (304 if is_held else 200):
            raise MeasureError(f"{path}: {answer.status_code} {answer.text[:500]}")
        cpu = (_cpu_seconds(process.pid) - began) / TIMES
    found = len(answer.json().get("values", ())) if accept == "application/json" else _arrow_rows(answer, accept)
    return cpu, statistics.median(waited), statistics.quantiles(waited, n=20)[-1], len(answer.content), found


def _arrow_rows(answer: httpx.Response, accept: str) -> int:
    import pyarrow as pa

    return int(pa.ipc.open_stream(answer.content).read_all().num_rows) if accept == ARROW else 0


def _token(home: Path, *, is_closed: bool) -> str:
    """A token of somebody with a grant on everything, with the policy on or off."""
    now = datetime.now(UTC)
    store = open_store(Settings(home=home))
    made = new_token("li", created_by="benchmark", now=now)
    with store.writing() as connection:
        add_token(connection, made.row)
        rows.disable(connection)
        if is_closed:
            rows.enable(connection, "li", now=now)
            if not rows.grants(connection):
                rows.add_grant(
                    connection,
                    {
                        "subject_kind": "person", "subject": "li", "actions": ["read"], "selectors": [["all", ""]],
                        "slices": {}, "level": "banded", "starts_at": None, "expires_at": None, "granted_by": "li",
                        "granted_at": now, "reason": "benchmark",
                    },
                )  # fmt: skip
    store.close()
    return made.text


def _cpu_seconds(process: int) -> float:
    """User and system time of a running process (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


BENCHMARK = Benchmark(
    "api",
    "The HTTP API",
    f"`metrics api serve` in a process of its own: {SHOWN_DAYS} days of {MEMBERS} slices, and smaller answers.",
    run,
)
