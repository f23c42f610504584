{{ config(event_time='started_local_at') }}

select
    session_id,
    visitor_id,
    coalesce(region, 'unknown') as region,
    coalesce(channel, 'unknown') as channel,
    coalesce(segment, 'unknown') as segment,
    coalesce(campaign_id, 'none') as campaign,
    page_views,
    is_bounced,
    started_at,
    started_local_at
from {{ ref('stg_raw__sessions') }}
