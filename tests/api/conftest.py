"""One running server for the tests of a module; each begins in the open."""

from __future__ import annotations

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store import open_store
from tests.api.world import World, publish_shop, served, settings_of


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    settings = settings_of(tmp_path_factory.mktemp("api"), api_per_minute=60_000, api_burst=5_000)
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    publish_shop(settings.published_dir)
    store = open_store(settings)
    with served(settings) as url:
        yield World(settings, store, catalogue, url)
    store.close()


@pytest.fixture
def world(running):
    yield running
    running.open_up()
    with running.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM access_grants")
