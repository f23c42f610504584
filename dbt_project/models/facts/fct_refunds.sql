{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='refunded_local_at',
    batch_size=env_var('METRICS_BATCH_SIZE', 'day'),
    begin='2015-01-01',
    lookback=0
) }}

{# An order may be refunded in parts; it counts as refunded on the day of the first part. -#}
{% set parts_days = 60 -%}

with refunds as (

    select
        refund_id,
        order_id,
        ordered_at,
        product_id,
        amount,
        reason,
        refunded_at,
        refunded_local_at,
        row_number() over (partition by order_id order by refunded_at, refund_id) = 1 as is_first_refund
    from {{ ref('stg_raw__refunds').render() }}
    where {{ prune_clock('refunded_at', days_before=parts_days) }}

)

select
    refunds.refund_id,
    refunds.order_id,
    coalesce(refunds.product_id, 'unknown') as sku,
    coalesce(products.category, 'unknown') as category,
    coalesce(orders.region, 'unknown') as region,
    coalesce(orders.channel, 'unknown') as channel,
    coalesce(orders.segment, 'unknown') as segment,
    coalesce(refunds.reason, 'unknown') as reason,
    refunds.is_first_refund,
    refunds.amount,
    refunds.refunded_at,
    refunds.refunded_local_at
from refunds
left join {{ ref('stg_raw__orders').render() }} as orders
    on
        refunds.order_id = orders.order_id
        and refunds.ordered_at = orders.ordered_at
left join {{ ref('dim_products') }} as products
    on refunds.product_id = products.product_id
where {{ in_batch('refunds.refunded_local_at') }}
