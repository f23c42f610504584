{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    event_time='paid_local_at',
    batch_size=env_var('METRICS_BATCH_SIZE', 'day'),
    begin='2015-01-01',
    lookback=0
) }}

{# An order may be paid in parts over a few days; the first part makes it a paid order. -#}
{% set parts_days = 30 -%}

with successful as (

    select
        payment_id,
        order_id,
        ordered_at,
        payment_method,
        amount,
        paid_at,
        paid_local_at,
        row_number() over (partition by order_id order by paid_at, payment_id) = 1 as is_first_payment
    from {{ ref('stg_raw__payments').render() }}
    where
        is_successful
        and {{ prune_clock('paid_at', days_before=parts_days) }}

)

select
    payments.payment_id,
    payments.order_id,
    orders.customer_id,
    coalesce(orders.region, 'unknown') as region,
    coalesce(orders.channel, 'unknown') as channel,
    coalesce(orders.segment, 'unknown') as segment,
    coalesce(payments.payment_method, 'unknown') as payment_method,
    coalesce(orders.campaign_id, 'none') as campaign,
    coalesce(campaigns.ad_channel, 'none') as ad_channel,
    payments.is_first_payment,
    cast(first_payment.first_paid_local_at as date) = cast(payments.paid_local_at as date) as is_new_buyer,
    payments.amount,
    payments.ordered_at,
    payments.paid_at,
    payments.paid_local_at
from successful as payments
inner join {{ ref('stg_raw__orders').render() }} as orders
    on
        payments.order_id = orders.order_id
        and payments.ordered_at = orders.ordered_at
left join {{ ref('dim_customer_first_payment') }} as first_payment
    on orders.customer_id = first_payment.customer_id
left join {{ ref('dim_campaigns') }} as campaigns
    on orders.campaign_id = campaigns.campaign_id
where {{ in_batch('payments.paid_local_at') }}
