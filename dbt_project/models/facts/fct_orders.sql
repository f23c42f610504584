{{ config(event_time='ordered_local_at') }}

select
    orders.order_id,
    orders.customer_id,
    coalesce(orders.region, 'unknown') as region,
    coalesce(orders.channel, 'unknown') as channel,
    coalesce(orders.segment, 'unknown') as segment,
    coalesce(orders.payment_method, 'unknown') as payment_method,
    coalesce(orders.campaign_id, 'none') as campaign,
    orders.items_amount,
    first_payment.first_paid_local_at is null
    or first_payment.first_paid_local_at >= orders.ordered_local_at as is_new_buyer,
    orders.ordered_at,
    orders.ordered_local_at
from {{ ref('stg_raw__orders') }} as orders
left join {{ ref('dim_customer_first_payment') }} as first_payment
    on orders.customer_id = first_payment.customer_id
