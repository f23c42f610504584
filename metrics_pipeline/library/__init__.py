"""The metric library: definitions as semantic-layer YAML, the models generated from them, and the catalogue.

`definitions` reads the YAML, `catalogue` resolves it (inputs, slices, versions, what a source lacks), `compile` writes
the generated dbt models, `lint` finds what is missing.
"""
