{{ config(event_time='complained_local_at') }}

select
    complaints.complaint_id,
    coalesce(complaints.product_id, 'unknown') as sku,
    coalesce(products.category, 'unknown') as category,
    coalesce(complaints.region, 'unknown') as region,
    coalesce(complaints.channel, 'unknown') as channel,
    coalesce(complaints.topic, 'unknown') as topic,
    complaints.complained_at,
    complaints.complained_local_at
from {{ ref('stg_raw__complaints') }} as complaints
left join {{ ref('dim_products') }} as products
    on complaints.product_id = products.product_id
