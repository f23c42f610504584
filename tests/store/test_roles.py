"""Least privilege on PostgreSQL, as the server enforces it."""

from __future__ import annotations

import uuid
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from metrics_pipeline.store.database import open_url
from metrics_pipeline.store.roles import SERVICES, role_statements
from metrics_pipeline.store.tables import metadata
from tests.store.databases import postgres_url

READS_ONLY = {
    "nightly": ("access_grants", "access_policy", "access_people", "access_memberships", "audit_checkpoints"),
    "delivery": ("access_grants", "access_policy", "processed_evaluations", "work_orders", "audit_checkpoints"),
    "reader": tuple(name for name in metadata.tables if name != "audit_log"),
    "admin": ("outbox", "alert_instances", "work_orders"),
}


@pytest.mark.services
def test_each_service_can_do_what_it_needs_and_nothing_else():
    prefix = f"t{uuid.uuid4().hex[:10]}"
    with postgres_url() as url:
        store = open_url(url)
        try:
            with store.engine.begin() as connection:
                for statement in role_statements(prefix):
                    connection.execute(sa.text(statement))
            for service, tables in READS_ONLY.items():
                for table in (*tables, "audit_log"):
                    with acting_as(store, f"{prefix}_{service}") as connection:
                        connection.execute(sa.text(f"SELECT count(*) FROM {table}"))
                    with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                        run(store, f"{prefix}_{service}", f"UPDATE {table} SET {column_of(table)} = {column_of(table)}")
            for service in ("nightly", "delivery"):
                run(store, f"{prefix}_{service}", "UPDATE outbox SET state = state")
                run(store, f"{prefix}_{service}", "UPDATE alert_instances SET state = state")
            run(store, f"{prefix}_admin", "UPDATE access_grants SET reason = reason")
            for service in ("nightly", "delivery", "reader"):
                with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                    run(store, f"{prefix}_{service}", "DELETE FROM audit_log")
        finally:
            with store.engine.begin() as connection:
                for service in SERVICES:
                    connection.execute(sa.text(f"DROP OWNED BY {prefix}_{service}"))
                    connection.execute(sa.text(f"DROP ROLE {prefix}_{service}"))
            store.close()


@contextmanager
def acting_as(store, role):
    with store.engine.begin() as connection:
        connection.execute(sa.text(f"SET LOCAL ROLE {role}"))
        yield connection


def run(store, role, statement):
    with acting_as(store, role) as connection:
        connection.execute(sa.text(statement))


def column_of(table: str) -> str:
    return next(iter(metadata.tables[table].columns)).name
