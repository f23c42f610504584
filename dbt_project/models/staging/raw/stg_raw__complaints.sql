{{ config(event_time='complained_local_at') }}

select
    complaint_id,
    complained_at,
    order_id,
    product_id,
    region,
    channel,
    topic,
    {{ shop_time('complained_at') }} as complained_local_at
from {{ source('raw', 'complaints') }}
