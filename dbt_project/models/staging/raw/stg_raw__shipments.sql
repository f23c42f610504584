{{ config(event_time='promised_local_at') }}

select
    shipment_id,
    order_id,
    promised_at,
    shipped_at,
    delivered_at,
    warehouse,
    region,
    carrier,
    {{ shop_time('promised_at') }} as promised_local_at
from {{ source('raw', 'shipments') }}
