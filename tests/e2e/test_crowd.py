"""Thousands of live connections over real sockets: whom a revocation ends, and whom it does not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.crowd import Crowd, Kind, gathered, raise_file_limit, upstream_of_crowd
from tests.edge import GatewayProcess, TestIssuer, config_text
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.asyncio, pytest.mark.e2e]

OF_EACH_USER: tuple[Kind, ...] = ("websocket", "websocket", "events", "events")
FILES_BESIDE = 200  # that a worker has open for everything else


def workers_for(connections: int) -> int:
    """As many workers as the limit of open files asks for: each connection has two ends in the gateway."""
    files = raise_file_limit() - FILES_BESIDE
    if connections > files:
        pytest.skip(f"{connections} sockets in one process, and the limit of open files is {files + FILES_BESIDE}")
    # The kernel spreads connections over the workers' sockets, but not evenly.
    return -(-2 * connections // files) + (connections * 2 > files)


@pytest.mark.parametrize(
    "connections",
    [200, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(240)])],
)
async def test_of_many_live_connections_only_the_revoked_users_close(
    connections: int,
    issuer: TestIssuer,
    redis_server: RedisServer,
    start_gateway: Callable[..., GatewayProcess],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    """One SET ends the four connections of one user, each told why; everybody else's go on to carry messages."""
    users = [f"user-{number}" for number in range(connections // len(OF_EACH_USER))]
    tokens = {user: issuer.token(sub=user, exp=int(time.time()) + 3600) for user in users}
    members = [(kind, user, tokens[user]) for user in users for kind in OF_EACH_USER]
    port = free_port()
    gateway = start_gateway(
        config_text(
            issuer.yaml(),
            f"http://127.0.0.1:{port}",
            workers=workers_for(connections),
            upstream_options=f"    pool: {{size: {connections}}}\n",
            extra=f"denylist: {{store: {redis_server.url}}}\n",
        )
    )
    async with upstream_of_crowd(port), gateway, gathered(tmp_path / "crowd", gateway.port, members) as crowd:
        async with asyncio.timeout(120):
            await crowd.until_opened()
        assert (crowd.opened, crowd.refused) == (connections, [])
        await revoke(redis_server, crowd, users[len(users) // 2])
        async with asyncio.timeout(60):
            await crowd.until_echoed(len(users))
        await revoke(redis_server, crowd, users[0])
        assert len(crowd.farewells) == 2 * len(OF_EACH_USER)
        async with asyncio.timeout(10):  # a worker's numbers may be a second old
            while await gateway.metric("gateway_live_connections") > connections - len(crowd.farewells):
                await asyncio.sleep(0.1)
        assert await gateway.metric("gateway_live_connections") == connections - len(crowd.farewells)


async def revoke(redis: RedisServer, crowd: Crowd, user: str) -> None:
    """One command of any backend, and who ended then."""
    before = len(crowd.farewells)
    await asyncio.to_thread(redis.cli, "SET", f"gateway:deny:subject:main:{user}", f"{time.time():.3f}", "EX", "900")
    async with asyncio.timeout(30):
        ended = (await crowd.until_ended(before + len(OF_EACH_USER)))[before:]
    assert {farewell.user for farewell in ended} == {user}
    assert Counter((farewell.kind, farewell.code) for farewell in ended) == {
        ("websocket", "1008 token_revoked"): 2,
        ("events", "token_revoked"): 2,
    }
