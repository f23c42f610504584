{{ config(event_time='spent_local_at') }}

select
    spent_on,
    ad_channel,
    campaign_id,
    impressions,
    clicks,
    spend_amount,
    attributed_amount,
    cast(spent_on as timestamp) as spent_local_at
from {{ source('raw', 'ad_spend') }}
