select
    product_id,
    name,
    category,
    supplier,
    unit_cost,
    list_price,
    safety_stock,
    lead_time_days,
    pack_size,
    listed_on,
    is_active
from {{ source('raw', 'products') }}
