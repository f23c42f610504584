select
    campaign_id,
    name,
    coalesce(ad_channel, 'unknown') as ad_channel
from {{ ref('stg_raw__campaigns') }}
