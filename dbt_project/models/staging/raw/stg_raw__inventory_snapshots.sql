{{ config(event_time='snapshot_local_at') }}

select
    snapshot_on,
    product_id,
    warehouse,
    on_hand,
    on_order,
    cast(snapshot_on as timestamp) as snapshot_local_at
from {{ source('raw', 'inventory_snapshots') }}
