"""Stores of every kind, in a fresh state. Everything here runs on uvloop, as the gateway does."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from gateway.idempotency.contract import Claim, Store
from gateway.idempotency.redis_store import RedisStore
from gateway.idempotency.sqlite_store import SqliteStore

KINDS = ("standalone", "unix", "tls", "sentinel", "cluster", "sqlite")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


def claim_to(name: str, fingerprint: bytes = b"f" * 32, ttl_s: float = 60.0) -> Claim:
    """A claim with an owner of its own."""
    return Claim(name, fingerprint, secrets.token_bytes(16), ttl_s)


@pytest.fixture
def name() -> str:
    """The name of a record that nobody has."""
    return uuid.uuid4().hex * 2


def open_store(kind: str, request: pytest.FixtureRequest, folder: Path) -> Store:
    """A store of one kind, as another gateway opens it too."""
    if kind == "sqlite":
        return SqliteStore(folder / "answers.db", "gateway:idem:", 2.0)
    ca = None
    if kind == "tls":
        server = request.getfixturevalue("tls_server")
        url, ca = server.url, server.certificate
    elif kind in ("sentinel", "cluster"):
        url = request.getfixturevalue(f"{kind}_deployment").url
    else:
        redis = request.getfixturevalue("redis_session")
        url = redis.unix_url if kind == "unix" else redis.url
    return RedisStore(url, "gateway:idem:", ca, 5.0)


@pytest_asyncio.fixture(params=KINDS)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """The same store as two gateways see it, of each kind in turn."""
    pair = open_store(request.param, request, tmp_path), open_store(request.param, request, tmp_path)
    yield pair
    for store in pair:
        await store.close()
