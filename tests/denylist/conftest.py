"""Stores in every shape, and replicas that follow them for the length of a test.

Everything here runs on uvloop, as the gateway does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import uvloop

from gateway.config.schema import Denylist
from gateway.denylist.replica import Replica
from gateway.denylist.store import Store, open_store
from tests.denylist.deployments import (
    ClusterSite,
    RedisSite,
    SentinelSite,
    Site,
    SqliteSite,
    TlsServer,
)
from tests.redis_server import RedisServer

SITES = ("standalone", "unix", "tls", "sentinel", "sentinel-tls", "cluster", "cluster-tls", "sqlite")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Following(NamedTuple):
    """A replica and the store that keeps it current, while `task` runs."""

    replica: Replica
    store: Store
    task: asyncio.Task[None]

    def denies(self, token_id: str, now: float | None = None) -> bool:
        """Whether a token of this id is denied."""
        moment = time.time() if now is None else now
        return self.replica.find("main", token_id, None, None, None, None, None, moment) == "token"

    async def stop(self) -> None:
        """End it, as a gateway that is told to stop does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.store.close()
        if not self.task.cancelled():
            self.task.result()


Follow = Callable[[Denylist], Awaitable[Following]]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Follow]:
    """Start gateways' denylists; they are stopped when the test ends."""
    started: list[Following] = []

    async def begin(config: Denylist) -> Following:
        replica = Replica(config.prefix)
        store = open_store(config, replica)
        started.append(Following(replica, store, asyncio.create_task(store.run())))
        return started[-1]

    yield begin
    for following in started:
        await following.stop()


@pytest_asyncio.fixture
async def follow(start: Follow) -> Follow:
    """Start a gateway's denylist and wait until it is loaded."""

    async def begin(config: Denylist) -> Following:
        following = await start(config)
        await eventually(lambda: following.replica.loaded)
        return following

    return begin


async def eventually(holds: Callable[[], Any], deadline_s: float = 15.0) -> None:
    """Wait for what another process brings about; a millisecond between looks."""
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end, "it did not come to hold in time"
        await asyncio.sleep(0.001)


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """An empty store, in each shape in turn."""
    found = _site(request, tmp_path)
    found.empty()
    return found


def _site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    if request.param == "sqlite":
        return SqliteSite(tmp_path / "denylist.db")
    if request.param == "tls":
        tls: TlsServer = request.getfixturevalue("tls_server")
        return RedisSite(tls.server, tls.url, tls.certificate)
    if request.param.startswith("sentinel"):
        which = "sentinel_deployment" if request.param == "sentinel" else "sentinel_over_tls"
        return SentinelSite(request.getfixturevalue(which))
    if request.param.startswith("cluster"):
        which = "cluster_deployment" if request.param == "cluster" else "cluster_over_tls"
        return ClusterSite(request.getfixturevalue(which))
    server: RedisServer = request.getfixturevalue("redis_session")
    return RedisSite(server, server.unix_url if request.param == "unix" else server.url)
