"""Alert instances, episodes, transitions, outbox and deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "alert_instances",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("dimension", sa.Text, nullable=False),
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("grain", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("episode", sa.Text),
        sa.Column("since_period", sa.DateTime),
        sa.Column("breach_period", sa.DateTime),
        sa.Column("last_period", sa.DateTime),
        sa.Column("data_period", sa.DateTime),
        sa.Column("breaches", sa.Integer, nullable=False, server_default="0"),
        sa.Column("reds", sa.Integer, nullable=False, server_default="0"),
        sa.Column("clears", sa.Integer, nullable=False, server_default="0"),
        sa.Column("breaches_before", sa.Integer, nullable=False, server_default="0"),
        sa.Column("reds_before", sa.Integer, nullable=False, server_default="0"),
        sa.Column("clears_before", sa.Integer, nullable=False, server_default="0"),
        sa.Column("value", sa.Double),
        sa.Column("observed", sa.Double),
        sa.Column("baseline", sa.Double),
        sa.Column("lower", sa.Double),
        sa.Column("upper", sa.Double),
        sa.Column("yellow_bound", sa.Double),
        sa.Column("red_bound", sa.Double),
        sa.Column("sample", sa.Double),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rule_hash", sa.Text, nullable=False),
        sa.Column("metric_version", sa.Text, nullable=False),
        sa.Column("data_version", sa.Text, nullable=False),
        sa.Column("evaluated_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_alert_instances"),
    )
    op.create_index("ix_alert_instances_rule", "alert_instances", ["rule"])
    op.create_index("ix_alert_instances_state", "alert_instances", ["state"])

    op.create_table(
        "episodes",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("first_period", sa.DateTime, nullable=False),
        sa.Column("last_period", sa.DateTime, nullable=False),
        sa.Column("opened_at", sa.DateTime, nullable=False),
        sa.Column("closed_at", sa.DateTime),
        sa.Column("close_reason", sa.Text),
        sa.Column("worst_tier", sa.Text, nullable=False),
        sa.Column("worst_value", sa.Double),
        sa.Column("worst_excess", sa.Double),
        sa.PrimaryKeyConstraint("key", name="pk_episodes"),
    )
    op.create_index("ix_episodes_instance", "episodes", ["instance"])
    op.create_index("ix_episodes_rule", "episodes", ["rule"])

    op.create_table(
        "episode_receivers",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("notification", sa.Text, nullable=False),
        sa.Column("end_notification", sa.Text),
        sa.PrimaryKeyConstraint("episode", "receiver", name="pk_episode_receivers"),
        comment="Who was told of which episode, at which tier, and by which notification the end was told.",
    )

    op.create_table(
        "transitions",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("episode", sa.Text),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("period", sa.DateTime, nullable=False),
        sa.Column("from_state", sa.Text, nullable=False),
        sa.Column("from_tier", sa.Text, nullable=False),
        sa.Column("to_state", sa.Text, nullable=False),
        sa.Column("to_tier", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("observed", sa.Double),
        sa.Column("rule_hash", sa.Text, nullable=False),
        sa.Column("previous_rule_hash", sa.Text),
        sa.Column("metric_version", sa.Text, nullable=False),
        sa.Column("data_version", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("silent", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_transitions"),
    )
    op.create_index("ix_transitions_instance", "transitions", ["instance"])
    op.create_index("ix_transitions_rule", "transitions", ["rule"])
    op.create_index("ix_transitions_at", "transitions", ["at"])

    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("group_key", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("next_attempt_at", sa.DateTime, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", sa.DateTime),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text),
        sa.Column("sent_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("key", name="uq_outbox_key"),
        sa.UniqueConstraint("receiver", "group_key", "sequence", name="uq_outbox_receiver_group_key_sequence"),
    )
    op.create_index("ix_outbox_due", "outbox", ["state", "next_attempt_at"])

    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("notification", sa.Text, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_notification", "deliveries", ["notification"])

    op.create_table(
        "processed_evaluations",
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("period", sa.DateTime, nullable=False),
        sa.Column("rule_hash", sa.Text, nullable=False),
        sa.Column("metric_version", sa.Text, nullable=False),
        sa.Column("data_version", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("verdicts", sa.Integer, nullable=False),
        sa.Column("processed_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint(
            "rule", "period", "rule_hash", "metric_version", "data_version", name="pk_processed_evaluations"
        ),
    )
