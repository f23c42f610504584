"""How right the product is: detectors, forecasts, stock-outs and causes against known truth and against references.

`python -m benchmarks.quality [part …]` runs parts and writes their sections into `docs/quality.md`. A part is a module
with `run() -> str`, the text of its section. Parameters were chosen on development seeds; what is written down comes
from judging seeds that were not looked at before.
"""
