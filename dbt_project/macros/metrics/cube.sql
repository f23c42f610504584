{#
  One business process summed over its slices, by day or by hour.

  cube()          additive measures: all slices in one GROUPING SETS pass over the fact, those by SKU in a second one
                  over its newest days only (METRICS_SKU_DAYS)
  distinct_cube() distinct counts, one group-by a slice: inside GROUPING SETS an exact distinct count costs
                  several times everything else. `METRICS_DISTINCT=approximate` counts with HyperLogLog instead.

  Both give one row per (period_start, dimension, member) with a column per measure, for complete periods only.
    fact      relation of the fact, with the columns of `slices`
    clock     its UTC clock, which scans prune by;  local_clock  the shop-local one, which periods are cut by
    tables    raw tables that must be complete;     periods      dim_complete_periods
    measures  {name: aggregate SQL};                slices       ['all', 'region', 'region|channel']
#}
{% macro cube(fact, clock, local_clock, grain, measures, slices, tables, periods) -%}
{%- set by_sku = slices | select("equalto", "sku") | list -%}
{%- set others = slices | reject("equalto", "sku") | list -%}
{%- set columns = slice_columns(others) -%}
{%- set period = "date_trunc('" ~ grain ~ "', " ~ local_clock ~ ")" -%}
with grouped as (

    select
        {{ period }} as period_start,
        {%- for column in columns %}
        {{ column }},
        grouping({{ column }}) as without_{{ column }},
        {%- endfor %}
        {%- for name, expression in measures.items() %}
        {{ expression }} as {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ fact }}
    where {{ prune_clock(clock) }}
    group by grouping sets (
        {%- for slice in others %}
        ({{ ([period] + slice_columns([slice])) | join(", ") }}){{ "," if not loop.last }}
        {%- endfor %}
    )

),
{% if by_sku %}
by_sku as (

    select
        {{ period }} as period_start,
        sku,
        {%- for name, expression in measures.items() %}
        {{ expression }} as {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ fact }}
    where
        {{ prune_clock(clock) }}
        and {{ local_clock }} >= {{ first_sku_period() }}
    group by 1, 2

),
{% endif %}
complete as ({{ complete_periods(periods, tables, grain) }})

select
    cast(grouped.period_start as timestamp) as period_start,
    case
        {%- for slice in others if slice != 'all' %}
        when
            {%- for column in columns %}
            {{ "and " if not loop.first }}grouped.without_{{ column }} = {{ 0 if column in slice.split('|') else 1 }}
            {%- endfor %}
            then '{{ slice }}'
        {%- endfor %}
        else 'all'
    end as dimension,
    case
        {%- for slice in others if slice != 'all' %}
        when
            {%- for column in columns %}
            {{ "and " if not loop.first }}grouped.without_{{ column }} = {{ 0 if column in slice.split('|') else 1 }}
            {%- endfor %}
            then {{ member_of(slice, 'grouped') }}
        {%- endfor %}
        else 'all'
    end as member,
    {%- for name in measures %}
    cast(grouped.{{ name }} as double) as {{ name }}{{ "," if not loop.last }}
    {%- endfor %}
from grouped
inner join complete
    on grouped.period_start = complete.period_start
{%- if by_sku %}

union all

select
    cast(by_sku.period_start as timestamp) as period_start,
    'sku' as dimension,
    by_sku.sku as member,
    {%- for name in measures %}
    cast(by_sku.{{ name }} as double) as {{ name }}{{ "," if not loop.last }}
    {%- endfor %}
from by_sku
inner join complete
    on by_sku.period_start = complete.period_start
{%- endif %}
{%- endmacro %}


{#
  The first period for which a run builds slices by SKU, `days_before` of them being needed to build one.

  Tens of thousands of members a day are most of what a long backfill costs, and no rule looks back further. A nightly
  window is shorter than this, so SKU slices grow from night to night like all others.
#}
{% macro first_sku_period(days_before=0) -%}
    {%- if invocation_args_dict.get("event_time_end") -%}
        {{ window_end() }} - interval '{{ env_var("METRICS_SKU_DAYS", "92") | int - days_before }}' day
    {%- else -%}
        {{ window_start() }}
    {%- endif -%}
{%- endmacro %}


{% macro distinct_cube(fact, clock, local_clock, grain, measures, slices, tables, periods) -%}
{%- set approximate = env_var("METRICS_DISTINCT", "exact") == "approximate" -%}
with fact as (

    select
        cast(date_trunc('{{ grain }}', {{ local_clock }}) as timestamp) as period_start,
        {%- for column in slice_columns(slices) %}
        {{ column }},
        {%- endfor %}
        {%- for name, expression in measures.items() %}
        {{ expression }} as {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ fact }}
    where {{ prune_clock(clock) }}

),

complete as ({{ complete_periods(periods, tables, grain) }}),

counted as (
    {%- for slice in slices %}

    select
        period_start,
        '{{ slice }}' as dimension,
        {{ member_of(slice, 'fact') if slice != 'all' else "'all'" }} as member,
        {%- for name in measures %}
        cast({{ "approx_count_distinct(" if approximate else "count(distinct " }}{{ name }}) as double) as {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    from fact
    group by {{ (["period_start"] + slice_columns([slice])) | join(", ") }}
    {% if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}

)

select counted.*
from counted
inner join complete
    on counted.period_start = complete.period_start
{%- endmacro %}


{# The columns that slices are made of, in the order in which they first appear; none for 'all'. #}
{% macro slice_columns(slices) -%}
    {%- set columns = [] -%}
    {%- for slice in slices if slice != 'all' -%}
        {%- for column in slice.split('|') if column not in columns -%}
            {%- do columns.append(column) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}


{# The member of one row in a slice: the column, or both columns joined by a bar. #}
{% macro member_of(slice, relation) -%}
    {%- set columns = slice.split('|') -%}
    {%- if columns | length == 1 -%}
        {{ relation }}.{{ columns[0] }}
    {%- else -%}
        concat({% for column in columns %}{{ relation }}.{{ column }}{{ ", '|', " if not loop.last }}{% endfor %})
    {%- endif -%}
{%- endmacro %}


{# Periods of the window for which every one of `tables` is complete. #}
{% macro complete_periods(periods, tables, grain, days_before=0) %}

    select period_start
    from {{ periods }}
    where
        grain = '{{ grain }}'
        and table_name in ({% for table in tables %}'{{ table }}'{{ ", " if not loop.last }}{% endfor %})
        and {{ in_window("period_start", days_before) }}
    group by period_start
    having count(distinct table_name) = {{ tables | length }}
{% endmacro %}
