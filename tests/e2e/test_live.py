"""Live connections through whole gateways: a browser-like client can tell revoked, expired and going away apart."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from joserfc import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from tests.edge import GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, config_text
from tests.keys.key_server import answer, key_server
from tests.redis_server import RedisServer
from tests.tokens.mint import base64url

pytestmark = [pytest.mark.asyncio, pytest.mark.e2e]

Start = Callable[..., GatewayProcess]
SOON_S = 25.0  # for what happens within milliseconds on a machine that has time


@dataclass
class SocketUpstream:
    """A WebSocket server that echoes, closes as it is told to, and remembers how it was asked and how it ended."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    ends: asyncio.Queue[tuple[int | None, str | None]] = field(default_factory=asyncio.Queue)

    async def talk(self, connection: ServerConnection) -> None:
        """Echo; `close 4000 why` closes so; `big` answers more than anybody accepts."""
        try:
            async for message in connection:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    await connection.close(int(code), reason)
                elif message == "vanish":
                    connection.transport.abort()
                else:
                    await connection.send("x" * 200_000 if message == "big" else message)
        except ConnectionClosed:
            pass
        self.ends.put_nowait((connection.close_code, connection.close_reason))

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Remember; refuse `/api/no`."""
        self.requests.append(request)
        if request.path == "/api/no":
            response = connection.respond(418, "not here\n")
            response.headers["Set-Cookie"] = "a=b"
            return response
        return None


@pytest_asyncio.fixture
async def sockets() -> AsyncIterator[SocketUpstream]:
    """An echoing upstream that knows the subprotocols `chat.v1` and `chat.v2`."""
    upstream = SocketUpstream()
    async with serve(
        upstream.talk,
        "127.0.0.1",
        0,
        process_request=upstream.judge,
        subprotocols=["chat.v2", "chat.v1"],  # type: ignore[list-item]  # plain strings are
        select_subprotocol=lambda _, offered: offered[0] if offered else None,
    ) as server:
        upstream.port = next(iter(server.sockets)).getsockname()[1]
        yield upstream


async def stream_events(seen: SeenRequest, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream's script: one event, and then nothing for ever; `/api/download` is no event stream."""
    kind = b"application/octet-stream" if b"download" in seen.line else b"text/event-stream"
    piece = b"data: hello\n\n"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await writer.drain()
    await asyncio.Event().wait()


@pytest_asyncio.fixture
async def events() -> AsyncIterator[RecordingUpstream]:
    """An upstream of event streams."""
    server = await RecordingUpstream.start(stream_events)
    yield server
    await server.close()


def site(
    issuer: TestIssuer, sockets: SocketUpstream, events: RecordingUpstream, redis_url: str, workers: int = 1
) -> str:
    """WebSockets below `/api`, event streams at `/api/events`, and one route of each manner."""
    return config_text(
        issuer.yaml() + "    leeway: 0s\n",
        f"http://127.0.0.1:{sockets.port}",
        workers=workers,
        extra=f"denylist: {{store: {redis_url}}}\n",
        routes="""\
  - {name: events, path: /api/events, upstream: events}
  - {name: download, path: /api/download, upstream: events}
  - {name: plain, path: /plain, upstream: app, websocket: false}
  - {name: small, path: /small, upstream: app, websocket: {max_message: 1KiB, origins: ["https://app.example"]}}
  - {name: patient, path: /patient, upstream: app, on_revoke: finish}
  - {name: cookie, path: /cookie, upstream: app, credentials: {cookie: session}}
""",
    ).replace("upstreams:\n", f"upstreams:\n  events: {{endpoints: [{events.url}]}}\n")


@pytest.fixture
def gateway(
    issuer: TestIssuer, sockets: SocketUpstream, events: RecordingUpstream, redis_url: str, start_gateway: Start
) -> GatewayProcess:
    """A gateway on that site, not started."""
    return start_gateway(site(issuer, sockets, events, redis_url))


@asynccontextmanager
async def opened(gateway: GatewayProcess, target: str, token: str | None = None, **options: Any) -> AsyncIterator[Any]:
    """A WebSocket as a client that can set headers opens it."""
    headers = options.pop("headers", {})
    if token is not None:
        headers = {**headers, "Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{gateway.port}{target}"
    async with connect(url, additional_headers=headers, proxy=None, **options) as connection:
        yield connection


async def refusal(gateway: GatewayProcess, target: str, token: str | None = None, **options: Any) -> tuple[int, str]:
    """Status and code of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with opened(gateway, target, token, **options):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body)["code"]


async def end_of(connection: ClientConnection) -> tuple[int | None, str | None]:
    """How a WebSocket ended, as `onclose` would tell a page."""
    async with asyncio.timeout(SOON_S):
        await connection.wait_closed()
    return connection.close_code, connection.close_reason


class EventSource:
    """A raw reader of one event stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @property
    def has_more(self) -> bool:
        """Whether anything has come since, the end included."""
        return bool(self._reader._buffer) or self._reader.at_eof()  # type: ignore[attr-defined]  # nothing public says

    async def chunk(self) -> bytes | None:
        """The next chunk; b"" for the last one, None when the connection closed without it."""
        async with asyncio.timeout(SOON_S):
            line = await self._reader.readline()
            if not line:
                return None
            data = await self._reader.readexactly(int(line, 16) + 2)
            return data[:-2]


@asynccontextmanager
async def listening(gateway: GatewayProcess, token: str, target: str = "/api/events") -> AsyncIterator[EventSource]:
    """A stream whose first piece has been read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(SOON_S):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            stream = EventSource(reader)
            assert await stream.chunk() == b"data: hello\n\n"
        yield stream
    finally:
        writer.close()


def last_event(code: str) -> bytes:
    """What an event stream ends with."""
    return b'event: gateway\ndata: {"code":"%b"}\n\n' % code.encode()


def revoke(redis: RedisServer, user: str) -> None:
    """One command of any backend."""
    redis.cli("SET", f"gateway:deny:subject:main:{user}", f"{time.time():.3f}", "EX", "900")


async def test_a_websocket_is_authenticated_and_carried_like_a_request(
    gateway: GatewayProcess, issuer: TestIssuer, sockets: SocketUpstream
) -> None:
    """The upstream sees who is calling and no token; messages of both kinds pass both ways, whole and in order."""
    async with gateway, opened(gateway, "/api/chat?room=1", issuer.token(), headers={"X-User-Id": "root"}) as socket:
        for message in ("hello", b"\x00\xff", "", "ä" * 30_000, "z"):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "frames"])
        assert await socket.recv() == "in three frames"
        await (await socket.ping())
        [request] = sockets.requests
        assert request.path == "/api/chat?room=1"
        assert request.headers.get_all("X-User-Id") == ["user-1"]
        assert request.headers["Host"] == f"127.0.0.1:{gateway.port}"
        assert "Authorization" not in request.headers
        assert "x-request-id" in socket.response.headers
        assert await gateway.metric("gateway_live_connections", kind="websocket") == 1
        await socket.close(4001, "bye")
        assert await asyncio.wait_for(sockets.ends.get(), SOON_S) == (4001, "bye")
    [line] = [line for line in gateway.log_lines() if line["route"] == "api"]
    assert (line["status"], line["close_code"], line["issuer"]) == (101, 4001, "main")
    assert line["bytes_in"] == line["bytes_out"] > 30_000


async def test_a_browser_brings_its_token_as_a_subprotocol(
    gateway: GatewayProcess, issuer: TestIssuer, sockets: SocketUpstream
) -> None:
    """`bearer, <token>` is taken off the offer; the answer never repeats the token, and chooses something."""
    token = issuer.token()
    async with gateway:
        async with opened(gateway, "/api/chat", subprotocols=["bearer", token, "chat.v1"]) as socket:
            assert socket.subprotocol == "chat.v1"
            await socket.send("hello")
            assert await socket.recv() == "hello"
        async with opened(gateway, "/api/chat", subprotocols=["bearer", token]) as socket:
            assert socket.subprotocol == "bearer"
        for request in sockets.requests:
            assert token not in str(request.headers)
            assert request.headers.get_all("X-User-Id") == ["user-1"]
        assert sockets.requests[0].headers["Sec-WebSocket-Protocol"] == "chat.v1"
        assert "Sec-WebSocket-Protocol" not in sockets.requests[1].headers
        both = await refusal(gateway, "/api/chat", token, subprotocols=["bearer", token])
        lone = await refusal(gateway, "/api/chat", subprotocols=["chat.v1", "bearer"])
        assert both == lone == (400, "bad_request")


async def test_a_handshake_is_refused_as_a_request_would_be(
    gateway: GatewayProcess, issuer: TestIssuer, sockets: SocketUpstream
) -> None:
    """Each refusal is an HTTP response with a problem document; the upstream's own refusal is passed on."""
    async with gateway:
        assert await refusal(gateway, "/api/chat") == (401, "token_missing")
        old = issuer.token(exp=1_000_000_000, iat=999_999_000)
        assert await refusal(gateway, "/api/chat", old) == (401, "token_expired")
        assert await refusal(gateway, "/nowhere", issuer.token()) == (404, "no_route")
        assert await refusal(gateway, "/plain", issuer.token()) == (400, "bad_request")
        assert await refusal(gateway, "/small", issuer.token(), origin="https://evil.example") == (403, "denied")
        assert sockets.requests == []
        with pytest.raises(InvalidStatus) as refused:
            async with opened(gateway, "/api/no", issuer.token()):
                pass
        assert (refused.value.response.status_code, refused.value.response.body) == (418, b"not here\n")
        assert refused.value.response.headers["Set-Cookie"] == "a=b"


async def test_a_cookie_opens_a_websocket_for_pages_of_the_same_host_only(
    gateway: GatewayProcess, issuer: TestIssuer
) -> None:
    """A browser sends cookies with any page's handshake, so a foreign page is refused; an app without pages is not."""
    async with gateway:
        cookie = {"Cookie": f"session={issuer.token()}"}
        here = f"http://127.0.0.1:{gateway.port}"
        for options in ({"origin": here}, {}):
            async with opened(gateway, "/cookie", headers=cookie, **options) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
        assert await refusal(gateway, "/cookie", headers=cookie, origin="https://evil.example") == (403, "denied")


async def test_each_side_learns_how_the_other_ended(
    gateway: GatewayProcess, issuer: TestIssuer, sockets: SocketUpstream
) -> None:
    """Codes and reasons pass; an upstream that vanishes is a 1014, and too long a message is a 1009."""
    async with gateway:
        async with opened(gateway, "/api/chat", issuer.token()) as socket:
            await socket.send("close 4000 that is all")
            assert await end_of(socket) == (4000, "that is all")
        async with opened(gateway, "/api/chat", issuer.token()) as socket:
            await socket.send("vanish")
            assert await end_of(socket) == (1014, "connect_failed")
        while not sockets.ends.empty():
            sockets.ends.get_nowait()
        async with opened(gateway, "/small", issuer.token(), origin="https://app.example") as socket:
            await socket.send("x" * 1025)
            code, _ = await end_of(socket)
            assert code == 1009
            assert (await asyncio.wait_for(sockets.ends.get(), SOON_S))[0] == 1009
        async with opened(gateway, "/small", issuer.token()) as socket:
            await socket.send("big")
            assert await end_of(socket) == (1014, "bad_response")
            assert (await asyncio.wait_for(sockets.ends.get(), SOON_S))[0] == 1009


async def test_a_revoked_user_loses_every_live_connection_and_nobody_else_does(
    issuer: TestIssuer,
    sockets: SocketUpstream,
    events: RecordingUpstream,
    redis_server: RedisServer,
    start_gateway: Start,
) -> None:
    """One SET, two workers: the user's WebSockets close with 1008, streams say why, and coming back gets the same."""
    async with (
        start_gateway(site(issuer, sockets, events, redis_server.url, workers=2)) as gateway,
        opened(gateway, "/api/chat", issuer.token(sub="alice")) as first,
        opened(gateway, "/api/chat", issuer.token(sub="alice")) as second,
        opened(gateway, "/patient", issuer.token(sub="alice")) as patient,
        opened(gateway, "/api/chat", issuer.token(sub="bob")) as other,
        listening(gateway, issuer.token(sub="alice")) as stream,
        listening(gateway, issuer.token(sub="alice"), "/api/download") as download,
        listening(gateway, issuer.token(sub="bob")) as others_stream,
    ):
        alice = issuer.token(sub="alice")
        revoke(redis_server, "alice")
        assert await end_of(first) == await end_of(second) == (1008, "token_revoked")
        assert await stream.chunk() == last_event("token_revoked")
        assert await stream.chunk() == b""
        assert await download.chunk() is None  # cut: an incomplete message (RFC 9112 §8)
        async with asyncio.timeout(SOON_S):  # whichever worker accepts the next has heard of it too
            while await gateway.metric("gateway_denylist_entries", kind="subject") < 1:
                await asyncio.sleep(0.05)
        assert await refusal(gateway, "/api/chat", alice) == (401, "token_revoked")
        assert (await gateway.get("/api/events", alice)).code == "token_revoked"
        for socket in (other, patient):
            await socket.send("still here")
            assert await socket.recv() == "still here"
        assert not others_stream.has_more
        # The other worker's numbers may be a second old.
        async with asyncio.timeout(SOON_S):
            while await gateway.metric("gateway_live_ended_total") < 4:
                await asyncio.sleep(0.05)
        for kind, count in (("websocket", 2), ("events", 1), ("response", 1)):
            assert await gateway.metric("gateway_live_ended_total", kind=kind, reason="token_revoked") == count
    codes = [line["code"] for line in gateway.log_lines() if line.get("code") == "token_revoked"]
    assert len(codes) == 6


async def test_an_expired_token_ends_what_it_opened(gateway: GatewayProcess, issuer: TestIssuer) -> None:
    """The client is told to refresh, not to sign in."""
    async with gateway:
        token = issuer.token(exp=int(time.time()) + 2)
        async with opened(gateway, "/api/chat", token) as socket, listening(gateway, token) as stream:
            assert await end_of(socket) == (1008, "token_expired")
            assert await stream.chunk() == last_event("token_expired")
            assert await stream.chunk() == b""
        assert await refusal(gateway, "/api/chat", token) == (401, "token_expired")


async def test_a_status_or_a_key_that_goes_ends_what_rested_on_it(
    issuer: TestIssuer, sockets: SocketUpstream, events: RecordingUpstream, start_gateway: Start
) -> None:
    """The list is fetched again though nobody asks; the key set, because a token with a new key comes."""
    async with key_server() as lists:
        uri = f"{lists.url}/status"

        def publish(octets: bytes) -> None:
            listed = {"bits": 1, "lst": base64url(zlib.compress(octets)).decode()}
            payload = {"sub": uri, "iat": int(time.time()), "ttl": 1, "status_list": listed}
            header = {"alg": issuer.alg, "kid": issuer.kid, "typ": "statuslist+jwt"}
            token = jwt.encode(header, payload, issuer.keys[issuer.kid], algorithms=[issuer.alg])
            lists.answers["/status"] = answer(token.encode())

        publish(b"\x00")
        section = f"    leeway: 0s\n    revocation: {{status_list: {{origins: [{lists.url}]}}}}\n"
        config = site(issuer, sockets, events, "redis://127.0.0.1:1/0").replace("    leeway: 0s\n", section)
        config = config.replace("denylist: {store: redis://127.0.0.1:1/0}\n", "")
        listed = [issuer.token(status={"status_list": {"idx": index, "uri": uri}}) for index in (0, 1)]
        async with (
            start_gateway(config) as gateway,
            opened(gateway, "/api/chat", listed[0]) as socket,
            opened(gateway, "/api/chat", listed[1]) as other,
            listening(gateway, listed[0]) as stream,
        ):
            publish(b"\x01")
            assert await end_of(socket) == (1008, "token_revoked")
            assert await stream.chunk() == last_event("token_revoked")
            assert await refusal(gateway, "/api/chat", listed[0]) == (401, "token_revoked")
            await other.send("still here")
            assert await other.recv() == "still here"
            issuer.rotate("k2")
            publish(b"\x01")
            del issuer.keys["k1"]
            async with opened(gateway, "/api/chat", issuer.token()) as newer:
                assert await end_of(other) == (1008, "token_revoked")
                await newer.send("hello")
                assert await newer.recv() == "hello"
            assert await refusal(gateway, "/api/chat", listed[1]) == (401, "token_invalid")


async def test_an_issuer_that_is_taken_out_ends_what_its_tokens_opened(
    issuer: TestIssuer, sockets: SocketUpstream, events: RecordingUpstream, redis_url: str, start_gateway: Start
) -> None:
    """A swap leaves what is in flight to its old generation, but not on the word of somebody who is trusted no more."""
    with_it = site(issuer, sockets, events, redis_url)
    section = with_it[with_it.index("issuers:\n") : with_it.index("upstreams:\n")]
    without_it = with_it.replace(
        section, section.replace("  main:", "  other:").replace(issuer.url, "https://o.example")
    )
    async with start_gateway(with_it) as gateway:
        token = issuer.token()
        async with (
            opened(gateway, "/api/chat", token) as socket,
            opened(gateway, "/patient", token) as patient,
            listening(gateway, token) as stream,
        ):
            gateway.write(without_it)
            gateway.signal(signal.SIGHUP)
            assert await end_of(socket) == (1008, "token_revoked")
            assert await stream.chunk() == last_event("token_revoked")
            await patient.send("still here")
            assert await patient.recv() == "still here"
        assert await refusal(gateway, "/api/chat", token) == (401, "token_invalid")


async def test_a_gateway_that_stops_says_so(gateway: GatewayProcess, issuer: TestIssuer) -> None:
    """A client connects again, with the same token, to whoever answers."""
    async with gateway:
        token = issuer.token()
        async with opened(gateway, "/api/chat", token) as socket, listening(gateway, token) as stream:
            gateway.signal(signal.SIGTERM)
            assert await end_of(socket) == (1012, "going_away")
            assert await stream.chunk() == last_event("going_away")
            assert await stream.chunk() == b""
            with pytest.raises(ConnectionRefusedError):  # it was closed before anybody was told
                await gateway.get("/api/events", token)
        assert await asyncio.wait_for(gateway.stop(), SOON_S) == 0
