"""Least privilege on PostgreSQL: which service may do what with which table of the store.

The owner of the tables migrates them; nobody else can. No service can change a row of the audit log, and none but the
administration can change who may see what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from metrics_pipeline.store.tables import metadata

_ACCESS = {"access_policy", "access_people", "access_memberships", "access_grants", "api_tokens"}
_AUDIT = {"audit_log", "audit_checkpoints"}
_JUDGING = {"processed_evaluations"}
_PEOPLE = {"episode_feedback", "work_orders", "work_order_episodes", "work_order_events"}

SERVICES: Mapping[str, str] = {
    "nightly": "builds, judges, writes alerts and messages",
    "delivery": "sends messages and what time makes due",
    "reader": "reads, and records what was read",
    "admin": "grants, revokes, retention of the audit log",
}


def role_statements(prefix: str) -> list[str]:
    """SQL without semicolons: a role for each of `SERVICES`, without login; give them to the users of the services.

    Raises `ValueError` for a prefix that is no plain name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", prefix):
        raise ValueError(f"--prefix {prefix!r} is not a name; use small letters, digits and underscores")
    found = []
    for service, purpose in SERVICES.items():
        role = f"{prefix}_{service}"
        found.append(
            f"DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') "
            f"THEN CREATE ROLE {role} NOLOGIN; END IF; END $$"
        )
        found.append(f"COMMENT ON ROLE {role} IS '{purpose}'")
        found.append(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        found.append(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        found.append(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
        for table in sorted(metadata.tables):
            if rights := _rights(service, table):
                found.append(f"GRANT {', '.join(rights)} ON {table} TO {role}")
    return found


def _rights(service: str, table: str) -> tuple[str, ...]:
    """What a service may do with a table beside reading it."""
    everything = ("INSERT", "UPDATE", "DELETE")
    if table in _AUDIT:
        own = {"audit_log": ("INSERT", "DELETE"), "audit_checkpoints": ("INSERT",)}[table]
        return own if service == "admin" else own[:1] if table == "audit_log" else ()
    if table in _ACCESS:
        own = everything[:2] if table in ("access_grants", "api_tokens") else everything
        return own if service == "admin" else ()
    is_kept_from = service in ("reader", "admin") or (service == "delivery" and table in _JUDGING | _PEOPLE)
    return () if is_kept_from else everything
