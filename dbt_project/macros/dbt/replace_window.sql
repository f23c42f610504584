{#
  Incremental strategy `replace_window`: the rows of the run's window are replaced, all others stay.

  One statement for the whole window, where microbatch needs one a day: metric tables are small, so the
  statement count is what they cost. A value that vanished from the window is deleted with it.
#}
{% macro get_incremental_replace_window_sql(arg_dict) -%}
    {%- set columns = arg_dict["dest_columns"] | map(attribute="quoted") | join(", ") -%}
    delete from {{ arg_dict["target_relation"] }}
    where {{ in_window("period_start") }};

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict["temp_relation"] }};
{%- endmacro %}

{# The same for `dim_hot_products`, whose rows belong to weeks: every week that the window touches is replaced. #}
{% macro get_incremental_replace_hot_weeks_sql(arg_dict) -%}
    {%- set columns = arg_dict["dest_columns"] | map(attribute="quoted") | join(", ") -%}
    delete from {{ arg_dict["target_relation"] }}
    where {{ in_window("week_start", days_before=6) }};

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict["temp_relation"] }};
{%- endmacro %}
