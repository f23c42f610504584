{{ config(event_time='viewed_local_at') }}

select
    views.view_id,
    views.product_id as sku,
    coalesce(products.category, 'unknown') as category,
    coalesce(views.region, 'unknown') as region,
    coalesce(views.channel, 'unknown') as channel,
    views.viewed_at,
    views.viewed_local_at
from {{ ref('stg_raw__product_views') }} as views
left join {{ ref('dim_products') }} as products
    on views.product_id = products.product_id
