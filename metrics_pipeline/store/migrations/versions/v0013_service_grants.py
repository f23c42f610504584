"""The services of a home have grants of their own, which an administrator can revoke."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

GIVEN = (("nightly", "operate", "builds, judges and writes messages"), ("delivery", "deliver", "sends messages"))


def upgrade() -> None:
    """What ran before runs on, also where a policy is on already."""
    grants = sa.table(
        "access_grants",
        *(sa.column(name) for name in ("subject_kind", "subject", "actions", "selectors", "slices", "level")),
        sa.column("granted_by"),
        sa.column("granted_at", sa.DateTime),
        sa.column("reason"),
    )
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        {
            "subject_kind": "service", "subject": service, "actions": f'["{action}"]', "selectors": '[["all", ""]]',
            "slices": "{}", "level": "hidden", "granted_by": "installation", "granted_at": now, "reason": reason,
        }
        for service, action, reason in GIVEN
    ]  # fmt: skip
    op.bulk_insert(grants, rows)
