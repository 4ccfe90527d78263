"""A real OpenID provider logs a user out by back-channel, and every gateway ends and refuses what the user has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.server import serve

from tests.e2e.openid import Browser, library, openid_provider
from tests.e2e.test_live import SocketUpstream, end_of, last_event, listening, opened, stream_events
from tests.edge import GatewayProcess, RecordingUpstream, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio, pytest.mark.timeout(240)]

SOON_S = 10.0


@pytest.fixture(scope="module")
def provider_library() -> Path:
    """The provider, installed."""
    return library()


@pytest_asyncio.fixture
async def browsers() -> AsyncIterator[Callable[[str], Browser]]:
    """Browsers of several people."""
    opened_ones: list[Browser] = []

    def make(issuer: str) -> Browser:
        opened_ones.append(Browser(issuer))
        return opened_ones[-1]

    yield make
    for browser in opened_ones:
        await browser.close()


@pytest_asyncio.fixture
async def upstreams() -> AsyncIterator[tuple[SocketUpstream, RecordingUpstream]]:
    """One that echoes over WebSockets, and one of endless event streams."""
    sockets = SocketUpstream()
    events = await RecordingUpstream.start(stream_events)
    async with serve(sockets.talk, "127.0.0.1", 0, process_request=sockets.judge) as server:
        sockets.port = next(iter(server.sockets)).getsockname()[1]
        yield sockets, events
    await events.close()


def configuration(provider: str, sockets: SocketUpstream, events: RecordingUpstream, web: str, redis_url: str) -> str:
    """The issuer by discovery, its logout accepted, and one route of each kind."""
    issuer = f"""\
  main:
    issuer: {provider}
    audience: [api]
    algorithms: [RS256]
    revocation:
      backchannel_logout: {{audience: [app]}}
"""
    text = config_text(
        issuer,
        web,
        extra=f"denylist: {{store: '{redis_url}'}}\n",
        routes="  - {name: events, path: /events, upstream: events}\n  - {name: ws, path: /ws, upstream: ws}\n",
    )
    more = f"  events: {{endpoints: [{events.url}]}}\n  ws: {{endpoints: ['http://127.0.0.1:{sockets.port}']}}\n"
    return text.replace("upstreams:\n", f"upstreams:\n{more}")


async def test_a_log_out_at_the_provider_ends_everything_everywhere(
    provider_library: Path,
    browsers: Callable[[str], Browser],
    upstreams: tuple[SocketUpstream, RecordingUpstream],
    upstream: RecordingUpstream,
    redis_url: str,
    free_port: Callable[[], int],
    start_gateway: Callable[..., GatewayProcess],
) -> None:
    """Refused on both gateways, WebSocket and event stream closed; others, and the user's next login, go on."""
    sockets, events = upstreams
    port = free_port()
    text = configuration(f"http://127.0.0.1:{port}", sockets, events, upstream.url, redis_url)
    told, other = start_gateway(text), start_gateway(text)
    logout_uri = f"http://127.0.0.1:{told.port}/.gateway/main/backchannel-logout"
    async with openid_provider(provider_library, port, logout_uri) as issuer, told, other:
        alices, bobs = browsers(issuer), browsers(issuer)
        alice = (await alices.log_in("alice"))["access_token"]
        bob = (await bobs.log_in("bob"))["access_token"]
        for gateway in (told, other):
            for token in (alice, bob):
                assert (await gateway.get("/api/a", token)).status == 200
        assert upstream.seen[0].all(b"x-user-id") == [b"alice"]

        async with (
            opened(other, "/ws", alice) as socket,
            opened(other, "/ws", bob) as bystander,
            listening(other, alice, "/events") as stream,
            listening(other, bob, "/events") as bobs_stream,
        ):
            for connection in (socket, bystander):
                await connection.send("hello")
                assert await connection.recv() == "hello"

            await alices.log_out()

            assert await end_of(socket) == (1008, "token_revoked")
            assert await stream.chunk() == last_event("token_revoked")
            assert await stream.chunk() == b""
            for gateway in (told, other):
                await until_refused(gateway, alice)
                assert (await gateway.get("/api/a", bob)).status == 200
            await bystander.send("still there")
            assert await bystander.recv() == "still there"
            assert not bobs_stream.has_more

        accepted: dict[str, Any] = {"source": "backchannel_logout", "outcome": "accepted"}
        assert await told.metric("gateway_revocations_received_total", **accepted) == 1
        again = (await alices.log_in("alice"))["access_token"]
        assert (await told.get("/api/a", again)).status == 200
        assert alice.split(".")[1] not in told.log


async def until_refused(gateway: GatewayProcess, token: str) -> None:
    """Within milliseconds, on every worker; then for good."""
    async with asyncio.timeout(SOON_S):
        while (await gateway.get("/api/a", token)).code != "token_revoked":
            await asyncio.sleep(0.005)
    assert (await gateway.get("/api/a", token)).code == "token_revoked"
