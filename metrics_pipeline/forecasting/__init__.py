"""What comes next: forecasts of metrics, and of the day on which a SKU is sold out.

One interface, set-based over all series: a `Panel` (series × days, NaN = missing) and the `Days` of the calendar go in,
a `Forecast` (mean, quantiles and paths, series × days ahead) comes out.

    panel       published values → matrix
    days        the promotion calendar as arrays
    smoothing   exponential smoothing (ANA) of all series at once
    lifts       what promotions add: learned, taken away before smoothing, put back
    ets         the model of the nightly run: smoothing + lifts + conformal intervals
    boosting    one global quantile model over all series (slower, a little better; benchmarks say where)
    backtest    rolling origins and the scores by which forecasts are judged
    stored      forecasts as Parquet behind one pointer
    judged      `forecast(...)` in rules: what was known at the end of each judged day
    supply      stock, deliveries under way, demand freed of sold-out days
    stockout    the chance that a SKU is sold out, day by day
    replenish   what to order, and by when
    outlook     both in one row per SKU in danger, for messages and advice

A forecast never sees a day after its origin. Nothing here knows Dagster or a policy: whoever shows a forecast reads
its values through the reader of the person who looks.
"""
