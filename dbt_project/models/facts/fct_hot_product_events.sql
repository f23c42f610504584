{{ config(event_time='event_local_at') }}

with events as (

    select
        sku,
        category,
        1 as views,
        0 as order_lines,
        viewed_at as event_at,
        viewed_local_at as event_local_at
    from {{ ref('fct_product_views') }}

    union all

    select
        sku,
        category,
        0 as views,
        1 as order_lines,
        paid_at as event_at,
        paid_local_at as event_local_at
    from {{ ref('fct_order_items') }}

)

select
    events.sku,
    events.category,
    events.views,
    events.order_lines,
    events.event_at,
    events.event_local_at
from events
inner join {{ ref('dim_hot_products') }} as hot
    on
        events.sku = hot.sku
        and cast(date_trunc('week', events.event_local_at) as date) = hot.week_start
