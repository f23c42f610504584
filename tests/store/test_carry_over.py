"""What an older release wrote means the same after the migrations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from metrics_pipeline.store import dispatch
from metrics_pipeline.store.database import Store, open_url
from tests.alerts.desk import START


def at_revision(url: str, revision: str) -> sa.Engine:
    """A database as a release with this schema left it."""
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", "metrics_pipeline:store/migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_what_was_told_before_there_were_routes_keeps_its_receiver_and_its_group(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    engine = at_revision(url, "0002")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO episodes (key, instance, rule, first_period, last_period, opened_at, worst_tier) "
            "VALUES ('e', 'i', 'refund_rate_surge', '2025-11-11', '2025-11-11', '2025-11-12', 'red')"
        )
        connection.exec_driver_sql("INSERT INTO episode_receivers VALUES ('e', 'file', 'red', 'n', NULL)")
        connection.exec_driver_sql(
            "INSERT INTO outbox (key, receiver, group_key, sequence, reason, tier, payload, state, created_at, next_attempt_at)"
            " VALUES ('n', 'file', 'refund_rate_surge', 1, 'first', 'red', '{}', 'sent', '2025-11-12', '2025-11-12')"
        )
    engine.dispose()
    store: Store = open_url(url)
    with store.reading() as connection:
        [pair] = dispatch.pairs_of_episodes(connection, ["e"])
        rule = connection.execute(sa.text("SELECT rule FROM outbox")).scalar_one()
        assert dispatch.due_groups(connection, START) == set()
    store.close()
    assert (pair.group_key, pair.wanted, pair.tier) == ('{}:{alertname="refund_rate_surge"}', "red", "red")
    assert rule == "refund_rate_surge"
