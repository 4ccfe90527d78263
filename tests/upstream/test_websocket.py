"""The upstream's leg of a WebSocket, byte for byte, and the relay: what each side is told of the other's end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.errors import BadResponse, ConnectFailed, GatewayError, UpstreamTimeout
from gateway.telemetry.exchange import Exchange
from gateway.upstream import websocket as module
from gateway.upstream.endpoints import Upstream
from gateway.upstream.relay import Relay
from gateway.upstream.websocket import HandshakeRefused, UpstreamHandshake, accepted_headers, dial
from tests.upstream.scripted import Talk, serving

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most scripts do not answer a goodbye."""
    monkeypatch.setattr(module, "CLOSE_S", 0.05)


DEADLINE_S = 5.0
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def handshake(**changes: Any) -> UpstreamHandshake:
    """What a route asks for, changed as told."""
    fields: dict[str, Any] = {
        "target": b"/a%2fb?c=%20",
        "host": b"Shop.example:80",
        "headers": [(b"cookie", b"a=b"), (b"x-user-id", b"alice"), (b"cookie", b"c=\xe4")],
        "subprotocols": ["chat.v1", "chat.v2"],
        "request_id": b"r1",
        "max_message": 1000,
        "head_timeout_s": DEADLINE_S,
    }
    return UpstreamHandshake(**{**fields, **changes})


def accept(request: bytes, *fields: bytes) -> bytes:
    """The right answer to a handshake."""
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
    key = base64.b64encode(hashlib.sha1(lines[b"Sec-WebSocket-Key"] + GUID).digest())
    head = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*head, b"Sec-WebSocket-Accept: " + key, *fields, b"", b""])


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A server's frame."""
    size = len(payload)
    return bytes([0x80 | opcode]) + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")) + payload


async def receive(talk: Talk) -> tuple[int, bytes]:
    """Opcode and unmasked payload of the gateway's next frame."""
    first, second = await talk.reader.readexactly(2)
    assert second & 0x80, "a client masks"
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await talk.reader.readexactly(2), "big")
    mask = await talk.reader.readexactly(4)
    payload = await talk.reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def exchange() -> Exchange:
    """An open record."""
    return Exchange(0.0, "GET", "h", "/", "192.0.2.1")


async def test_the_upstream_sees_one_exact_handshake() -> None:
    """Path, Host and fields as the route wrote them; the handshake's own fields are new, and offer no extension."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append(await talk.request())
        await talk.say(accept(seen[0], b"Sec-WebSocket-Protocol: chat.v2", b"Set-Cookie: a=b", b"Set-Cookie: c=d"))
        await talk.closed()

    record = exchange()
    async with serving(script) as (server, upstream):
        given = [(b"sec-websocket-extensions", b"permessage-deflate"), (b"sec-websocket-key", b"theirs"), (b"a", b"b")]
        leg = await dial(handshake(headers=[*handshake().headers, *given]), upstream, record)
        fields = accepted_headers(leg, b"r1")
        leg.transport.abort()
        assert record.endpoint == f"127.0.0.1:{server.port}"
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"GET /a%2fb?c=%20 HTTP/1.1"
    assert lines[1] == b"Host: Shop.example:80"
    assert lines[-6:-2] == [b"cookie: a=b", b"x-user-id: alice", b"cookie: c=\xe4", b"a: b"]
    assert b"Sec-WebSocket-Protocol: chat.v1, chat.v2" in lines
    assert b"extensions" not in seen[0].lower()
    assert b"theirs" not in seen[0]
    assert [value for name, value in fields if name == b"set-cookie"] == [b"a=b", b"c=d"]
    assert {b"upgrade", b"connection", b"sec-websocket-accept"}.isdisjoint(name for name, _ in fields)
    assert (b"x-request-id", b"r1") in fields


async def test_an_upstream_may_want_its_own_host() -> None:
    """With `host: endpoint` it sees the endpoint's authority."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append(await talk.request())
        await talk.say(accept(seen[0]))
        await talk.closed()

    async with serving(script, host="endpoint") as (server, upstream):
        (await dial(handshake(), upstream, exchange())).transport.abort()
    assert b"Host: 127.0.0.1:%d\r\n" % server.port in seen[0]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectFailed),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", BadResponse),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: c2hvcnQ=\r\n\r\n",
            BadResponse,
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BadResponse),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", BadResponse),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", BadResponse),  # no refusal is that long
    ],
)
async def test_a_broken_answer_is_the_upstreams_fault(answer: bytes, error: type[GatewayError]) -> None:
    """Whatever comes, the connection is closed and the client gets a 502."""

    async def script(talk: Talk) -> None:
        await talk.request()
        if answer:
            await talk.say(answer)
            await talk.closed()

    async with serving(script) as (_, upstream):
        with pytest.raises(error):
            await dial(handshake(), upstream, exchange())


async def test_an_unaccepted_choice_is_the_upstreams_fault() -> None:
    """A subprotocol or an extension that was not offered."""
    for field in (b"Sec-WebSocket-Protocol: other", b"Sec-WebSocket-Extensions: permessage-deflate"):

        async def script(talk: Talk, field: bytes = field) -> None:
            await talk.say(accept(await talk.request(), field))
            await talk.closed()

        async with serving(script) as (_, upstream):
            with pytest.raises(BadResponse):
                await dial(handshake(), upstream, exchange())


async def test_an_upstream_that_does_not_answer_is_given_up() -> None:
    """After the time for a response head."""

    async def script(talk: Talk) -> None:
        await talk.closed()

    async with serving(script) as (_, upstream):
        with pytest.raises(UpstreamTimeout):
            await dial(handshake(head_timeout_s=0.05), upstream, exchange())


async def test_an_endpoint_that_cannot_be_reached_is_left_out() -> None:
    """The next one is tried, by the rules for requests."""

    async def script(talk: Talk) -> None:
        await talk.say(accept(await talk.request()))
        await talk.closed()

    async with serving(script) as (server, reachable):
        config = reachable.config.model_copy(update={"endpoints": ("http://127.0.0.1:1", server.url)})
        upstream = Upstream("two", config)
        for _ in range(2):
            (await dial(handshake(), upstream, exchange())).transport.abort()
        assert [endpoint.failures > 0 for endpoint in upstream.endpoints] == [True, False]


async def test_an_ordinary_answer_is_passed_on() -> None:
    """Status, fields and body, framed anew."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(
            b"HTTP/1.1 403 Forbidden\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Why: no\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b"2\r\nno\r\n0\r\n\r\n"
        )
        await talk.closed()

    async with serving(script) as (_, upstream):
        with pytest.raises(HandshakeRefused) as refused:
            await dial(handshake(), upstream, exchange())
    assert (refused.value.status, refused.value.body) == (403, b"no")
    names = [name for name, _ in refused.value.headers]
    assert (b"x-why", b"no") in refused.value.headers
    assert {b"x-hop", b"transfer-encoding", b"content-length", b"connection"}.isdisjoint(names)


class Client:
    """The client's side of a relay: messages to be received, and what was sent."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        return await self.coming.get()

    async def send(self, message: dict[str, Any]) -> None:
        """Take note."""
        self.sent.put_nowait(message)

    async def next(self) -> dict[str, Any]:
        """What was sent next."""
        return await asyncio.wait_for(self.sent.get(), DEADLINE_S)


@asynccontextmanager
async def relaying(script: Any) -> AsyncIterator[tuple[Client, Relay, Exchange, asyncio.Task[None]]]:
    """A relay to an upstream whose script begins after the handshake."""

    async def whole(talk: Talk) -> None:
        await talk.say(accept(await talk.request()))
        await script(talk)
        await talk.closed()

    client, record = Client(), exchange()
    async with serving(whole) as (_, upstream):
        leg = await dial(handshake(), upstream, record)
        relay = Relay(leg, client.receive, client.send, record)
        task = asyncio.create_task(relay.run())
        try:
            yield client, relay, record, task
            await asyncio.wait_for(task, DEADLINE_S)
        finally:
            task.cancel()
            leg.transport.abort()


async def test_messages_pass_both_ways() -> None:
    """Text as text, bytes as bytes; both are counted."""

    async def script(talk: Talk) -> None:
        assert await receive(talk) == (TEXT, "ä".encode())
        assert await receive(talk) == (BINARY, b"\xff")
        await talk.say(frame("ö".encode()) + frame(b"\xfe", BINARY) + frame(b"hi", PING))
        assert await receive(talk) == (PONG, b"hi")
        assert await receive(talk) == (CLOSE, (4000).to_bytes(2, "big") + b"bye")
        await talk.say(frame((4000).to_bytes(2, "big") + b"bye", CLOSE))

    async with relaying(script) as (client, _, record, _):
        client.coming.put_nowait({"type": "websocket.receive", "text": "ä"})
        client.coming.put_nowait({"type": "websocket.receive", "bytes": b"\xff"})
        assert await client.next() == {"type": "websocket.send", "text": "ö"}
        assert await client.next() == {"type": "websocket.send", "bytes": b"\xfe"}
        client.coming.put_nowait({"type": "websocket.disconnect", "code": 4000, "reason": "bye"})
    assert (record.close_code, record.code, record.bytes_in, record.bytes_out) == (4000, "", 2, 2)


@pytest.mark.parametrize(
    ("code", "reason", "told", "record"),
    [
        (1000, "", (1000, b""), ""),
        (1005, "", (1000, b""), ""),  # a close without a code cannot be said by the library
        (1006, "", (1001, b""), "client_gone"),
        (1009, "too big", (1009, b"too big"), ""),
        (1012, "going_away", (1001, b""), "going_away"),
    ],
)
async def test_the_upstream_is_told_how_the_client_ended(
    code: int, reason: str, told: tuple[int, bytes], record: str
) -> None:
    """Its code, or what stands for it."""
    heard = []

    async def script(talk: Talk) -> None:
        heard.append(await receive(talk))

    async with relaying(script) as (client, _, exchange, _):
        client.coming.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        assert (await client.next())["type"] == "websocket.close"
    assert heard == [(CLOSE, told[0].to_bytes(2, "big") + told[1])]
    assert exchange.code == record


@pytest.mark.parametrize(
    ("says", "close", "record"),
    [
        (frame((4001).to_bytes(2, "big") + b"later", CLOSE), (4001, "later"), ""),
        (frame(b"", CLOSE), (1005, ""), ""),
        (frame(b"x" * 1001), (1014, "bad_response"), "bad_response"),
        (frame(b"\xff"), (1014, "bad_response"), "bad_response"),
        (b"\xf1\x00", (1014, "bad_response"), "bad_response"),
        (None, (1014, "connect_failed"), "connect_failed"),
    ],
)
async def test_the_client_is_told_how_the_upstream_ended(
    says: bytes | None, close: tuple[int, str], record: str
) -> None:
    """Its code and reason; 1014 with ours for whatever is the upstream's fault."""

    async def script(talk: Talk) -> None:
        if says is None:
            talk.reset()
        else:
            await talk.say(says)

    async with relaying(script) as (client, _, exchange, _):
        message = await client.next()
        assert (message["type"], message["code"], message["reason"]) == ("websocket.close", *close)
    assert exchange.code == record


@pytest.mark.parametrize(
    ("code", "client_end", "upstream_end"),
    [
        ("token_revoked", (1008, "token_revoked"), (1008, b"token_revoked")),
        ("token_expired", (1008, "token_expired"), (1008, b"token_expired")),
        ("going_away", (1012, "going_away"), (1001, b"")),
    ],
)
async def test_both_are_told_when_the_gateway_ends_it(
    code: str, client_end: tuple[int, str], upstream_end: tuple[int, bytes]
) -> None:
    """The client first, for the upstream may take its time."""
    heard = []

    async def script(talk: Talk) -> None:
        heard.append(await receive(talk))

    async with relaying(script) as (client, relay, exchange, _):
        relay.end(code)
        relay.end("token_expired")  # the first end counts
        message = await client.next()
        assert (message["code"], message["reason"]) == client_end
    assert heard == [(CLOSE, upstream_end[0].to_bytes(2, "big") + upstream_end[1])]
    assert (exchange.code, exchange.close_code) == (code, client_end[0])


async def test_an_upstream_that_never_says_goodbye_is_cut_off() -> None:
    """After a moment, also if it takes no bytes; the client does not wait for it."""
    over = asyncio.Event()

    async def script(talk: Talk) -> None:
        await over.wait()  # it reads nothing, and so keeps everything unsaid

    async with relaying(script) as (client, relay, _, task):
        for _ in range(200):
            client.coming.put_nowait({"type": "websocket.receive", "bytes": b"x" * 100_000})
        async with asyncio.timeout(DEADLINE_S):
            while not relay._leg.paused:
                await asyncio.sleep(0)
        relay.end("token_revoked")
        assert (await client.next())["code"] == 1008
        await asyncio.wait_for(task, DEADLINE_S)
        over.set()


async def test_a_cancelled_relay_says_that_it_goes_away() -> None:
    """At the end of the time to drain."""

    async def script(talk: Talk) -> None:
        assert (await receive(talk))[0] == CLOSE

    async with serving(lambda talk: _accepting(talk, script)) as (_, upstream):
        client, record = Client(), exchange()
        leg = await dial(handshake(), upstream, record)
        task = asyncio.create_task(Relay(leg, client.receive, client.send, record).run())
        await asyncio.sleep(0)
        task.cancel()
        assert (await client.next())["code"] == 1012
        with pytest.raises(asyncio.CancelledError):
            await task
    assert record.code == "going_away"


async def _accepting(talk: Talk, script: Any) -> None:
    await talk.say(accept(await talk.request()))
    await script(talk)
