"""One request and its response: what an application may do, and what the client gets of it."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import BadResponse, ContentTooLarge
from gateway.server.protocol import HardenedProtocol
from tests.server.wire import Edge, edge

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"


def _respond(*messages: dict[str, Any]) -> Callable[..., Any]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return application


def _start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def _body(body: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _raw(server: Edge, raw: bytes) -> bytes:
    """Everything the server sends on a connection that it closes by itself."""
    async with server.client() as client:
        await client.send(raw)
        async with asyncio.timeout(10):
            return await client.reader.read()


_CLOSE = b"connection: close\r\n\r\n"
_PLAIN = (b"content-length", b"2")

# The application's messages, the request, and every byte of the answer. Each ends with the connection.
WIRE: dict[str, tuple[list[dict[str, Any]], bytes, bytes]] = {
    "length": (
        [_start(200, _PLAIN), _body(b"ok")],
        GET_1_0,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + _CLOSE + b"ok",
    ),
    "no length, HTTP/1.0": (
        [_start(200), _body(b"o", True), _body(b"k")],
        GET_1_0,
        b"HTTP/1.1 200 OK\r\n" + _CLOSE + b"ok",
    ),
    "chunks": (
        [_start(200, (b"connection", b"close")), _body(b"o", True), _body(b"", True), _body(b"k")],
        GET,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + _CLOSE + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ),
    "an empty end of chunks": (
        [_start(200, (b"connection", b"close")), _body(b"ok", True), _body()],
        GET,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + _CLOSE + b"2\r\nok\r\n0\r\n\r\n",
    ),
    "the application's own coding is not sent": (
        [_start(200, (b"Transfer-Encoding", b"chunked"), (b"connection", b"close")), _body(b"ok")],
        GET,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + _CLOSE + b"2\r\nok\r\n0\r\n\r\n",
    ),
    "HEAD": (
        [_start(200, _PLAIN, (b"connection", b"close")), _body(b"ok")],
        HEAD,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + _CLOSE,
    ),
    "204": ([_start(204, (b"connection", b"close")), _body()], GET, b"HTTP/1.1 204 No Content\r\n" + _CLOSE),
    "304 keeps its length": (
        [_start(304, _PLAIN, (b"connection", b"close")), _body()],
        GET,
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n" + _CLOSE,
    ),
    "an unknown status": (
        [_start(599, _PLAIN, (b"connection", b"close")), _body(b"ok")],
        GET,
        b"HTTP/1.1 599 \r\ncontent-length: 2\r\n" + _CLOSE + b"ok",
    ),
    "order and duplicates": (
        [_start(200, (b"set-cookie", b"a"), _PLAIN, (b"set-cookie", b"b"), (b"connection", b"close")), _body(b"ok")],
        GET,
        b"HTTP/1.1 200 OK\r\nset-cookie: a\r\ncontent-length: 2\r\nset-cookie: b\r\n" + _CLOSE + b"ok",
    ),
    "cut short": (
        [_start(200, _PLAIN), _body(b"o", True)],
        GET,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no",
    ),
    "shorter than its length": (
        [_start(200, _PLAIN), _body(b"o", True), _body()],
        GET,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no",
    ),
    "longer than its length": (
        [_start(200, _PLAIN), _body(b"o", True), _body(b"kk")],
        GET,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no",
    ),
    "chunks without an end": (
        [_start(200), _body(b"o", True)],
        GET,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n",
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", WIRE)
async def test_a_response_on_the_wire(case: str) -> None:
    """What the application says is framed here; what it leaves unfinished is cut, so that the client notices."""
    messages, request, expected = WIRE[case]
    async with edge(_respond(*messages)) as server:
        assert await _raw(server, request) == expected


# What an application does wrong before anything was sent.
FAULTS: dict[str, list[dict[str, Any]]] = {
    "nothing at all": [],
    "a body first": [_body(b"ok")],
    "a line break in a value": [_start(200, (b"x-a", b"a\r\nset-cookie: evil"), _PLAIN), _body(b"ok")],
    "a line feed in a value": [_start(200, (b"x-a", b"a\nset-cookie: evil"), _PLAIN), _body(b"ok")],
    "a carriage return in a value": [_start(200, (b"x-a", b"a\rb"), _PLAIN), _body(b"ok")],
    "a NUL in a value": [_start(200, (b"x-a", b"a\0b"), _PLAIN), _body(b"ok")],
    "a line break in a name": [_start(200, (b"x-a: b\r\nx-b", b"a"), _PLAIN), _body(b"ok")],
    "two lengths": [_start(200, _PLAIN, _PLAIN), _body(b"ok")],
    "a signed length": [_start(200, (b"content-length", b"+2")), _body(b"ok")],
    "a status that does not exist": [_start(42, _PLAIN), _body(b"ok")],
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", FAULTS)
async def test_a_fault_of_the_application_is_500(case: str) -> None:
    """Nothing of the faulty response is sent, and the next request is served on a new connection."""
    async with edge(_respond(*FAULTS[case])) as server:
        answer = await server.ask(GET)
        assert answer is not None
        assert (answer.status, answer.code) == (500, "unexpected")
        assert b"evil" not in answer.body


@pytest.mark.asyncio
async def test_an_error_that_reaches_the_server_is_rendered() -> None:
    """A GatewayError that the application lets through becomes its own answer, an unknown one a plain 500."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ContentTooLarge if scope["raw_path"] == b"/a" else ValueError("secret")

    async with edge(application) as server:
        known = await server.ask(GET)
        assert known is not None
        assert known.code == "content_too_large"
        unknown = await server.ask(GET.replace(b"/a", b"/b"))
        assert unknown is not None
        assert unknown.code == "unexpected"
        assert b"secret" not in unknown.body


@pytest.mark.asyncio
async def test_a_fault_answers_head_without_a_body() -> None:
    """The answer to HEAD has no body, whoever made it."""
    async with edge(_respond()) as server:
        raw = await _raw(server, HEAD)
        assert raw.startswith(b"HTTP/1.1 500 ")
        assert raw.endswith(b"\r\n\r\n")
        assert raw.count(b"\r\n\r\n") == 1


@pytest.mark.asyncio
async def test_head_and_body_leave_together() -> None:
    """A small response is one write."""
    writes: list[bytes] = []

    class Noting(HardenedProtocol):
        def write(self, data: bytes) -> None:
            writes.append(data)
            super().write(data)

    async with edge(_respond(_start(200, _PLAIN), _body(b"ok")), protocol=Noting) as server:
        await server.ask(GET)
    assert writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]


@pytest.mark.asyncio
@pytest.mark.parametrize("flush", [True, False], ids=["asked for", "by the sweep"])
async def test_a_head_does_not_wait_for_an_event(flush: bool) -> None:
    """A stream's head reaches the client before its first event: at once when asked for, else within a tick."""
    release = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(_start(200, (b"content-type", b"text/event-stream")))
        if flush:
            await send(_body(b"", True))
        await release.wait()
        await send(_body(b"data: 1\n\n"))

    async with edge(application, keep_alive="200ms") as server, server.client() as client:
        await client.send(GET)
        async with asyncio.timeout(5):
            head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        release.set()
        assert await client.reader.readline() == b"9\r\n"


# --- request bodies --------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_continue_is_sent_when_the_body_is_wanted() -> None:
    """`100 Continue` goes out with the first `receive()`: an application that refuses early never invites the body."""
    proceed = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        message = await receive()
        await send(_start(200, (b"content-length", b"%d" % len(message["body"]))))
        await send(_body(message["body"]))

    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with edge(application) as server, server.client() as client:
        await client.send(head)
        early = asyncio.create_task(client.answer())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not early.done()
        proceed.set()
        answer = await early
        assert answer is not None
        assert answer.status == 100
        await client.send(b"abc")
        final = await client.answer()
        assert final is not None
        assert final.body == b"abc"


@pytest.mark.asyncio
async def test_an_uninvited_body_closes_the_connection() -> None:
    """Answered before `100 Continue`, nobody can tell whether the body will come: the connection ends."""
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with edge(_respond(_start(403, _PLAIN), _body(b"no"))) as server, server.client() as client:
        await client.send(head)
        answer = await client.answer()
        assert answer is not None
        assert answer.status == 403
        assert answer.header(b"connection") == b"close"
        assert await client.is_closed()


@pytest.mark.asyncio
async def test_a_small_unread_body_keeps_the_connection() -> None:
    """What the application did not read is thrown away, and the next request is read where it begins."""
    async with edge(_respond(_start(200, _PLAIN), _body(b"ok"))) as server, server.client() as client:
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n"
        await client.send(head + b"x" * 10)
        first = await client.answer()
        await client.send(b"x" * 29_990 + GET)
        second = await client.answer()
        assert [answer.status for answer in (first, second) if answer] == [200, 200]


@pytest.mark.asyncio
async def test_a_large_unread_body_ends_the_connection_after_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends on and on still sees the early answer, and then the end."""
    monkeypatch.setattr("gateway.server.listener.LINGER_S", 0.1)
    async with (
        edge(_respond(_start(413, _PLAIN), _body(b"no")), keep_alive="200ms") as server,
        server.client() as client,
    ):
        await client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        answer = await client.answer()
        assert answer is not None
        assert answer.status == 413
        with pytest.raises(ConnectionError):  # noqa: PT012  # the write that fails is one of many
            for _ in range(2000):
                await client.send(b"x" * 50_000)
                await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_an_unread_body_that_is_too_large_ends_the_connection_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sees the end without waiting for the sweep, and a request behind that body is not served."""
    monkeypatch.setattr("gateway.server.listener.LINGER_S", 3600)
    async with edge(_respond(_start(403, _PLAIN), _body(b"no"))) as server, server.client() as client:
        await client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n")
        answer = await client.answer()
        assert answer is not None
        assert answer.status == 403
        await client.send(b"x" * 70_000 + GET)
        assert await client.is_closed()
        assert server.listener.requests == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_nobody_reads_stops_the_client(chunked: bool) -> None:
    """Backpressure reaches the client, memory stays flat, and every byte arrives once it is asked for."""
    size = 24 * 2**20
    proceed, digest, buffered = asyncio.Event(), hashlib.sha256(), list[int]()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        cycle = receive.__self__
        more = True
        while more:
            message = await receive()
            digest.update(message["body"])
            more = message["more_body"]
            buffered.append(cycle.buffered)
        await send(_start(200, _PLAIN))
        await send(_body(b"ok"))

    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    expected = hashlib.sha256()
    async with edge(application) as server, server.client() as client:

        async def upload() -> None:
            await client.send(b"POST /a HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
            for number in range(size // 2**16):
                piece = number.to_bytes(4, "big") * 2**14
                expected.update(piece)
                await client.send(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
            if chunked:
                await client.send(b"0\r\n\r\n")

        task = asyncio.create_task(upload())
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done, "the client could send everything although nobody read it"
        proceed.set()
        async with asyncio.timeout(20):
            await task
        answer = await client.answer()
        assert answer is not None
    assert digest.digest() == expected.digest()
    assert max(buffered) <= 2**19


@pytest.mark.asyncio
async def test_a_body_that_breaks_off_is_the_clients_fault() -> None:
    """Broken chunk framing is 400 while the answer is still open, and a cut connection when it is not."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["raw_path"] == b"/started":
            await send(_start(200))
            await send(_body(b"x", True))
        while (await receive())["more_body"]:
            pass

    chunked = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with edge(application) as server:
        for path, start in ((b"/a", b"HTTP/1.1 400 "), (b"/started", b"HTTP/1.1 200 ")):
            async with server.client() as client:
                await client.send(chunked % path)
                await asyncio.sleep(0.01)
                await client.send(b"zz\r\n")
                async with asyncio.timeout(5):
                    raw = await client.reader.read()
                assert raw.startswith(start)
                assert not raw.endswith(b"0\r\n\r\n")


@pytest.mark.asyncio
async def test_receive_after_the_end_waits_for_the_end_of_the_exchange() -> None:
    """An application that listens for the client's leaving hears of it when its response is complete."""
    heard = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            assert (await receive()) == {"type": "http.request", "body": b"", "more_body": False}
            assert (await receive()) == {"type": "http.disconnect"}
            heard.set()

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await send(_start(200, _PLAIN))
        await send(_body(b"ok"))
        await listening

    async with edge(application) as server:
        await server.ask(GET)
        await asyncio.wait_for(heard.wait(), 5)


@pytest.mark.asyncio
async def test_a_response_that_was_aborted_on_purpose_is_not_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """An upstream that dies in the middle cuts the response without a traceback in the log."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(_start(200, _PLAIN))
        await send(_body(b"o", True))
        raise BadResponse

    with caplog.at_level(logging.ERROR):
        async with edge(application) as server:
            assert (await _raw(server, GET)).endswith(b"\r\n\r\no")
    assert caplog.records == []
