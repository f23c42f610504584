{{ config(event_time='spent_local_at') }}

select
    ad_channel,
    campaign_id as campaign,
    impressions,
    clicks,
    spend_amount,
    cast(spent_on as timestamp) as spent_at,
    spent_local_at
from {{ ref('stg_raw__ad_spend') }}
