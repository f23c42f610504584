"""People, positions, lines and grants, and whether the policy is on."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """No policy is on afterwards: an installation stays open until somebody closes it."""
    op.create_table(
        "access_policy",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("enabled_by", sa.Text, nullable=False),
        sa.Column("enabled_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_policy"),
        comment="One row while the policy is on; none while the installation is open.",
    )
    op.create_table(
        "access_people",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name_zh", sa.Text, nullable=False),
        sa.Column("name_en", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_people"),
        comment="Who can be given something; ids are those of _people.yml.",
    )
    op.create_table(
        "access_memberships",
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("of", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("person", "kind", "of", name="pk_access_memberships"),
        comment="Who is in which position (team) or business line.",
    )
    op.create_table(
        "access_grants",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("subject_kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("actions", sa.Text, nullable=False),
        sa.Column("selectors", sa.Text, nullable=False),
        sa.Column("slices", sa.Text, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("starts_at", sa.DateTime),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("granted_by", sa.Text, nullable=False),
        sa.Column("granted_at", sa.DateTime, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.DateTime),
        sa.Column("revoked_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_access_grants"),
    )
    op.create_index("ix_access_grants_subject_kind_subject", "access_grants", ["subject_kind", "subject"])
