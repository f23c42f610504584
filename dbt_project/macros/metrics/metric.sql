{#
  The four kinds of metric table. Each gives the metric table contract, for the window of the run:
  period_start, grain, dimension, member, numerator, denominator, value, definition_version.

  `version` is the definition version, or a list [[first day after it, version], …, [none, version]] where it changes
  with the day; `grain` is day or hour; `slices` are the dimensions kept.
#}

{#
  simple: one measure of a cube.
    settle_days   a period has its value only when so many days after it are complete as well
    fill    slices whose members get a 0 in a complete period in which nothing happened, for `fill_days` after they
            were last seen: a day on which a region stops ordering is a 0, not a gap. Sparse dimensions are left out.
#}
{% macro simple_metric(cube, measure, periods, tables, slices, fill, grain, version, settle_days=0) -%}
{%- set fill_days = 28 -%}
with seen as (

    select
        period_start,
        dimension,
        member,
        {{ measure }} as value
    from {{ cube }}
    where
        {{ in_window("period_start", days_before=fill_days) }}
        and dimension in ({{ quoted_list(slices) }})
        and {{ measure }} is not null

),
{% if fill %}
complete as ({{ complete_periods(periods, tables, grain, settle_days=settle_days) }}),

last_seen as (

    select
        period_start,
        dimension,
        member,
        lead(period_start) over (partition by dimension, member order by period_start) as next_seen,
        {{ dbt.dateadd(grain, 1, dbt.dateadd('day', fill_days, 'period_start')) }} as forgotten_at
    from seen
    where dimension in ({{ quoted_list(fill) }})

),

{# Almost every period follows the one before; only those before a gap need the join. -#}
gaps as (

    select
        period_start as last_start,
        dimension,
        member,
        least(coalesce(next_seen, forgotten_at), forgotten_at) as gap_end
    from last_seen
    where
        next_seen is null
        or next_seen > {{ dbt.dateadd(grain, 1, 'period_start') }}

),

nothing_happened as (

    select
        complete.period_start,
        gaps.dimension,
        gaps.member,
        0 as value
    from gaps
    inner join complete
        on
            gaps.last_start < complete.period_start
            and gaps.gap_end > complete.period_start

),
{% endif %}
filled as (

    select * from seen
    where {{ in_window("period_start") }}
    {%- if fill %}
    union all
    select * from nothing_happened
    {%- endif %}

)

{{ metric_rows("filled", grain, version) }}
{%- endmacro %}


{#
  ratio: numerator ÷ denominator, slice by slice. No value where the denominator is 0.
    counted   the numerator is a count or an amount, so in a complete period a slice without it is a 0
#}
{% macro ratio_metric(numerator, denominator, slices, counted, grain, version) -%}
with {{ aligned_inputs({"numerator": numerator, "denominator": denominator}, slices, ["numerator"] if counted else []) }}

select
    period_start,
    '{{ grain }}' as grain,
    dimension,
    member,
    cast(numerator as double) as numerator,
    cast(denominator as double) as denominator,
    cast(numerator / nullif(denominator, 0) as double) as value,
    {{ version_of_period(version) }} as definition_version
from aligned
where
    numerator is not null
    and denominator is not null
{%- endmacro %}


{#
  derived: an expression over other metrics.
    inputs    {name in the expression: relation}
    counted   inputs that are counts or amounts: 0 where a slice of a complete period lacks them
    days_before  inputs that are of so many days before the period
#}
{% macro derived_metric(expression, inputs, slices, counted, grain, version, days_before={}) -%}
with {{ aligned_inputs(inputs, slices, counted, days_before) }},

computed as (

    select
        period_start,
        dimension,
        member,
        {{ expression }} as value
    from aligned

)

{{ metric_rows("computed", grain, version) }}
{%- endmacro %}


{#
  The CTEs `inputs`, `known` and `aligned`: one row per period and slice with a column per input.

  A period is kept only if every input is known in it (its total has a row). One aggregation instead of a chain of
  outer joins: for slices by SKU that is several times cheaper.
#}
{% macro aligned_inputs(inputs, slices, counted, days_before={}) -%}
inputs as (
    {% for name, relation in inputs.items() %}
    {%- set age = days_before.get(name, 0) %}
    select
        '{{ name }}' as input,
        {{ dbt.dateadd('day', age, 'period_start') ~ " as " if age }}period_start,
        dimension,
        member,
        value
    from {{ relation }}
    where
        {{ in_window(dbt.dateadd('day', age, 'period_start') if age else "period_start") }}
        and dimension in ({{ quoted_list(slices) }})
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

known as (

    select period_start
    from inputs
    where dimension = 'all'
    group by period_start
    having count(distinct input) = {{ inputs | length }}

),

aligned as (

    select
        inputs.period_start,
        inputs.dimension,
        inputs.member,
        {%- for name in inputs %}
        {%- set value = "max(case when inputs.input = '" ~ name ~ "' then inputs.value end)" %}
        {{ "coalesce(" ~ value ~ ", 0)" if name in counted else value }} as {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    from inputs
    inner join known
        on inputs.period_start = known.period_start
    {%- if days_before and "sku" in slices %}
    where
        inputs.dimension <> 'sku'
        or inputs.period_start >= {{ first_sku_period(days_before=days_before.values() | max) }}
    {%- endif %}
    group by
        inputs.period_start,
        inputs.dimension,
        inputs.member

)
{%- endmacro %}


{#
  cumulative: the sum over the last `days` days, the period's own included. Given only where all of them are complete.
#}
{% macro cumulative_metric(metric, days, slices, version) -%}
with daily as (

    select period_start, dimension, member, value
    from {{ metric }}
    where
        {{ in_window("period_start", days_before=days - 1) }}
        and dimension in ({{ quoted_list(slices) }})

),

ages as (
    {% for age in range(days) %}
    select {{ age }} as age_days{{ " union all" if not loop.last }}
    {%- endfor %}

),

rolled as (

    select
        {{ dbt.dateadd('day', 'ages.age_days', 'daily.period_start') }} as period_start,
        daily.dimension,
        daily.member,
        sum(daily.value) as value
    from daily
    cross join ages
    group by 1, 2, 3

),

known as (

    select {{ dbt.dateadd('day', 'ages.age_days', 'daily.period_start') }} as period_start
    from daily
    cross join ages
    where daily.dimension = 'all'
    group by 1
    having
        count(*) = {{ days }}
        and max(case when ages.age_days = 0 then 1 else 0 end) = 1

),

complete as (

    select rolled.*
    from rolled
    inner join known
        on rolled.period_start = known.period_start
    where
        {{ in_window("rolled.period_start") }}
        and (rolled.dimension <> 'sku' or rolled.period_start >= {{ first_sku_period(days_before=days - 1) }})

)

{{ metric_rows("complete", grain="day", version=version) }}
{%- endmacro %}


{# The columns of a metric table that is not a ratio. #}
{% macro metric_rows(relation, grain, version) -%}
select
    period_start,
    '{{ grain }}' as grain,
    dimension,
    member,
    cast(value as double) as numerator,
    cast(null as double) as denominator,
    cast(value as double) as value,
    {{ version_of_period(version) }} as definition_version
from {{ relation }}
where value is not null
{%- endmacro %}


{# The version that a row carries, by its period. #}
{% macro version_of_period(version) -%}
{%- if version is string -%}
    '{{ version }}'
{%- else -%}
    case
        {%- for until, name in version if until is not none %}
        when period_start < {{ sql_timestamp(until) }} then '{{ name }}'
        {%- endfor %}
        else '{{ version[-1][1] }}'
    end
{%- endif -%}
{%- endmacro %}


{#
  A metric whose definition changed: each definition for its own days, whatever the window of the run.
    pieces   [[first day after it, SQL], …, [none, SQL]], the oldest first
#}
{% macro by_definition(pieces) -%}
{%- for until, sql in pieces %}
{%- set since = pieces[loop.index0 - 1][0] if loop.index0 else none %}
select * from (
{{ sql }}
) as definition_{{ loop.index }}
where
    {{ "period_start >= " ~ sql_timestamp(since) if since is not none else "true" }}
    {{ "and period_start < " ~ sql_timestamp(until) if until is not none }}
{% if not loop.last %}
union all
{% endif %}
{%- endfor %}
{%- endmacro %}


{% macro quoted_list(items) -%}
    {% for item in items %}'{{ item }}'{{ ", " if not loop.last }}{% endfor %}
{%- endmacro %}
