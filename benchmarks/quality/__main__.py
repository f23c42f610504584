"""`python -m benchmarks.quality panel|hourly|forecast|stockout|causes`: run parts, write `docs/quality.md`."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path

PARTS = {
    "panel": "benchmarks.quality.panel",
    "hourly": "benchmarks.quality.hourly",
    "forecast": "benchmarks.quality.forecast",
    "stockout": "benchmarks.quality.stockout",
    "causes": "benchmarks.quality.causes",
}
"""Name → module with `run() -> str`, or `run(options)` for options of its own; imported only when it is asked for."""
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "quality.md"


def main(arguments: list[str] | None = None) -> int:
    """Run the named parts (default: all that there are); returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="part", help=f"which ones: {', '.join(PARTS)}")
    parser.add_argument("--print", action="store_true", help="print the sections and leave the document alone")
    given, rest = parser.parse_known_args(arguments)
    if unknown := [name for name in given.names if name not in PARTS]:
        parser.error(f"{', '.join(unknown)}: not a part; there are {', '.join(PARTS)}")
    for name in given.names or PARTS:
        try:
            part = importlib.import_module(PARTS[name])
        except ModuleNotFoundError as error:
            if error.name != PARTS[name]:
                raise
            sys.stderr.write(f"{name}: there is no such benchmark yet\n")
            continue
        text = part.run(rest) if rest else part.run()
        if given.print:
            sys.stdout.write(text + "\n")
        else:
            write_section(name, text)
    return 0


def write_section(name: str, text: str) -> None:
    """Replace the section between its marks, or add it at the end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = DOCUMENT.read_text("utf-8") if DOCUMENT.exists() else "# Quality\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    whole = pattern.sub(lambda _: section, whole) if pattern.search(whole) else f"{whole.rstrip()}\n\n{section}\n"
    DOCUMENT.write_text(whole, "utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
