select
    customer_id,
    registered_at,
    region,
    city,
    segment
from {{ source('raw', 'customers') }}
