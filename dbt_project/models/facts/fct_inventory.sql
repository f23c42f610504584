{{ config(event_time='snapshot_local_at') }}

select
    stock.product_id as sku,
    coalesce(products.category, 'unknown') as category,
    stock.warehouse,
    stock.on_hand,
    stock.on_order,
    stock.on_hand * products.unit_cost as stock_amount,
    stock.on_hand = 0 as is_out_of_stock,
    cast(stock.snapshot_on as timestamp) as snapshot_at,
    stock.snapshot_local_at
from {{ ref('stg_raw__inventory_snapshots') }} as stock
left join {{ ref('dim_products') }} as products
    on stock.product_id = products.product_id
