{{ config(event_time='promised_local_at') }}

select
    shipment_id,
    order_id,
    coalesce(warehouse, 'unknown') as warehouse,
    coalesce(region, 'unknown') as region,
    coalesce(carrier, 'unknown') as carrier,
    delivered_at is null or delivered_at > promised_at as is_late,
    promised_at,
    promised_local_at
from {{ ref('stg_raw__shipments') }}
