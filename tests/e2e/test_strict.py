"""Strict routes of a whole gateway: a revocation counts once the store has it, and silence has its answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.edge import GatewayProcess, RecordingUpstream, TestIssuer, config_text
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

ROUTES = """\
  - {name: pay, path: /pay, upstream: app, denylist: {consistency: strict, when_stale: refuse}}
  - {name: look, path: /look, upstream: app, denylist: {consistency: strict, when_stale: allow}}
"""


async def test_a_strict_route_asks_and_says_what_it_does_when_there_is_no_answer(
    upstream: RecordingUpstream,
    issuer: TestIssuer,
    own_redis: RedisServer,
    start_gateway: Callable[..., GatewayProcess],
) -> None:
    """Refused in the request after the `SET`; with Redis frozen `refuse` gives 503 and `allow` what is known."""
    denylist = f"denylist: {{store: '{own_redis.url}', max_staleness: 30s, timeout: 200ms}}\n"
    async with start_gateway(config_text(issuer.yaml(), upstream.url, extra=denylist, routes=ROUTES)) as gateway:
        for _ in range(20):
            token_id = uuid.uuid4().hex
            token = issuer.token(jti=token_id)
            assert (await gateway.get("/pay", token)).status == 200
            own_redis.cli("SET", f"gateway:deny:token:main:{token_id}", "1", "EX", 60)
            assert (await gateway.get("/pay", token)).code == "token_revoked"
        good = issuer.token()
        assert (await gateway.get("/pay", good)).status == 200

        own_redis.freeze()
        try:
            refused = await gateway.get("/pay", good)
            assert (refused.status, refused.code) == (503, "denylist_stale")
            assert refused.all(b"retry-after")
            assert (await gateway.get("/look", good)).status == 200
            assert (await gateway.get("/look", token)).code == "token_revoked"
            assert (await gateway.get("/api/a", good)).status == 200
        finally:
            own_redis.thaw()
        assert await gateway.metric("gateway_denylist_lookups_total", outcome="unanswered") == 2
