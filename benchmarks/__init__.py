"""What the product costs, measured: CPU, memory and time, and how they grow with the data.

`python -m benchmarks [name …]` runs benchmarks and writes their tables into `docs/performance.md`. Each module here
that `__main__.BENCHMARKS` lists is one benchmark: its cases as functions that run in a process of their own
(`measure.py`), and one function that makes the table of them (`table.py`). Data is synthetic and made anew.
"""
