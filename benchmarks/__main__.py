"""`python -m benchmarks [name …]`: run benchmarks and write their tables into `docs/performance.md`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import api, evaluate, incidents, library, nightly, publish, read, site, tick
from benchmarks.measure import ROOT, MeasureError
from benchmarks.table import Benchmark, write_section

BENCHMARKS: tuple[Benchmark, ...] = (
    nightly.GROWTH,
    nightly.HISTORY,
    publish.BENCHMARK,
    read.BENCHMARK,
    evaluate.BENCHMARK,
    tick.BENCHMARK,
    tick.POSTGRESQL,
    incidents.BENCHMARK,
    library.BENCHMARK,
    site.BENCHMARK,
    api.BENCHMARK,
)
"""In the order of the document. A new benchmark is a module with a `BENCHMARK`, listed here."""

DOCUMENT = ROOT / "docs" / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks (default: all); returns the exit code."""
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which ones: {', '.join(known)} (default: all that need no server)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each case; the least counts (default: 3)")
    parser.add_argument("--dry-run", action="store_true", help="print the tables, leave docs/performance.md alone")
    parser.add_argument(
        "--folder", type=Path, help="where to put the data, on a disk with some GB (default: temporary)"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown benchmark {', '.join(unknown)}; known: {', '.join(known)}")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder {options.folder}: there is no such folder; make it, or name one that is there")
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, DuckDB {version('duckdb')}"
    everywhere = [benchmark for benchmark in BENCHMARKS if not benchmark.on_request]
    for benchmark in [known[name] for name in options.names] or everywhere:
        with tempfile.TemporaryDirectory(prefix=f"benchmark-{benchmark.name}-", dir=options.folder) as folder:
            try:
                table = benchmark.run(Path(folder), options.repeat)
            except MeasureError as error:
                print(f"{benchmark.name}: {error}", file=sys.stderr)
                return 1
        print(f"{benchmark.title}\n\n{table.markdown()}\n\n{table.reading}\n")
        if not options.dry_run:
            repeat = "" if options.repeat == 3 else f" --repeat {options.repeat}"
            write_section(
                DOCUMENT, benchmark, table, machine=machine, command=f"python -m benchmarks {benchmark.name}{repeat}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
