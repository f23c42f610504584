"""`python -m metrics_pipeline.cli`: the program `metrics`."""

from metrics_pipeline.cli.app import main

main()
