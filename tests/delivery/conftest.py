import pytest

from tests.delivery.vendor_stub import VendorStub
from tests.store.databases import emptied_postgres_store, sqlite_store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def store(request, tmp_path):
    """The same test on both databases."""
    with sqlite_store(tmp_path) if request.param == "sqlite" else emptied_postgres_store() as opened:
        yield opened


@pytest.fixture
def stub():
    """The vendors, on a port of this machine."""
    with VendorStub() as vendors:
        yield vendors
