"""Metric alerting for e-commerce, in the order of the data.

sources → warehouse (raw, build, publish, read) → library (definitions) → rules and detection → alerts (state)
→ delivery (outbox, channels); `store` keeps operational state; `orchestration` and `cli` are the doors.
"""
