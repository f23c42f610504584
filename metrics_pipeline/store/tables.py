"""The schema of the operational store, as SQLAlchemy Core tables.

Two clocks: `*_period` columns are shop-local period starts without a zone, as in every metric table; `*_at` and
`*_until` columns are instants, stored in UTC. Keys are readable text (docs/architecture.md, Alerts and delivery), so
that a row can be written without first asking the database for a number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class Instant(TypeDecorator[datetime]):
    """An instant: aware datetimes in Python, naive UTC in the database (so SQLite and PostgreSQL sort alike)."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected a time with a zone, got {value!r}; use datetime.now(UTC)")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, **options)


def _number(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


# The order of the columns is the order of the fields of `records.Instance`.
alert_instances = sa.Table(
    "alert_instances",
    metadata,
    _text("key", primary_key=True),
    _text("rule", index=True),
    _text("dimension"),
    _text("member"),
    _text("grain"),
    _text("state", index=True),
    _text("tier"),
    sa.Column("episode", sa.Text),
    sa.Column("since_period", sa.DateTime),
    sa.Column("breach_period", sa.DateTime),
    sa.Column("last_period", sa.DateTime),
    sa.Column("data_period", sa.DateTime),
    _count("breaches"),
    _count("reds"),
    _count("clears"),
    _count("breaches_before"),
    _count("reds_before"),
    _count("clears_before"),
    _number("value"),
    _number("observed"),
    _number("baseline"),
    _number("lower"),
    _number("upper"),
    _number("yellow_bound"),
    _number("red_bound"),
    _number("sample"),
    _text("reason"),
    _text("rule_hash"),
    _text("metric_version"),
    _text("data_version"),
    sa.Column("evaluated_at", Instant, nullable=False),
    sa.Column("breach_period_before", sa.DateTime),
    _flag("is_corrected"),
    _count("changes"),
    _flag("is_flapping"),
    _text("unknown_reason", server_default=""),
    sa.Column("unknown_period", sa.DateTime),
)

episodes = sa.Table(
    "episodes",
    metadata,
    _text("key", primary_key=True),
    sa.Column("instance", sa.Text, nullable=False, index=True),
    _text("rule", index=True),
    sa.Column("first_period", sa.DateTime, nullable=False),
    sa.Column("last_period", sa.DateTime, nullable=False),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("closed_at", Instant),
    sa.Column("close_reason", sa.Text),
    _text("worst_tier"),
    _number("worst_value"),
    _number("worst_excess"),
)

episode_receivers = sa.Table(
    "episode_receivers",
    metadata,
    _text("episode", primary_key=True),
    _text("receiver", primary_key=True),
    _text("tier"),
    _text("notification"),
    sa.Column("end_notification", sa.Text),
    _text("group_key", server_default=""),
    _text("route", server_default=""),
    _text("receiver_name", server_default=""),
    _text("wanted", server_default="none"),
    _text("held", server_default=""),
    sa.Column("held_until", Instant),
    comment="Who was told of which episode, at which tier, and by which notification the end was told.",
)
sa.Index(
    "ix_episode_receivers_open",
    episode_receivers.c.group_key,
    sqlite_where=episode_receivers.c.end_notification.is_(None),
    postgresql_where=episode_receivers.c.end_notification.is_(None),
)

transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("instance", index=True),
    sa.Column("episode", sa.Text, index=True),
    _text("rule", index=True),
    sa.Column("at", Instant, nullable=False, index=True),
    sa.Column("period", sa.DateTime, nullable=False),
    _text("from_state"),
    _text("from_tier"),
    _text("to_state"),
    _text("to_tier"),
    _text("reason"),
    _number("value"),
    _number("observed"),
    _text("rule_hash"),
    sa.Column("previous_rule_hash", sa.Text),
    _text("metric_version"),
    _text("data_version"),
    _text("run_id"),
    sa.Column("silent", sa.Boolean, nullable=False),
    _text("verdict_reason", server_default=""),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("key", unique=True),
    _text("receiver"),
    _text("group_key"),
    sa.Column("sequence", sa.Integer, nullable=False),
    _text("reason"),
    _text("tier"),
    sa.Column("payload", sa.JSON, nullable=False),
    _text("state"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("next_attempt_at", Instant, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until", Instant),
    _count("attempts"),
    sa.Column("last_error", sa.Text),
    sa.Column("sent_at", Instant),
    _text("rule", server_default=""),
    sa.Column("about", sa.JSON(none_as_null=True)),
    _flag("maybe_sent"),
    sa.UniqueConstraint("receiver", "group_key", "sequence"),
    sa.Index("ix_outbox_due", "state", "next_attempt_at"),
)

outbox_follows = sa.Table(
    "outbox_follows",
    metadata,
    _text("notification", primary_key=True),
    _text("follows", primary_key=True),
    comment="Notifications that wait for one of another group, because both tell their receiver of the same alert.",
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("notification", index=True),
    _text("receiver"),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("at", Instant, nullable=False),
    _text("outcome"),
    _text("answer"),
)

processed_evaluations = sa.Table(
    "processed_evaluations",
    metadata,
    _text("rule", primary_key=True),
    sa.Column("period", sa.DateTime, primary_key=True),
    _text("rule_hash", primary_key=True),
    _text("metric_version", primary_key=True),
    _text("data_version", primary_key=True),
    _text("run_id"),
    sa.Column("verdicts", sa.Integer, nullable=False),
    sa.Column("processed_at", Instant, nullable=False),
    _text("unjudged", server_default=""),
)

work_orders = sa.Table(
    "work_orders",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("episode", unique=True),
    _text("instance"),
    _text("rule", index=True),
    _text("tier"),
    _text("state", index=True),
    _text("assignee"),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("due_at", Instant, nullable=False),
    sa.Column("links", sa.JSON, nullable=False),
    sa.Column("closed_at", Instant),
    sa.Column("closed_by", sa.Text),
    sa.Column("close_reason", sa.Text),
    sa.Column("close_note", sa.Text),
    sa.Column("slices", sa.Integer, nullable=False, server_default="1"),
)

work_order_episodes = sa.Table(
    "work_order_episodes",
    metadata,
    _text("episode", primary_key=True),
    _text("work_order", index=True),
    comment="The other episodes of an order that is about many slices; its own one stands in the order.",
)

work_order_events = sa.Table(
    "work_order_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("episode", index=True),
    sa.Column("at", Instant, nullable=False),
    _text("who"),
    _text("what"),
    _text("detail"),
)

episode_feedback = sa.Table(
    "episode_feedback",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("episode", index=True),
    _text("rule", index=True),
    sa.Column("is_useful", sa.Boolean, nullable=False),
    _text("reason"),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
)

episode_advice = sa.Table(
    "episode_advice",
    metadata,
    _text("episode", primary_key=True),
    _text("rule", index=True),
    _text("metric"),
    _text("grain"),
    _text("direction"),
    _number("change"),
    _number("onset_days"),
    sa.Column("elements", sa.JSON, nullable=False),
    sa.Column("advice", sa.JSON, nullable=False),
    sa.Column("similar", sa.JSON, nullable=False),
    _text("data_version"),
    sa.Column("at", Instant, nullable=False),
    comment="What was advised about an episode, and what later episodes are compared with it by.",
)

episode_actions = sa.Table(
    "episode_actions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("episode", index=True),
    _text("rule"),
    _text("action", index=True),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    _text("note"),
    sa.Column("helped", sa.Boolean),
    comment="What was done about an episode, and whether it helped as far as somebody said so.",
)

dispatch_groups = sa.Table(
    "dispatch_groups",
    metadata,
    _text("key", primary_key=True),
    _text("labels"),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("sent_at", Instant),
    sa.Column("repeat_at", Instant),
    sa.Column("red_since", Instant),
    _count("escalated"),
    _flag("is_inhibited"),
    sa.Column("wake_at", Instant, index=True),
    comment="Groups of alerts that people are told of together, and when each has to be looked at again.",
)

dispatch_digests = sa.Table(
    "dispatch_digests",
    metadata,
    _text("receiver", primary_key=True),
    sa.Column("due_at", Instant, index=True),
    sa.Column("sent_at", Instant),
    comment="When a receiver gets the next digest of what was held back.",
)

dispatch_buckets = sa.Table(
    "dispatch_buckets",
    metadata,
    _text("key", primary_key=True),
    sa.Column("tokens", sa.Double, nullable=False),
    sa.Column("filled_at", Instant, nullable=False),
    comment="Token buckets: what may still be sent by a channel, to a person, in the lane of red.",
)

flapping_receivers = sa.Table(
    "flapping_receivers",
    metadata,
    _text("instance", primary_key=True),
    _text("receiver", primary_key=True),
    _text("tier"),
    sa.Column("since", Instant, nullable=False),
    comment="Who was told that an alert comes and goes; until it is stable the rest is in digests.",
)

rule_cards = sa.Table(
    "rule_cards",
    metadata,
    _text("rule", primary_key=True),
    _text("card"),
    sa.Column("updated_at", Instant, nullable=False),
    comment="What people are told about each rule, as it was last judged.",
)

incidents = sa.Table(
    "incidents",
    metadata,
    _text("id", primary_key=True),
    _text("headline"),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("closed_at", Instant),
)

incident_episodes = sa.Table(
    "incident_episodes",
    metadata,
    _text("episode", primary_key=True),
    _text("incident", index=True),
)

silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("matchers"),
    _text("author"),
    _text("reason"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("starts_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False, index=True),
    sa.Column("expired_by", sa.Text),
)

episode_marks = sa.Table(
    "episode_marks",
    metadata,
    _text("episode", primary_key=True),
    _text("kind", primary_key=True),
    _text("who"),
    _text("note"),
    sa.Column("at", Instant, nullable=False),
    sa.Column("until", Instant, nullable=False),
    comment="Acknowledgements and snoozes; they end with their time or with their episode.",
)

episode_acknowledgements = sa.Table(
    "episode_acknowledgements",
    metadata,
    _text("episode", primary_key=True),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    comment="Who first acknowledged an episode; kept when the acknowledgement itself has ended.",
)

rule_proposals = sa.Table(
    "rule_proposals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("key", unique=True),
    _text("rule", index=True),
    _text("metric"),
    _text("kind"),
    _text("state", index=True),
    _text("base"),
    sa.Column("changes", sa.JSON, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    _text("why"),
    _text("why_zh"),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_at", Instant),
    _text("note", server_default=""),
    sa.Column("after", sa.Text),
    sa.Column("effect", sa.JSON(none_as_null=True)),
    comment="Changes of rules that answers suggest: what, why, what it would have changed, who decided, what came of it.",
)

missed_incidents = sa.Table(
    "missed_incidents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("metric"),
    _text("dimension"),
    _text("member"),
    sa.Column("starts_on", sa.Date, nullable=False),
    sa.Column("ends_on", sa.Date, nullable=False),
    _text("text"),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    comment="Incidents that people report because nobody was told of them, or too late.",
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, nullable=False, index=True),
    _text("actor", index=True),
    _text("action", index=True),
    _text("subject", index=True),
    _text("slice"),
    _text("door"),
    _text("origin"),
    _text("outcome"),
    sa.Column("details", sa.JSON, nullable=False),
    _text("previous"),
    _text("hash"),
    comment="Who did what to what, by which door, from where; append-only, each row carries the hash of the one before.",
)

audit_checkpoints = sa.Table(
    "audit_checkpoints",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    _text("hash"),
    sa.Column("at", Instant, nullable=False),
    comment="The last row of the audit log that retention removed; the log goes on from its hash.",
)

metric_versions = sa.Table(
    "metric_versions",
    metadata,
    _text("metric", primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _text("version"),
    _text("digest"),
    sa.Column("effective_from", sa.Date),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("diff", sa.JSON, nullable=False),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    _text("why"),
    sa.Column("proposal", sa.Integer),
    sa.Column("approved_by", sa.Text),
    comment="Every version of every metric: formula, inputs, targets, owner and texts; who, when, why, approved by whom.",
)

metric_proposals = sa.Table(
    "metric_proposals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("metric", index=True),
    _text("state", index=True),
    sa.Column("changes", sa.JSON, nullable=False),
    _text("base"),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("diff", sa.JSON, nullable=False),
    _text("version"),
    sa.Column("effective_from", sa.Date, nullable=False),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    _text("why"),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_at", Instant),
    _text("note"),
    sa.Column("applied_by", sa.Text),
    sa.Column("applied_at", Instant),
    comment="Changes of metrics that somebody proposed: what, why, from when, and what became of them.",
)

access_policy = sa.Table(
    "access_policy",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    _text("enabled_by"),
    sa.Column("enabled_at", Instant, nullable=False),
    comment="One row while the policy is on; none while the installation is open.",
)

access_people = sa.Table(
    "access_people",
    metadata,
    _text("id", primary_key=True),
    _text("name_zh"),
    _text("name_en"),
    _text("source"),
    comment="Who can be given something; ids are those of _people.yml.",
)

access_memberships = sa.Table(
    "access_memberships",
    metadata,
    _text("person", primary_key=True),
    _text("kind", primary_key=True),
    _text("of", primary_key=True),
    _text("source"),
    comment="Who is in which position (team) or business line.",
)

access_grants = sa.Table(
    "access_grants",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("subject_kind"),
    _text("subject"),
    _text("actions"),
    _text("selectors"),
    _text("slices"),
    _text("level"),
    sa.Column("starts_at", Instant),
    sa.Column("expires_at", Instant),
    _text("granted_by"),
    sa.Column("granted_at", Instant, nullable=False),
    _text("reason"),
    sa.Column("revoked_at", Instant),
    sa.Column("revoked_by", sa.Text),
    sa.Index("ix_access_grants_subject_kind_subject", "subject_kind", "subject"),
)

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    _text("id", primary_key=True),
    _text("person", index=True),
    _text("name"),
    _text("digest"),
    _text("created_by"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("revoked_by", sa.Text),
    comment="Tokens of the HTTP API: whom they act as, and a hash of the secret; the secret itself is nowhere.",
)

episode_diagnoses = sa.Table(
    "episode_diagnoses",
    metadata,
    _text("episode", primary_key=True),
    _text("data_version", primary_key=True),
    sa.Column("period", sa.DateTime, nullable=False),
    sa.Column("document", sa.JSON),
    _text("line_zh"),
    _text("line_en"),
    _text("reason"),
    sa.Column("cpu_seconds", sa.Double, nullable=False),
    sa.Column("at", Instant, nullable=False),
    comment="Why an episode's value was what it was, by the data of a version; without a document the reason why not.",
)

notes = sa.Table(
    "notes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _text("kind"),
    _text("text"),
    sa.Column("starts_on", sa.Date, nullable=False),
    sa.Column("ends_on", sa.Date, nullable=False),
    sa.Column("elements", sa.JSON, nullable=False),
    _text("who"),
    sa.Column("at", Instant, nullable=False),
    sa.Index("ix_notes_ends_on", "ends_on"),
    comment="What people or deployments wrote down: shown beside changes of the same days.",
)
