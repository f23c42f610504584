"""Opening the store."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from metrics_pipeline.settings import Settings
from metrics_pipeline.store import StoreError, open_store
from metrics_pipeline.store.bulk import among
from metrics_pipeline.store.database import open_url
from metrics_pipeline.store.migrations import HEAD, KNOWN
from metrics_pipeline.store.tables import deliveries, metadata


def test_the_migrations_give_the_tables_of_the_code(store):
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_known_revisions_are_those_of_the_folder():
    config = Config()
    config.set_main_option("script_location", "metrics_pipeline:store/migrations")
    scripts = ScriptDirectory.from_config(config)
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == KNOWN


def test_a_store_lies_below_the_home_and_keeps_its_rows(tmp_path):
    settings = Settings(home=tmp_path / "new" / "home")
    first = open_store(settings)
    with first.writing() as connection:
        connection.execute(sa.insert(deliveries).values(**_delivery()))
    first.close()
    again = open_store(settings)
    with again.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(deliveries)).scalar_one() == 1
    assert (settings.home / "store.db").exists()
    again.close()


def test_instants_are_kept_in_utc_and_need_a_zone(store):
    shanghai = datetime(2025, 11, 11, 9, tzinfo=timezone(timedelta(hours=8)))
    with store.writing() as connection:
        connection.execute(sa.insert(deliveries).values(**_delivery(at=shanghai)))
        assert connection.execute(sa.select(deliveries.c.at)).scalar_one() == datetime(2025, 11, 11, 1, tzinfo=UTC)
    naive = sa.insert(deliveries).values(**_delivery(at=datetime(2025, 11, 11)))
    with store.writing() as connection, pytest.raises(sa.exc.StatementError, match="with a zone"):
        connection.execute(naive)


def test_an_error_inside_a_transaction_leaves_nothing(store):
    def die() -> None:
        with store.writing() as connection:
            connection.execute(sa.insert(deliveries).values(**_delivery()))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        die()
    with store.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(deliveries)).scalar_one() == 0


def test_a_store_of_a_newer_release_is_refused(store):
    with store.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"newer release \(schema 9999.*upgrade"):
        open_url(store.engine.url.render_as_string(hide_password=False))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url at all", "METRICS_STORE_URL is not a database URL"),
        ("cobol://host/db", "unknown kind of database"),
        ("postgresql+asyncpg://u:secret@127.0.0.1/db", "needs the Python package|asyncpg"),
        ("sqlite:////proc/nowhere/store.db", "cannot be opened|No such file"),
    ],
)
def test_what_cannot_be_opened_is_said_without_a_password(url, said):
    with pytest.raises((StoreError, OSError), match=said) as failure:
        open_url(url)
    assert "secret" not in str(failure.value)


def test_eight_processes_may_open_a_new_store_at_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    # Not a Pool: one that is left before its workers are idle terminates them, and may wait for one for ever.
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_open, [url] * 8)) == [HEAD] * 8


def _open(url: str) -> str:
    store = open_url(url)
    with store.reading() as connection:
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
    store.close()
    return version


def _delivery(at: datetime = datetime(2025, 11, 11, tzinfo=UTC)) -> dict[str, object]:
    return {"notification": "k", "receiver": "file", "attempt": 1, "at": at, "outcome": "sent", "answer": "ok"}


def test_texts_are_found_among_many_values_whatever_is_in_them(store):
    names = ["plain", 'it\'s "quoted"', "华北|app", "back\\slash", "%_", ""]
    with store.writing() as connection:
        for number, name in enumerate(names):
            values = {"notification": name, "receiver": "file", "attempt": number, "outcome": "sent", "answer": ""}
            connection.execute(sa.insert(deliveries).values(**values, at=datetime(2025, 11, 12, tzinfo=UTC)))
        query = sa.select(deliveries.c.notification).order_by(deliveries.c.id)

        def found(*wanted: str) -> list[str]:
            return list(connection.execute(query.where(among(connection, deliveries.c.notification, wanted))).scalars())

        assert found(*names, "absent") == names
        assert found('it\'s "quoted"', "%_") == ['it\'s "quoted"', "%_"]
        assert found() == []
