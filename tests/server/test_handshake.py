"""The opening handshake of a WebSocket, byte for byte: what is one, what is refused, and what is only an offer."""

import asyncio
from typing import Any

import pytest

from gateway.errors import BadRequest, GatewayError, UpgradeRequired
from gateway.server.handshake import accept_key, subprotocols
from tests.server.wire import Echo, edge

pytestmark = pytest.mark.asyncio

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 §1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def hello(*fields: bytes, target: bytes = b"/chat?room=1", without: bytes = b"") -> bytes:
    """A handshake; `without` leaves one of its fields out."""
    usual = [
        b"Host: shop.example",
        b"Connection: keep-alive, Upgrade",
        b"Upgrade: WebSocket",
        b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
    ]
    lines = [line for line in usual if not without or not line.startswith(without)]
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines, *fields, b"", b""])


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    if size >= 2**16:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + length + b"\0\0\0\0" + payload


class Accepting:
    """Accepts, and echoes until the client is gone; keeps scopes and messages."""

    def __init__(self, **accept: Any) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.ended = asyncio.Event()
        self._accept = accept

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await Echo()(scope, receive, send)
            return
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", **self._accept})
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "websocket.disconnect":
                self.ended.set()
                return
            await send({**message, "type": "websocket.send"})


async def test_the_answer_is_the_one_of_the_specification() -> None:
    """RFC 6455 §1.3 has the example; frames that came with the head are not lost."""
    application = Accepting(headers=[(b"set-cookie", b"a=b"), (b"connection", b"close")], subprotocol="chat.v2")
    async with edge(application, speaks_websocket=True) as server, server.client() as client:
        await client.send(hello(b"Sec-WebSocket-Protocol: chat.v1, chat.v2") + frame(b"early"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head == (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: " + ACCEPT + b"\r\nset-cookie: a=b\r\nsec-websocket-protocol: chat.v2\r\n\r\n"
        )
        assert await client.reader.readexactly(7) == b"\x81\x05early"
    [scope] = application.scopes
    assert (scope["type"], scope["scheme"], scope["method"]) == ("websocket", "ws", "GET")
    assert (scope["raw_path"], scope["query_string"]) == (b"/chat", b"room=1")
    assert scope["subprotocols"] == ["chat.v1", "chat.v2"]
    assert (b"upgrade", b"WebSocket") in scope["headers"]


@pytest.mark.parametrize(
    "head",
    [
        hello(without=b"Connection"),  # not nominated by Connection (RFC 9110 §7.8)
        hello(b"Upgrade: h2c"),
        hello(b"Content-Length: 1") + b"x",
        hello().replace(b"GET", b"POST", 1),
        hello().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_what_is_no_handshake_is_an_ordinary_request(head: bytes) -> None:
    """The offer is ignored, as a server may (RFC 9110 §7.8)."""
    application = Accepting()
    async with edge(application, speaks_websocket=True) as server:
        answer = await server.ask(head)
    assert answer is not None
    assert answer.status == 200
    assert application.scopes[0]["type"] == "http"


async def test_a_listener_without_websockets_ignores_the_offer() -> None:
    """The admin listener serves the request as if there had been none."""
    application = Accepting()
    async with edge(application) as server:
        answer = await server.ask(hello())
    assert answer is not None
    assert (answer.status, application.scopes[0]["type"]) == (200, "http")


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (hello(without=b"Sec-WebSocket-Key"), 400, "bad_request"),
        (hello(without=b"Sec-WebSocket-Version"), 426, "upgrade_required"),
        # the same checks as for any head
        (hello(without=b"Host"), 400, "bad_request"),
        (hello(b"Host: other.example"), 400, "bad_request"),
        (hello(b"Content_Length: 5"), 400, "bad_request"),
        (hello(b"X: " + b"a" * 40_000), 431, "header_too_large"),
        (hello(*[b"X: a"] * 120), 431, "header_too_large"),
        (hello(target=b"/a#b"), 400, "bad_request"),
    ],
)
async def test_a_bad_head_never_reaches_the_application(head: bytes, status: int, code: str) -> None:
    """A handshake is a request head, under the same limits."""
    application = Accepting()
    async with edge(application, speaks_websocket=True) as server:
        answer = await server.ask(head)
        assert answer is not None
        assert (answer.status, answer.code) == (status, code)
        assert [record.code for record in server.records] == [code]
    assert application.scopes == []
    if status == 426:
        assert answer.header(b"sec-websocket-version") == b"13"  # RFC 6455 §4.4


def _fields(key: list[bytes], version: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"sec-websocket-key", value) for value in key] + [(b"sec-websocket-version", value) for value in version]


@pytest.mark.parametrize(
    ("key", "version", "error"),
    [
        ([KEY], [b"13"], None),
        ([KEY, KEY], [b"13"], BadRequest),
        ([b"c2hvcnQ="], [b"13"], BadRequest),
        ([b"not base64 at all !!"], [b"13"], BadRequest),
        ([KEY + b"\n"], [b"13"], BadRequest),
        ([KEY], [b"8"], UpgradeRequired),
        ([KEY], [b"13, 8"], UpgradeRequired),
        ([KEY], [b"13", b"13"], UpgradeRequired),
    ],
)
async def test_key_and_version(key: list[bytes], version: list[bytes], error: type[GatewayError] | None) -> None:
    """One nonce of 16 bytes, and exactly version 13."""
    if error is None:
        assert accept_key(_fields(key, version)) == ACCEPT
        return
    with pytest.raises(error):
        accept_key(_fields(key, version))


async def test_subprotocols_are_read_in_order_from_every_field() -> None:
    """RFC 6455 §11.3.4 allows several fields."""
    name = b"sec-websocket-protocol"
    assert subprotocols([(name, b"a, b"), (b"x", b"z"), (name, b" c,,")]) == ["a", "b", "c"]


@pytest.mark.parametrize("way", ["close", "response", "return", "raise", "injection", "unoffered"])
async def test_a_refusal_is_a_response_and_the_end_of_the_connection(way: str) -> None:
    """However the application refuses, or fails, before it accepts."""
    expected = {"close": 403, "response": 401, "return": 500, "raise": 500, "injection": 500, "unoffered": 500}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if way == "close":
            await send({"type": "websocket.close"})
        elif way == "response":
            headers = [(b"content-length", b"2"), (b"www-authenticate", b"Bearer")]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"no"})
        elif way == "raise":
            raise ValueError("a fault")
        elif way == "injection":
            await send({"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]})
        elif way == "unoffered":
            await send({"type": "websocket.accept", "subprotocol": "chat"})

    async with edge(application, speaks_websocket=True) as server, server.client() as client:
        await client.send(hello() + frame(b"early"))
        answer = await client.answer()
        assert answer is not None
        assert answer.status == expected[way]
        assert await client.is_closed()


async def test_a_handshake_waits_its_turn_behind_a_response() -> None:
    """Pipelined behind a request, it is answered after it (RFC 9112 §9.3.2)."""
    application = Accepting()
    async with edge(application, speaks_websocket=True) as server, server.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n" + hello() + frame(b"early"))
        first = await client.answer()
        assert first is not None
        assert first.status == 200
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await client.reader.readexactly(7) == b"\x81\x05early"
