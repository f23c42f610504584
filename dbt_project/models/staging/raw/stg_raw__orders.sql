{{ config(event_time='ordered_local_at') }}

select
    order_id,
    ordered_at,
    customer_id,
    session_id,
    region,
    channel,
    segment,
    campaign_id,
    payment_method,
    items_amount,
    discount_amount,
    freight_amount,
    {{ shop_time('ordered_at') }} as ordered_local_at
from {{ source('raw', 'orders') }}
