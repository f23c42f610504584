select
    product_id,
    name,
    coalesce(category, 'unknown') as category,
    supplier,
    unit_cost,
    list_price,
    safety_stock,
    lead_time_days
from {{ ref('stg_raw__products') }}
