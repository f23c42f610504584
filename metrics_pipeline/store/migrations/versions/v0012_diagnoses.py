"""Diagnoses of episodes, and notes of what was deployed or happened."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Episodes that were there before have no diagnosis."""
    op.create_table(
        "episode_diagnoses",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("data_version", sa.Text, nullable=False),
        sa.Column("period", sa.DateTime, nullable=False),
        sa.Column("document", sa.JSON),
        sa.Column("line_zh", sa.Text, nullable=False),
        sa.Column("line_en", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("cpu_seconds", sa.Double, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("episode", "data_version", name="pk_episode_diagnoses"),
        comment="Why an episode's value was what it was, by the data of a version; without a document the reason why not.",
    )
    op.create_table(
        "notes",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("starts_on", sa.Date, nullable=False),
        sa.Column("ends_on", sa.Date, nullable=False),
        sa.Column("elements", sa.JSON, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notes"),
        comment="What people or deployments wrote down: shown beside changes of the same days.",
    )
    op.create_index("ix_notes_ends_on", "notes", ["ends_on"])
