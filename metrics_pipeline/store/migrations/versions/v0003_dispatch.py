"""Whom to tell and when: groups, digests, limits, silences, acknowledgements, incidents."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Widen what receivers know of episodes; create the tables of dispatch; carry over what was told before."""
    with op.batch_alter_table("episode_receivers") as table:
        for name in ("group_key", "route", "receiver_name"):
            table.add_column(sa.Column(name, sa.Text, nullable=False, server_default=""))
        table.add_column(sa.Column("wanted", sa.Text, nullable=False, server_default="none"))
        table.add_column(sa.Column("held", sa.Text, nullable=False, server_default=""))
        table.add_column(sa.Column("held_until", sa.DateTime))
    is_open = sa.text("end_notification IS NULL")
    op.create_index(
        "ix_episode_receivers_open", "episode_receivers", ["group_key"], sqlite_where=is_open, postgresql_where=is_open
    )
    op.execute("UPDATE episode_receivers SET wanted = tier")
    op.execute(
        "UPDATE episode_receivers SET group_key = '{}:{alertname=\"' || "
        "(SELECT rule FROM episodes WHERE episodes.key = episode_receivers.episode) || '\"}' "
        "WHERE EXISTS (SELECT 1 FROM episodes WHERE episodes.key = episode_receivers.episode)"
    )
    with op.batch_alter_table("outbox") as table:
        table.add_column(sa.Column("rule", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE outbox SET rule = group_key")

    op.create_table(
        "dispatch_groups",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("opened_at", sa.DateTime, nullable=False),
        sa.Column("sent_at", sa.DateTime),
        sa.Column("repeat_at", sa.DateTime),
        sa.Column("red_since", sa.DateTime),
        sa.Column("escalated", sa.Integer, nullable=False, server_default="0"),
        sa.Column("is_inhibited", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("wake_at", sa.DateTime),
        sa.PrimaryKeyConstraint("key", name="pk_dispatch_groups"),
        comment="Groups of alerts that people are told of together, and when each has to be looked at again.",
    )
    op.create_index("ix_dispatch_groups_wake_at", "dispatch_groups", ["wake_at"])

    op.create_table(
        "dispatch_digests",
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("due_at", sa.DateTime),
        sa.Column("sent_at", sa.DateTime),
        sa.PrimaryKeyConstraint("receiver", name="pk_dispatch_digests"),
        comment="When a receiver gets the next digest of what was held back.",
    )
    op.create_index("ix_dispatch_digests_due_at", "dispatch_digests", ["due_at"])

    op.create_table(
        "dispatch_buckets",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("filled_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_dispatch_buckets"),
        comment="Token buckets: what may still be sent by a channel, to a person, in the lane of red.",
    )

    op.create_table(
        "flapping_receivers",
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("instance", "receiver", name="pk_flapping_receivers"),
        comment="Who was told that an alert comes and goes; until it is stable the rest is in digests.",
    )

    op.create_table(
        "rule_cards",
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("rule", name="pk_rule_cards"),
        comment="What people are told about each rule, as it was last judged.",
    )

    op.create_table(
        "incidents",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("headline", sa.Text, nullable=False),
        sa.Column("opened_at", sa.DateTime, nullable=False),
        sa.Column("closed_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
    )
    op.create_table(
        "incident_episodes",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("incident", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("episode", name="pk_incident_episodes"),
    )
    op.create_index("ix_incident_episodes_incident", "incident_episodes", ["incident"])

    op.create_table(
        "silences",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("matchers", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("starts_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.Column("expired_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_silences"),
    )
    op.create_index("ix_silences_expires_at", "silences", ["expires_at"])

    op.create_table(
        "episode_marks",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("until", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("episode", "kind", name="pk_episode_marks"),
        comment="Acknowledgements and snoozes; they end with their time or with their episode.",
    )
