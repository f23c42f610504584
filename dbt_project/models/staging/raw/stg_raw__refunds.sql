{{ config(event_time='refunded_local_at') }}

select
    refund_id,
    refunded_at,
    order_id,
    ordered_at,
    product_id,
    amount,
    reason,
    {{ shop_time('refunded_at') }} as refunded_local_at
from {{ source('raw', 'refunds') }}
