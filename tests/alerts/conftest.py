import pytest

from tests.store.databases import emptied_postgres_store, sqlite_store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def store(request, tmp_path):
    """The same test on both databases."""
    with sqlite_store(tmp_path) if request.param == "sqlite" else emptied_postgres_store() as opened:
        yield opened
