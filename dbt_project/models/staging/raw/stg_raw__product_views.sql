{{ config(event_time='viewed_local_at') }}

select
    view_id,
    viewed_at,
    session_id,
    product_id,
    region,
    channel,
    {{ shop_time('viewed_at') }} as viewed_local_at
from {{ source('raw', 'product_views') }}
