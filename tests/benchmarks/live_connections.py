"""Ten thousand live connections through one gateway, and one user who is revoked.

Half are WebSockets and half event streams; each of 2,500 users has two of each. All along 500 messages a second go to
the upstream and back. Two workers, because each connection takes a descriptor on either side of the gateway and 20,000
is the limit of many systems; both share the machine with clients, upstream and Redis, so the times are those of a
machine that is full. A stall counts only the processor time that the worker itself took (`watchful`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.benchmarks.measure import percentile
from tests.benchmarks.site import free_port
from tests.benchmarks.watched import Figure, Stage, Stalls, Watched
from tests.e2e.crowd import Crowd, Kind, gathered, upstream_of_crowd

CONNECTIONS: Final = 10_000
OF_EACH_USER: Final[tuple[Kind, ...]] = ("websocket", "websocket", "events", "events")
REVOKED_USERS: Final = 20
_MESSAGES: Final = 5_000
_DEADLINE_S: Final = 180.0


async def live_connections(stage: Stage) -> list[Figure]:
    """Open them all, let them talk, revoke users one by one, then everybody."""
    with stage.redis() as client:
        client.flushall()
    users = [f"user-{number}" for number in range(CONNECTIONS // len(OF_EACH_USER))]
    lasts_until = int(time.time()) + 3600
    tokens = {user: stage.issuer.token(sub=user, exp=lasts_until) for user in users}
    members = [(kind, user, tokens[user]) for user in users for kind in OF_EACH_USER]
    async with asyncio.timeout(_DEADLINE_S), _gateway(stage) as gateway:
        empty_mib, stalls = gateway.resident_mib(), Stalls(gateway)
        await stalls.start()
        async with gathered(stage.folder / "crowd", gateway.port, members) as crowd:
            await crowd.until_opened()
            figures = [
                Figure("live connections open at once", crowd.opened, ""),
                Figure("… refused", len(crowd.refused), "", 1),
                Figure("… opened in", crowd.opening_s, "s"),
                Figure("… loop stall meanwhile, at most (64 handshakes at a time)", await stalls.longest_ms(), "ms"),
                Figure(
                    "… memory of the gateway for each",
                    (gateway.resident_mib() - empty_mib) * 1024 / crowd.opened,
                    "KiB",
                    50,
                ),
            ]
            return figures + await _talk(crowd, stalls) + await _revoke(stage, crowd, stalls, users)


@asynccontextmanager
async def _gateway(stage: Stage) -> AsyncIterator[Watched]:
    port = free_port()
    config = stage.config(2, upstream_port=port, upstream_options=f"    pool: {{size: {CONNECTIONS}}}\n")
    gateway = Watched(stage.folder, config, stage.site.cores.proxy | stage.site.cores.load)
    async with upstream_of_crowd(port):
        try:
            await gateway.start()
            yield gateway
        finally:
            await gateway.stop()


async def _talk(crowd: Crowd, stalls: Stalls) -> list[Figure]:
    await stalls.start()
    crowd.slowest_s = 0.0
    await crowd.until_echoed(_MESSAGES)
    return [
        Figure(f"… loop stall during {_MESSAGES:,} messages, at most", await stalls.longest_ms(), "ms", 20.1),
        Figure("… slowest of them, to the upstream and back", crowd.slowest_s * 1000, "ms"),
    ]


async def _revoke(stage: Stage, crowd: Crowd, stalls: Stalls, users: list[str]) -> list[Figure]:
    """Some users, each by one SET; then the issuer."""
    each = len(OF_EACH_USER)
    await stalls.start()
    delays_ms, others = [], 0
    for user in users[:: len(users) // REVOKED_USERS][:REVOKED_USERS]:
        before = len(crowd.farewells)
        sent = await _set(stage, f"subject:main:{user}")
        farewells = (await crowd.until_ended(before + each))[before:]
        delays_ms.append(max(farewell.at - sent for farewell in farewells) * 1000)
        others += sum(farewell.user != user for farewell in farewells)
    stall_ms, ended = await stalls.longest_ms(), len(crowd.farewells)
    others += ended - each * REVOKED_USERS
    delays_ms.sort()
    await stalls.start()
    sent = await _set(stage, "issuer:main")
    last = max(farewell.at for farewell in await crowd.until_ended(crowd.opened))
    wrong = {code: count for code, count in crowd.by_code().items() if not code[1].endswith("token_revoked")}
    return [
        Figure("one user revoked: from SET to the last close, median", percentile(delays_ms, 0.5), "ms"),
        Figure(f"… the slowest of {REVOKED_USERS} users", delays_ms[-1], "ms", 250),
        Figure("… loop stall meanwhile, at most", stall_ms, "ms", 20.1),
        Figure("… connections of others that closed", others, "", 1),
        Figure(f"everybody revoked: {crowd.opened - ended:,} connections closed in", last - sent, "s"),
        Figure("… loop stall meanwhile, at most", await stalls.longest_ms(), "ms", 50.1),
        Figure("… connections that were not told why", sum(wrong.values()), "", 1),
    ]


async def _set(stage: Stage, key: str) -> float:
    """Revoke; the monotonic moment before the SET was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.redis_port)
    sent = time.monotonic()
    writer.write(f"SET gateway:deny:{key} {time.time():.4f} EX 900\r\n".encode())
    await reader.readline()
    writer.close()
    return sent
