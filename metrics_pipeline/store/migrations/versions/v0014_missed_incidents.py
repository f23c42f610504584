"""Incidents that people report because nobody was told of them, or too late."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """A table of its own: they belong to no episode."""
    op.create_table(
        "missed_incidents",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("dimension", sa.Text, nullable=False),
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("starts_on", sa.Date, nullable=False),
        sa.Column("ends_on", sa.Date, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_missed_incidents"),
        comment="Incidents that people report because nobody was told of them, or too late.",
    )
