{#
  The four kinds of metric table. Each gives the metric table contract, for the window of the run:
  period_start, grain, dimension, member, numerator, denominator, value, definition_version.

  `version` is the definition version; `grain` is day or hour; `slices` are the dimensions kept.
#}

{#
  simple: one measure of a cube.
    fill    slices whose members get a 0 in a complete period in which nothing happened, for `fill_days` after they
            were last seen: a day on which a region stops ordering is a 0, not a gap. Sparse dimensions are left out.
#}
{% macro simple_metric(cube, measure, periods, tables, slices, fill, grain, version) -%}
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
complete as ({{ complete_periods(periods, tables, grain) }}),

last_seen as (

    select
        period_start,
        dimension,
        member,
        lead(period_start) over (partition by dimension, member order by period_start) as next_seen
    from seen
    where dimension in ({{ quoted_list(fill) }})

),

nothing_happened as (

    select
        complete.period_start,
        last_seen.dimension,
        last_seen.member,
        0 as value
    from last_seen
    inner join complete
        on
            last_seen.period_start < complete.period_start
            and {{ dbt.dateadd('day', fill_days, 'last_seen.period_start') }} >= complete.period_start
            and (last_seen.next_seen is null or complete.period_start < last_seen.next_seen)

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
with numerators as (

    select period_start, dimension, member, value
    from {{ numerator }}
    where {{ in_window("period_start") }}

),

denominators as (

    select period_start, dimension, member, value
    from {{ denominator }}
    where
        {{ in_window("period_start") }}
        and dimension in ({{ quoted_list(slices) }})

),

{{ known_periods("numerators") }}

paired as (

    select
        denominators.period_start,
        denominators.dimension,
        denominators.member,
        {{ "coalesce(numerators.value, 0)" if counted else "numerators.value" }} as numerator,
        denominators.value as denominator
    from denominators
    inner join numerators_known
        on denominators.period_start = numerators_known.period_start
    left join numerators
        on
            denominators.period_start = numerators.period_start
            and denominators.dimension = numerators.dimension
            and denominators.member = numerators.member

)

select
    period_start,
    '{{ grain }}' as grain,
    dimension,
    member,
    cast(numerator as double) as numerator,
    cast(denominator as double) as denominator,
    cast(numerator / nullif(denominator, 0) as double) as value,
    '{{ version }}' as definition_version
from paired
where numerator is not null
{%- endmacro %}


{#
  derived: an expression over other metrics.
    inputs    {name in the expression: relation}
    counted   inputs that are counts or amounts: 0 where a slice of a complete period lacks them
#}
{% macro derived_metric(expression, inputs, slices, counted, grain, version) -%}
with
{%- for name, relation in inputs.items() %}
input_{{ name }} as (

    select period_start, dimension, member, value
    from {{ relation }}
    where
        {{ in_window("period_start") }}
        and dimension in ({{ quoted_list(slices) }})

),

{{ known_periods("input_" ~ name) }}
{% endfor %}
slices as (
    {% for name in inputs %}
    select period_start, dimension, member from input_{{ name }}
    {%- if not loop.last %}
    union
    {%- endif %}
    {%- endfor %}

),

aligned as (

    select
        slices.period_start,
        slices.dimension,
        slices.member,
        {%- for name in inputs %}
        {% if name in counted %}coalesce(input_{{ name }}.value, 0){% else %}input_{{ name }}.value{% endif %} as {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    from slices
    {%- for name in inputs %}
    inner join input_{{ name }}_known
        on slices.period_start = input_{{ name }}_known.period_start
    left join input_{{ name }}
        on
            slices.period_start = input_{{ name }}.period_start
            and slices.dimension = input_{{ name }}.dimension
            and slices.member = input_{{ name }}.member
    {%- endfor %}

),

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
    where {{ in_window("rolled.period_start") }}

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
    '{{ version }}' as definition_version
from {{ relation }}
where value is not null
{%- endmacro %}


{# Periods in which an input is known at all: its total has a row. #}
{% macro known_periods(relation) -%}
{{ relation }}_known as (

    select distinct period_start
    from {{ relation }}
    where dimension = 'all'

),
{%- endmacro %}


{% macro quoted_list(items) -%}
    {% for item in items %}'{{ item }}'{{ ", " if not loop.last }}{% endfor %}
{%- endmacro %}
