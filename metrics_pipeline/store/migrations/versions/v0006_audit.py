"""The audit log: who did what, append-only and chained by hashes."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_KEPT = "OLD.sequence > COALESCE((SELECT MAX(sequence) FROM audit_checkpoints), 0)"
_SQLITE = (
    "CREATE TRIGGER audit_log_keeps_rows BEFORE UPDATE ON audit_log "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    f"CREATE TRIGGER audit_log_loses_none BEFORE DELETE ON audit_log WHEN {_KEPT} "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only; metrics audit prune removes old rows'); END",
    "CREATE TRIGGER audit_checkpoints_keeps_rows BEFORE UPDATE ON audit_checkpoints "
    "BEGIN SELECT RAISE(ABORT, 'checkpoints of the audit log are append-only'); END",
    "CREATE TRIGGER audit_checkpoints_loses_none BEFORE DELETE ON audit_checkpoints "
    "BEGIN SELECT RAISE(ABORT, 'checkpoints of the audit log are append-only'); END",
)
_POSTGRESQL = (
    "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
    "CREATE FUNCTION audit_refuse_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"IF {_KEPT} THEN RAISE EXCEPTION 'audit_log is append-only; metrics audit prune removes old rows'; END IF; "
    "RETURN OLD; END $$",
    "CREATE TRIGGER audit_log_keeps_rows BEFORE UPDATE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_log_loses_none BEFORE DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_refuse_kept()",
    "CREATE TRIGGER audit_log_is_not_emptied BEFORE TRUNCATE ON audit_log EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_checkpoints_keeps_rows BEFORE UPDATE OR DELETE ON audit_checkpoints "
    "FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_checkpoints_is_not_emptied BEFORE TRUNCATE ON audit_checkpoints "
    "EXECUTE FUNCTION audit_refuse()",
)


def upgrade() -> None:
    """The triggers refuse what the code never does, so that a slip elsewhere cannot either."""
    op.create_table(
        "audit_log",
        sa.Column("sequence", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("slice", sa.Text, nullable=False),
        sa.Column("door", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_log"),
        comment="Who did what to what, by which door, from where; append-only, each row carries the hash of the one before.",
    )
    for name in ("at", "actor", "action", "subject"):
        op.create_index(f"ix_audit_log_{name}", "audit_log", [name])
    op.create_table(
        "audit_checkpoints",
        sa.Column("sequence", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_checkpoints"),
        comment="The last row of the audit log that retention removed; the log goes on from its hash.",
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)
