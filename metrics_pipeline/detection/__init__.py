"""What a value should have been: one detector per file, each a few SQL expressions that judge all series at once.

`seasonal` (same weekday, level-adjusted, with a noise floor), `quantile` (of history), `change` (against earlier
periods). The calendar of days that are no baseline: `promotions` (a day of it, and arrays over days), `occasions` (events
that return by rule), `public_holidays`, `own_calendar`, `campaign_days`, `inferred` (promotions nobody entered). Detectors on
arrays: `change_point` (since when), `completeness` (are the data what they seem), `isolation` (a slice's metrics together). A detector reads three relations —

    specs   (spec_no, family, …parameters): what is asked of which metric, dimension and grain
    tested  (spec_no, series_no, period_start, day_no, slot_hour, value, n, d): the values to judge
    points  (series_no, period_start, grain, day_no, slot_hour, value, n, d, is_event): their history

— and yields `(spec_no, series_no, period_start, baseline, scale)`: the observed number is `(value - baseline) / scale`,
and a threshold t on it is the bound `baseline + t * scale` in the metric's own unit. `n / d` is the value as events by
exposure (numerator and denominator of a ratio; the value and 1 otherwise). `is_event` marks days that are no baseline.
`day_no` counts days from 1970-01-01; `slot_hour` is the hour of day for hourly values and 0 for daily ones. The tested
period is never in its own history.
"""
