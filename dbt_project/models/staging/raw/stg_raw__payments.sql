{{ config(event_time='paid_local_at') }}

select
    payment_id,
    order_id,
    paid_at,
    ordered_at,
    payment_method,
    is_successful,
    amount,
    {{ shop_time('paid_at') }} as paid_local_at
from {{ source('raw', 'payments') }}
