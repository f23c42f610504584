"""How good detection, forecasts and diagnosis are: `python -m benchmarks.quality <part>` writes `docs/quality.md`."""
