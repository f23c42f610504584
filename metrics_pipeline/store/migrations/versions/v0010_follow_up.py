"""Who first acknowledged an episode, kept; and changes of rules that answers suggest."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Acknowledgements that hold now are kept; of those that ended with their episode nothing is known."""
    op.create_table(
        "episode_acknowledgements",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("episode", name="pk_episode_acknowledgements"),
        comment="Who first acknowledged an episode; kept when the acknowledgement itself has ended.",
    )
    op.execute(
        "INSERT INTO episode_acknowledgements (episode, who, at) SELECT episode, who, at FROM episode_marks WHERE kind = 'ack'"
    )
    op.create_table(
        "rule_proposals",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("changes", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("why_zh", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", sa.DateTime),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("after", sa.Text),
        sa.Column("effect", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_rule_proposals"),
        sa.UniqueConstraint("key", name="uq_rule_proposals_key"),
        comment="Changes of rules that answers suggest: what, why, what it would have changed, who decided, what came of it.",
    )
    op.create_index("ix_rule_proposals_rule", "rule_proposals", ["rule"])
    op.create_index("ix_rule_proposals_state", "rule_proposals", ["state"])
