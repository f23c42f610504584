{#
  The window of a run, in shop-local time, from `--event-time-start` / `--event-time-end`.

  Without the two options (a bare `dbt build` of a new installation) the window is all of history.
  They are read at run time, so another window needs no new parse.
#}
{% macro window_start(days_before=0) -%}
    {%- set start = invocation_args_dict.get("event_time_start") or "2000-01-01 00:00:00" -%}
    {{ sql_timestamp(start) }}{% if days_before %} - interval '{{ days_before }}' day{% endif %}
{%- endmacro %}

{% macro window_end() -%}
    {{ sql_timestamp(invocation_args_dict.get("event_time_end") or "2100-01-01 00:00:00") }}
{%- endmacro %}

{% macro in_window(column, days_before=0) -%}
    {{ column }} >= {{ window_start(days_before) }} and {{ column }} < {{ window_end() }}
{%- endmacro %}

{% macro sql_timestamp(value) -%}
    cast('{{ (value | string)[:19] }}' as timestamp)
{%- endmacro %}

{#
  A bound on a UTC clock that a scan can prune by, for the batch or window that is being built.

  The exact filter is on the shop-local clock, which is an expression: no zone map helps it. No shop is more than
  14 hours from UTC, so a day on either side is wide enough. `days_before` and `days_after` widen it for what looks back or ahead.
#}
{% macro prune_clock(column, days_before=0, days_after=0) -%}
    {%- if model.batch -%}
        {{ column }} >= {{ sql_timestamp(model.batch.event_time_start) }} - interval '{{ days_before + 1 }}' day
        and {{ column }} < {{ sql_timestamp(model.batch.event_time_end) }} + interval '{{ days_after + 1 }}' day
    {%- else -%}
        {{ column }} >= {{ window_start(days_before + 1) }}
        and {{ column }} < {{ window_end() }} + interval '{{ days_after + 1 }}' day
    {%- endif -%}
{%- endmacro %}

{# The exact filter of a microbatch model on a shop-local clock, for rows that were read with a look-back. #}
{% macro in_batch(column) -%}
    {%- if model.batch -%}
        {{ column }} >= {{ sql_timestamp(model.batch.event_time_start) }}
        and {{ column }} < {{ sql_timestamp(model.batch.event_time_end) }}
    {%- else -%}
        {{ in_window(column) }}
    {%- endif -%}
{%- endmacro %}
