{{ config(materialized='incremental', incremental_strategy='replace_window') }}

{#
  Which days and hours are complete for which raw table. A metric has a value only in complete periods.
  An hour that daylight saving skips does not exist, so it is not complete either.
#}
with days as (

    select cast(date_day as timestamp) as period_start
    from {{ ref('dim_days') }}
    where {{ in_window('date_day') }}

),

hours_of_day as (

    {% for hour in range(24) -%}
        select {{ hour }} as hour_of_day
        {% if not loop.last %}union all{% endif %}
    {% endfor %}

),

hours as (

    select {{ dbt.dateadd('hour', 'hours_of_day.hour_of_day', 'days.period_start') }} as period_start
    from days
    cross join hours_of_day

),

periods as (

    select
        'day' as grain,
        period_start,
        {{ dbt.dateadd('day', 1, 'period_start') }} as period_end
    from days

    union all

    select
        'hour' as grain,
        period_start,
        {{ dbt.dateadd('hour', 1, 'period_start') }} as period_end
    from hours
    where {{ shop_time(utc_time('period_start')) }} = period_start

)

select
    coverage.table_name,
    periods.grain,
    periods.period_start
from periods
inner join {{ ref('stg_raw__coverage') }} as coverage
    on
        periods.period_start >= coverage.covered_from_local
        and periods.period_end <= coverage.covered_until_local
