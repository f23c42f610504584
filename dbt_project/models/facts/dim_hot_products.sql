{{ config(materialized='incremental', incremental_strategy='replace_hot_weeks') }}

{# How many SKUs are hot in a week, and over how many days before it their sales are summed. -#}
{% set hot_count = 100 -%}
{% set days_of_sales = 28 -%}

with sales as (

    select
        sku,
        cast(date_trunc('week', paid_local_at) as date) as sold_week,
        sum(quantity) as units
    from {{ ref('fct_order_items') }}
    where
        {{ prune_clock('paid_at', days_before=days_of_sales + 7) }}
        and paid_local_at < {{ window_end() }}
    group by sku, sold_week

),

weeks as (

    -- The weeks that have a day in the window: those that replace_hot_weeks takes away, and no others.
    select distinct cast(date_trunc('week', date_day) as date) as week_start
    from {{ ref('dim_days') }}
    where {{ in_window("date_trunc('week', date_day)", days_before=6) }}

),

ranked as (

    select
        weeks.week_start,
        sales.sku,
        sum(sales.units) as units,
        row_number() over (
            partition by weeks.week_start
            order by sum(sales.units) desc, sales.sku
        ) as hot_rank
    from weeks
    inner join sales
        on
            weeks.week_start > sales.sold_week
            and weeks.week_start <= {{ dbt.dateadd('day', days_of_sales, 'sales.sold_week') }}
    group by weeks.week_start, sales.sku

)

select
    week_start,
    sku,
    units,
    hot_rank
from ranked
where hot_rank <= {{ hot_count }}
