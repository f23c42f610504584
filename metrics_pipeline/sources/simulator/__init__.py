"""A believable Chinese shop, made up: a source with labelled incidents, for demos, tests and benchmarks.

Walk: `calendar` (the year) and `catalogue` (what is sold) → `incidents` (what will go wrong) → per month `demand` →
`stock` → `orders` → `aftersales`, `advertising` → `write` (files) → `source` (batches). `run` holds the thread.
"""

from metrics_pipeline.sources.simulator.run import SimulationReport, simulate
from metrics_pipeline.sources.simulator.source import SimulatorSource

__all__ = ["SimulationReport", "SimulatorSource", "simulate"]
