"""Versions of metrics, and proposals to change them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """What was defined before is recorded by the next night as first seen."""
    op.create_table(
        "metric_versions",
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("effective_from", sa.Date),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("diff", sa.JSON, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("proposal", sa.Integer),
        sa.Column("approved_by", sa.Text),
        sa.PrimaryKeyConstraint("metric", "number", name="pk_metric_versions"),
        comment="Every version of every metric: formula, inputs, targets, owner and texts; who, when, why, approved by whom.",
    )
    op.create_table(
        "metric_proposals",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("changes", sa.JSON, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("diff", sa.JSON, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("effective_from", sa.Date, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", sa.DateTime),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("applied_by", sa.Text),
        sa.Column("applied_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_metric_proposals"),
        comment="Changes of metrics that somebody proposed: what, why, from when, and what became of them.",
    )
    op.create_index("ix_metric_proposals_metric", "metric_proposals", ["metric"])
    op.create_index("ix_metric_proposals_state", "metric_proposals", ["state"])
