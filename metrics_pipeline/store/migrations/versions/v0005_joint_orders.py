"""One work order for many slices of a rule that begin together."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Orders that exist stay as they are: one episode each."""
    with op.batch_alter_table("work_orders") as table:
        table.add_column(sa.Column("slices", sa.Integer, nullable=False, server_default="1"))
    op.create_table(
        "work_order_episodes",
        sa.Column("episode", sa.Text, nullable=False),
        sa.Column("work_order", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("episode", name="pk_work_order_episodes"),
        comment="The other episodes of an order that is about many slices; its own one stands in the order.",
    )
    op.create_index("ix_work_order_episodes_work_order", "work_order_episodes", ["work_order"])
