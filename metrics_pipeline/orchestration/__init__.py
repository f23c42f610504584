"""The only package that knows Dagster: one module per Dagster concept, each a thin call into the packages below.

`pipeline` is the heavy code location (raw, dbt, publish, rules, alerts), `notify` the light one (sensors and the
delivery job). `in_process` runs their jobs inside the calling process, which is what the command line does.
"""
