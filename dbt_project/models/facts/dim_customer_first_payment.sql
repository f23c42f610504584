{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='customer_id') }}

with first_of_window as (

    select
        orders.customer_id,
        min(payments.paid_local_at) as first_paid_local_at
    from {{ ref('stg_raw__payments') }} as payments
    inner join {{ ref('stg_raw__orders') }} as orders
        on
            payments.order_id = orders.order_id
            and payments.ordered_at = orders.ordered_at
    where
        payments.is_successful
        and {{ prune_clock('payments.paid_at') }}
        and {{ in_window('payments.paid_local_at') }}
    group by orders.customer_id

)

{# Kept where the customer is not known yet, or was thought to have paid first at a later time. -#}
{% if is_incremental() %}

    select
        first_of_window.customer_id,
        first_of_window.first_paid_local_at
    from first_of_window
    left join {{ this }} as known
        on first_of_window.customer_id = known.customer_id
    where
        known.customer_id is null
        or first_of_window.first_paid_local_at < known.first_paid_local_at

{% else %}

    select
        customer_id,
        first_paid_local_at
    from first_of_window

{% endif %}
