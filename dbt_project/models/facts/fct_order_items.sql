{{ config(event_time='paid_local_at') }}

select
    payments.order_id,
    items.line_no,
    items.product_id as sku,
    coalesce(products.category, 'unknown') as category,
    payments.region,
    payments.channel,
    payments.segment,
    items.quantity,
    items.quantity * items.unit_price as item_amount,
    items.quantity * products.unit_cost as cost_amount,
    payments.paid_at,
    payments.paid_local_at
from {{ ref('fct_payments') }} as payments
inner join {{ ref('stg_raw__order_items') }} as items
    on
        payments.order_id = items.order_id
        and payments.ordered_at = items.ordered_at
left join {{ ref('dim_products') }} as products
    on items.product_id = products.product_id
where payments.is_first_payment
