{# The schema of a model is its layer, without the target's prefix: `base.orders_paid`, not `main_base.orders_paid`. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
