"""Whole gateways that issue and check: the story, and several gateways on one store or by URL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
import pytest_asyncio

from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.house import App, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client for sockets."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


async def until_refused(app: App, path: str = "/api/x") -> httpx2.Response:
    """The answer once the revocation has arrived, which takes milliseconds."""
    for _ in range(200):
        answer = await app.get(path)
        if answer.status_code != 200:
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError("the token is still good")


async def test_the_story_from_register_to_refused(
    store_url: str, redis_url: str, upstream: RecordingUpstream, start_gateway: Start, http: httpx2.AsyncClient
) -> None:
    """Register, call with identity, refresh, log out on one gateway, be refused on the other."""
    async with start_gateway(config_text(store_url, redis_url, upstream.url)) as one:
        text = config_text(store_url, redis_url, upstream.url, port=str(one.port))
        async with start_gateway(text) as two:
            app = App(http, [one], random.Random(1))
            await app.register("alice", email="a@example.org", platform="desktop")
            app.gateways = [two]
            assert (await app.get("/api/x")).status_code == 200
            assert upstream.seen[-1].all(b"x-user-email") == [b"a@example.org"]
            assert upstream.seen[-1].all(b"authorization") == []
            assert await app.refresh() == 200
            assert (await app.get("/api/x")).status_code == 200
            app.gateways = [one]
            assert (await app.post("logout", {"refresh_token": app.refresh_token})).status_code == 204
            app.gateways = [two]
            assert (await until_refused(app)).json()["code"] == "token_revoked"
            assert await app.refresh() == 401
    line = next(line for line in one.log_lines() if line["path"] == "/auth/register")
    assert (line["route"], line["status"]) == ("(issuer)", 201)
    assert app.refresh_token not in one.log + two.log


async def test_other_gateways_trust_it_by_url(
    sqlite_url: str, redis_url: str, upstream: RecordingUpstream, start_gateway: Start, http: httpx2.AsyncClient
) -> None:
    """To a gateway without the section it is an issuer like any other: discovery and a key set."""
    async with start_gateway(config_text(sqlite_url, redis_url, upstream.url)) as one:
        plain = f"""\
server: {{listen: "127.0.0.1:{{port}}"}}
admin: {{listen: "127.0.0.1:{{admin}}"}}
denylist: {{store: "{redis_url}"}}
issuers:
  own: {{issuer: "http://127.0.0.1:{one.port}/auth", audience: [api], algorithms: [ES256]}}
upstreams: {{app: {{endpoints: ["{upstream.url}"]}}}}
routes:
  - {{name: api, path: /api/**, upstream: app}}
"""
        async with start_gateway(plain) as two:
            app = App(http, [one], random.Random(1))
            await app.register("alice")
            app.gateways = [two]
            assert (await app.get("/api/x")).status_code == 200
            app.gateways = [one]
            await app.post("logout", {"refresh_token": app.refresh_token})
            app.gateways = [two]
            assert (await until_refused(app)).json()["code"] == "token_revoked"
