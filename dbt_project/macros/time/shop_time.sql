{#
  Between UTC and the shop's wall clock. Days and hours of every metric are the shop's, daylight saving included.
  The zone comes with the installation (`METRICS_TIMEZONE`).
#}
{% macro shop_time(column) -%}
    {{ return(adapter.dispatch("shop_time")(column)) }}
{%- endmacro %}

{% macro default__shop_time(column) -%}
    timezone('{{ shop_timezone() }}', timezone('UTC', {{ column }}))
{%- endmacro %}

{% macro spark__shop_time(column) -%}
    from_utc_timestamp({{ column }}, '{{ shop_timezone() }}')
{%- endmacro %}

{# The UTC moment of a shop-local wall clock reading. #}
{% macro utc_time(column) -%}
    {{ return(adapter.dispatch("utc_time")(column)) }}
{%- endmacro %}

{% macro default__utc_time(column) -%}
    timezone('UTC', timezone('{{ shop_timezone() }}', {{ column }}))
{%- endmacro %}

{% macro spark__utc_time(column) -%}
    to_utc_timestamp({{ column }}, '{{ shop_timezone() }}')
{%- endmacro %}

{% macro shop_timezone() -%}
    {{ env_var("METRICS_TIMEZONE", "Asia/Shanghai") }}
{%- endmacro %}
