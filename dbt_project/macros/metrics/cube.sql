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


{#
  Events that followed an event of another fact, of the same entity, within some days: counted in the period and the
  slices of the event they followed, the last one before them. Hours are compared, as the semantic layer does. A period
  has a row when its days of waiting are complete, so no number changes because its window was still open.

    base, converted   fact, clock (UTC), local_clock, entity (joins the two), key (one row of the fact)
    measure           what is counted of `converted`, each value once when `distinct`
    days              length of the window
#}
{% macro conversion_cube(base, converted, measure, distinct, days, slices, tables, periods) -%}
{%- set columns = slice_columns(slices) -%}
{#- Both facts are read around the batch's own filter: what follows, and a later beginning of it, may lie after the batch. #}
with begun as (

    select
        {{ base.entity }} as entity,
        {{ base.key }} as event_key,
        {{ base.local_clock }} as begun_at,
        date_trunc('hour', {{ base.local_clock }}) as begun_hour
        {%- for column in columns %},
        {{ column }}
        {%- endfor %}
    from {{ base.fact.render() }}
    where {{ prune_clock(base.clock, days_after=days) }}

),

followed as (

    select
        {{ converted.entity }} as entity,
        {{ converted.key }} as event_key,
        {{ measure }} as counted,
        date_trunc('hour', {{ converted.local_clock }}) as followed_hour
    from {{ converted.fact.render() }}
    where {{ prune_clock(converted.clock, days_after=days) }}

),

{# Of several beginnings an event follows the last. -#}
attributed as (

    select
        begun.*,
        followed.counted,
        row_number() over (
            partition by followed.event_key
            order by begun.begun_at desc, begun.event_key
        ) as place
    from followed
    inner join begun
        on
            followed.entity = begun.entity
            and begun.begun_hour <= followed.followed_hour
            and {{ dbt.dateadd('day', days, 'begun.begun_hour') }} > followed.followed_hour

),

counted as (
    {%- for slice in slices %}

    select
        cast(date_trunc('day', begun_at) as timestamp) as period_start,
        '{{ slice }}' as dimension,
        {{ member_of(slice, 'attributed') if slice != 'all' else "'all'" }} as member,
        cast(count({{ "distinct " if distinct }}counted) as double) as conversions
    from attributed
    where
        place = 1
        and {{ in_batch("begun_at") }}
    group by 1, 2, 3
    {% if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}

),

complete as ({{ complete_periods(periods, tables, "day", settle_days=days) }})

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


{# Periods of the window for which every one of `tables` is complete; with `settle_days` these days after them, too. #}
{% macro complete_periods(periods, tables, grain, days_before=0, settle_days=0) %}
{%- if settle_days %}

    select begun.period_start
    from {{ periods }} as begun
    inner join {{ periods }} as later
        on
            begun.grain = later.grain
            and begun.table_name = later.table_name
            and begun.period_start <= later.period_start
            and {{ dbt.dateadd('day', settle_days, 'begun.period_start') }} >= later.period_start
    where
        begun.grain = '{{ grain }}'
        and begun.table_name in ({% for table in tables %}'{{ table }}'{{ ", " if not loop.last }}{% endfor %})
        and {{ in_window("begun.period_start", days_before) }}
    group by begun.period_start
    having count(*) = {{ tables | length * (settle_days + 1) }}
{% else %}

    select period_start
    from {{ periods }}
    where
        grain = '{{ grain }}'
        and table_name in ({% for table in tables %}'{{ table }}'{{ ", " if not loop.last }}{% endfor %})
        and {{ in_window("period_start", days_before) }}
    group by period_start
    having count(distinct table_name) = {{ tables | length }}
{% endif -%}
{% endmacro %}
