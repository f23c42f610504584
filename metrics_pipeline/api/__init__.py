"""A read-only HTTP door to the metric library and to published values (docs/api.md).

`app` puts it together, `routes` are its addresses. Each request passes `door`: whose token it is (`tokens`), what they
may see (the one policy), how often they may ask (`limits`), and what goes on record. `library` is what of the files is
remembered between requests, `values` reads a page, `cursors` and `tags` pin it to a version, `shapes` are parameters
and answers as the OpenAPI document tells them, `problems` the errors. `serve` runs it.
"""
