{{ config(event_time='ordered_local_at') }}

select
    order_id,
    line_no,
    ordered_at,
    product_id,
    quantity,
    unit_price,
    {{ shop_time('ordered_at') }} as ordered_local_at
from {{ source('raw', 'order_items') }}
