"""Notifications know which alerts they are about, and wait for earlier ones about the same alert."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """What is queued already keeps the order of its group only: what it is about was not written down."""
    with op.batch_alter_table("outbox") as table:
        table.add_column(sa.Column("about", sa.JSON))
        table.add_column(sa.Column("maybe_sent", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "outbox_follows",
        sa.Column("notification", sa.Text, nullable=False),
        sa.Column("follows", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("notification", "follows", name="pk_outbox_follows"),
        comment="Notifications that wait for one of another group, because both tell their receiver of the same alert.",
    )
