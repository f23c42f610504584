"""What an instance remembers of restatements, changes and unknown periods; work orders and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns to instances and transitions; create work orders, their events, and feedback."""
    with op.batch_alter_table("alert_instances") as table:
        table.add_column(sa.Column("breach_period_before", sa.DateTime))
        table.add_column(sa.Column("is_corrected", sa.Boolean, nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("changes", sa.Integer, nullable=False, server_default="0"))
        table.add_column(sa.Column("is_flapping", sa.Boolean, nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("unknown_reason", sa.Text, nullable=False, server_default=""))
        table.add_column(sa.Column("unknown_period", sa.DateTime))
    with op.batch_alter_table("transitions") as table:
        table.add_column(sa.Column("verdict_reason", sa.Text, nullable=False, server_default=""))
    with op.batch_alter_table("processed_evaluations") as table:
        table.add_column(sa.Column("unjudged", sa.Text, nullable=False, server_default=""))
    op.create_index("ix_transitions_episode", "transitions", ["episode"])

    op.create_table(
        "work_orders",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("assignee", sa.Text, nullable=False),
        sa.Column("opened_at", sa.DateTime, nullable=False),
        sa.Column("due_at", sa.DateTime, nullable=False),
        sa.Column("links", sa.JSON, nullable=False),
        sa.Column("closed_at", sa.DateTime),
        sa.Column("closed_by", sa.Text),
        sa.Column("close_reason", sa.Text),
        sa.Column("close_note", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_work_orders"),
        sa.UniqueConstraint("episode", name="uq_work_orders_episode"),
    )
    op.create_index("ix_work_orders_rule", "work_orders", ["rule"])
    op.create_index("ix_work_orders_state", "work_orders", ["state"])

    op.create_table(
        "work_order_events",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_work_order_events"),
    )
    op.create_index("ix_work_order_events_episode", "work_order_events", ["episode"])

    op.create_table(
        "episode_feedback",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("is_useful", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_episode_feedback"),
    )
    op.create_index("ix_episode_feedback_episode", "episode_feedback", ["episode"])
    op.create_index("ix_episode_feedback_rule", "episode_feedback", ["rule"])
