select
    campaign_id,
    name,
    ad_channel,
    starts_on,
    ends_on,
    budget_amount
from {{ source('raw', 'campaigns') }}
