"""What is advised about episodes and what was done about them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Episodes that were there before are compared by their rule and slice alone."""
    op.create_table(
        "episode_advice",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("grain", sa.Text, nullable=False),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("change", sa.Double),
        sa.Column("onset_days", sa.Double),
        sa.Column("elements", sa.JSON, nullable=False),
        sa.Column("advice", sa.JSON, nullable=False),
        sa.Column("similar", sa.JSON, nullable=False),
        sa.Column("data_version", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("episode", name="pk_episode_advice"),
        comment="What was advised about an episode, and what later episodes are compared with it by.",
    )
    op.create_index("ix_episode_advice_rule", "episode_advice", ["rule"])
    op.create_table(
        "episode_actions",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("helped", sa.Boolean),
        sa.PrimaryKeyConstraint("id", name="pk_episode_actions"),
        comment="What was done about an episode, and whether it helped as far as somebody said so.",
    )
    op.create_index("ix_episode_actions_episode", "episode_actions", ["episode"])
    op.create_index("ix_episode_actions_action", "episode_actions", ["action"])
