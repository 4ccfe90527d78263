"""Stores for the issuer's tests: SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.issuer.store import Database
from tests.e2e.conftest import start_gateway, upstream
from tests.issuer.desk import Desk
from tests.issuer.postgres import PostgresServer, why_not

__all__ = ["start_gateway", "upstream"]  # whole gateways, for the flows


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that the tests of one process share."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, of either kind."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/issuer.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.fresh()


@pytest_asyncio.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    """An open, empty store."""
    database = Database(store_url)
    await database.open()
    yield database
    await database.close()


@pytest_asyncio.fixture
async def desk(store_url: str) -> AsyncIterator[Desk]:
    """An issuer with open registration and a client in front of it, on either store."""
    async with Desk(store_url) as desk:
        yield desk


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of an empty embedded store, where the kind of store does not matter."""
    return f"sqlite://{tmp_path}/issuer.db"
