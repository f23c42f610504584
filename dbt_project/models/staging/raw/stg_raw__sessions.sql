{{ config(event_time='started_local_at') }}

select
    session_id,
    started_at,
    visitor_id,
    customer_id,
    region,
    channel,
    segment,
    campaign_id,
    page_views,
    is_bounced,
    {{ shop_time('started_at') }} as started_local_at
from {{ source('raw', 'sessions') }}
