"""One request to a scripted upstream and back: what it saw, what the client got, what became of the connection."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import BadRequest, BadResponse, ConnectFailed, ContentTooLarge, GatewayError, UpstreamTimeout
from gateway.upstream.endpoints import Upstream
from gateway.upstream.forward import ClientGone, ResponseAborted
from gateway.upstream.request import render_head
from tests.upstream.scripted import OK, Client, Talk, fetch, make_request, replying, serving

pytestmark = pytest.mark.asyncio


def _pool(upstream: Upstream) -> Any:
    return upstream.endpoints[0].pool


async def test_the_upstream_sees_one_exact_request() -> None:
    """Request line, Host and framing are written by the gateway, the fields as they were given."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append(await talk.request())
        await talk.say(OK)
        await talk.closed()

    async with serving(script) as (_, upstream):
        client = await fetch(upstream, headers=[(b"a", b"1"), (b"A", b"2"), (b"a", b"3")], target=b"/x%2fy?z=%20")
    assert seen == [
        b"GET /x%2fy?z=%20 HTTP/1.1\r\nhost: example.test\r\na: 1\r\nA: 2\r\na: 3\r\nx-request-id: r1\r\n\r\n"
    ]
    assert (client.status, client.body, client.is_complete) == (200, b"ok", True)
    assert (client.exchange.status, client.exchange.bytes_out, client.exchange.upstream) == (200, 2, "u")


async def test_an_upstream_may_want_its_own_host() -> None:
    """With `host: endpoint` the upstream sees the authority of the endpoint."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append(await talk.request())
        await talk.say(OK)

    async with serving(script, host="endpoint") as (server, upstream):
        await fetch(upstream)
    assert b"\r\nhost: 127.0.0.1:%d\r\n" % server.port in seen[0]


@pytest.mark.parametrize(
    ("length", "pieces", "framing", "body"),
    [
        (0, [], b"content-length: 0", b""),
        (5, [b"hello"], b"content-length: 5", b"hello"),
        (5, [b"he", b"", b"llo"], b"content-length: 5", b"hello"),
        (5, [b"hello", b""], b"content-length: 5", b"hello"),
        (None, [b"hello"], b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (None, [b""], b"transfer-encoding: chunked", b"0\r\n\r\n"),
        (None, [b"he", b"llo", b""], b"transfer-encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_keeps_its_framing(length: int | None, pieces: list[bytes], framing: bytes, body: bytes) -> None:
    """Known lengths stay known, chunked bodies stay chunked, and both end where the client's did."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append(await talk.request())
        await talk.say(OK)
        await talk.closed()

    async with serving(script) as (_, upstream):
        client = await fetch(upstream, Client(*pieces), method=b"POST", body_length=length)
        assert _pool(upstream).idle_connections == 1
    head, _, sent = seen[0].partition(b"\r\n\r\n")
    assert framing in head
    assert sent == body
    assert client.exchange.bytes_in == sum(map(len, pieces))


# (answer, what the client's body is, whether the connection is kept)
ANSWERS = {
    "known length": (OK, b"ok", True),
    "nothing": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
    "chunked": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", True),
    "chunked with trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-user-id: evil\r\n\r\n",
        b"ok",
        True,
    ),
    "announced close": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", b"ok", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"", True),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok", b"", False),
    "bytes left over": (OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"ok", False),
    "bytes after the last chunk": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX",
        b"",
        False,
    ),
    "interim responses": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
        b"ok",
        True,
    ),
}


@pytest.mark.parametrize("in_bytes", [False, True])
@pytest.mark.parametrize("case", ANSWERS)
async def test_answers_end_where_they_say(case: str, in_bytes: bool) -> None:
    """However the network cuts an answer: the same body, and the connection kept only after an unambiguous end."""
    answer, body, kept = ANSWERS[case]

    async def script(talk: Talk) -> None:
        await talk.request()
        if not in_bytes:
            await talk.say(answer)
        else:
            for at in range(len(answer)):
                await talk.say(answer[at : at + 1])
                await asyncio.sleep(0)
        await talk.closed()

    async with serving(script) as (_, upstream):
        client = await fetch(upstream)
        assert (client.body, client.is_complete) == (body, True)
        if in_bytes and not kept and _pool(upstream).idle_connections:
            while _pool(upstream).idle_connections:  # the rest arrives on the idle connection, and closes it
                await asyncio.sleep(0.001)
        assert _pool(upstream).idle_connections == kept
        assert _pool(upstream).open_connections == kept


async def test_a_response_without_a_length_ends_with_its_connection() -> None:
    """A close-delimited body is passed on until the upstream closes."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.0 200 OK\r\n\r\nsome")
        await talk.say(b"thing")

    async with serving(script) as (_, upstream):
        client = await fetch(upstream)
        assert (client.body, client.is_complete) == (b"something", True)
        assert not any(name == b"content-length" for name, _ in client.headers)
        assert _pool(upstream).open_connections == 0


async def test_a_head_request_gets_fields_and_no_body() -> None:
    """HEAD keeps Content-Length, waits for no body, and keeps the connection."""
    async with serving(replying(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", OK)) as (server, upstream):
        client = await fetch(upstream, method=b"HEAD")
        assert (b"content-length", b"5000") in client.headers
        assert (client.body, client.is_complete) == (b"", True)
        await fetch(upstream)
        assert server.connections == 1


async def test_duplicate_fields_reach_the_client_in_order() -> None:
    """Set-Cookie twice stays twice; connection fields end here; the request id is ours."""
    answer = (
        b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nKeep-Alive: timeout=5\r\nset-cookie: b=2\r\nconnection: x-hop\r\n"
        b"x-hop: 1\r\nx-request-id: theirs\r\ncontent-length: 0\r\n\r\n"
    )
    async with serving(replying(answer)) as (_, upstream):
        client = await fetch(upstream)
    names = [name for name, _ in client.headers]
    assert [value for name, value in client.headers if name == b"set-cookie"] == [b"a=1", b"b=2"]
    assert not {b"keep-alive", b"connection", b"x-hop"} & set(names)
    assert [value for name, value in client.headers if name == b"x-request-id"] == [b"r1"]


MALFORMED = {
    "not HTTP": b"SSH-2.0-x\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
    "length and coding": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "unasked upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "endless interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + OK,
    "huge head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    "cut inside the head": None,
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_violation_is_bad_response_and_closes_the_connection(case: str) -> None:
    """Nothing of a malformed response reaches the client, and its connection is never used again."""
    answer = MALFORMED[case]

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(answer or b"HTTP/1.1 200 OK\r\ncontent-le")
        if answer:
            await talk.closed()

    async with serving(script) as (_, upstream):
        client = Client()
        with pytest.raises(BadResponse):
            await fetch(upstream, client)
        assert client.messages == []
        assert _pool(upstream).open_connections == 0
        assert _pool(upstream).malformed == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
    ],
)
async def test_an_upstream_that_dies_inside_a_body_aborts_the_response(answer: bytes) -> None:
    """The client gets what came, no end, and the record says whose fault it was."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(answer)

    async with serving(script) as (_, upstream):
        client = Client()
        with pytest.raises(ResponseAborted):
            await fetch(upstream, client)
        assert (client.status, client.body, client.is_complete) == (200, b"hel", False)
        assert client.exchange.code == "bad_response"
        assert _pool(upstream).open_connections == 0
        assert _pool(upstream).malformed == 1


async def test_a_malformed_chunk_aborts_the_response() -> None:
    """A violation found after the head was passed on ends the client's response without an end."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        await talk.say(b"zz\r\n")
        await talk.closed()

    async with serving(script) as (_, upstream):
        client = Client()
        with pytest.raises((ResponseAborted, BadResponse)):
            await fetch(upstream, client)
        assert not client.is_complete
        assert _pool(upstream).open_connections == 0


async def test_bytes_on_an_idle_connection_close_it() -> None:
    """An answer nobody asked for is never the answer to the next request."""
    idle = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        if talk.number == 0:
            await idle.wait()
            await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await talk.closed()

    async with serving(script) as (server, upstream):
        await fetch(upstream)
        idle.set()
        while _pool(upstream).open_connections:
            await asyncio.sleep(0.001)
        client = await fetch(upstream)
        assert (client.body, server.connections) == (b"ok", 2)


# --- one safe repetition ----------------------------------------------------------------------------------------------


def _stale_once(reset: bool = False) -> Callable[[Talk], Any]:
    """A script whose first connection closes on its second request, as servers do whose keep-alive time is over."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        if talk.number == 0:
            await talk.request()
            if reset:
                talk.reset()
            return
        await talk.closed()

    return script


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("method", "length", "pieces"),
    [(b"GET", -1, []), (b"HEAD", -1, []), (b"DELETE", -1, []), (b"PUT", 4, [b"body"]), (b"PUT", None, [b"body"])],
)
async def test_a_stale_connection_is_replaced_once(
    reset: bool, method: bytes, length: int | None, pieces: list[bytes]
) -> None:
    """An idempotent request, whole in our hands, is sent again on a new connection."""
    async with serving(_stale_once(reset)) as (server, upstream):
        await fetch(upstream)
        client = await fetch(upstream, Client(*pieces), method=method, body_length=length)
        assert (client.status, client.exchange.retried, server.connections) == (200, True, 2)
        assert _pool(upstream).retried == 1


@pytest.mark.parametrize(
    ("method", "length", "pieces"),
    [(b"POST", -1, []), (b"POST", 4, [b"body"]), (b"PATCH", 4, [b"body"]), (b"PUT", 8, [b"body", b"body"])],
)
async def test_what_may_have_been_done_is_not_done_again(method: bytes, length: int, pieces: list[bytes]) -> None:
    """A request that is not idempotent, or whose body is partly gone, fails instead."""
    async with serving(_stale_once()) as (server, upstream):
        await fetch(upstream)
        with pytest.raises(ConnectFailed):
            await fetch(upstream, Client(*pieces), method=method, body_length=length)
        assert server.connections == 1


async def test_a_new_connection_that_dies_is_not_retried() -> None:
    """Only a kept connection can have gone stale; a new one that closes means that the upstream is not well."""

    async def script(talk: Talk) -> None:
        await talk.request()

    async with serving(script) as (server, upstream):
        with pytest.raises(ConnectFailed):
            await fetch(upstream)
        assert server.connections == 1


async def test_no_repetition_after_a_byte_of_the_response() -> None:
    """Something was answered, so the request was processed."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.request()
        await talk.say(b"H")

    async with serving(script) as (server, upstream):
        await fetch(upstream)
        with pytest.raises(BadResponse):
            await fetch(upstream)
        assert server.connections == 1


async def test_a_post_looks_before_it_uses_a_closed_connection() -> None:
    """A kept connection whose end waits unread in the socket is replaced before a POST is written to it."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        if talk.number == 1:
            await talk.closed()

    async with serving(script) as (server, upstream):
        await fetch(upstream)
        connection = next(iter(_pool(upstream)._idle))
        connection.transport.pause_reading()  # the loop does not notice the end
        while not connection.is_readable():
            await asyncio.sleep(0.001)
        client = await fetch(upstream, Client(b"body"), method=b"POST", body_length=4)
        assert (client.status, client.exchange.retried, server.connections) == (200, False, 2)


async def test_a_connection_lost_while_waiting_for_the_body_is_replaced_for_any_method() -> None:
    """Nothing was sent yet, so nothing can have been done."""
    close = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        if talk.number == 0:
            await close.wait()
            return
        await talk.closed()

    class Slow(Client):
        async def receive(self) -> dict[str, Any]:
            if not self.asked:
                close.set()
                while _pool(upstream).open_connections:
                    await asyncio.sleep(0.001)
            return await super().receive()

    async with serving(script) as (server, upstream):
        await fetch(upstream)
        client = await fetch(upstream, Slow(b"body"), method=b"POST", body_length=4)
        assert (client.status, client.exchange.retried, server.connections) == (200, True, 2)


# --- bodies on their way ----------------------------------------------------------------------------------------------


async def test_the_body_is_asked_for_only_once_a_connection_is_there() -> None:
    """`Expect: 100-continue` is answered by asking, so an unreachable upstream costs the client no upload."""
    async with serving(replying()) as (_, upstream):
        pass  # closed: nobody listens there any more
    client = Client(b"body")
    with pytest.raises(ConnectFailed):
        await fetch(upstream, client, method=b"POST", body_length=4)
    assert client.asked == 0


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"302 Found", b"401 Unauthorized"])
async def test_an_early_refusal_ends_the_upload(status: bytes) -> None:
    """An error that comes while the body uploads reaches the client at once; the connection is closed."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\nno" % status)
        await talk.closed()

    class Endless(Client):
        async def receive(self) -> dict[str, Any]:
            if self.asked:
                await asyncio.Event().wait()
            self.asked += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

    async with serving(script) as (_, upstream):
        client = await fetch(upstream, Endless(), method=b"POST", body_length=100)
        assert (client.status, client.body, client.is_complete) == (int(status[:3]), b"no", True)
        assert _pool(upstream).open_connections == 0


async def test_an_upstream_may_answer_while_it_reads() -> None:
    """A successful response that begins before the upload ends leaves the upload running: both ways stream."""
    answered = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            piece = await talk.reader.readexactly(2)
            await talk.say(b"2\r\n%b\r\n" % piece)
        await talk.say(b"0\r\n\r\n")
        await talk.closed()

    class Echoing(Client):
        async def receive(self) -> dict[str, Any]:
            if self.asked:
                await answered.wait()
            return await super().receive()

        async def send(self, message: dict[str, Any]) -> None:
            await super().send(message)
            answered.set()

    async with serving(script) as (_, upstream):
        client = await fetch(upstream, Echoing(b"ab", b"cd", b"ef"), method=b"POST", body_length=6)
        assert (client.body, client.is_complete) == (b"abcdef", True)
        assert _pool(upstream).idle_connections == 1


async def test_a_complete_answer_before_the_upload_ends_closes_the_connection() -> None:
    """The rest of the body would be read as the next request."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(OK)
        await talk.closed()

    class Stalling(Client):
        async def receive(self) -> dict[str, Any]:
            if self.asked:
                await asyncio.Event().wait()
            self.asked += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

    async with serving(script) as (_, upstream):
        client = await fetch(upstream, Stalling(), method=b"POST", body_length=100)
        assert (client.body, client.is_complete) == (b"ok", True)
        assert _pool(upstream).open_connections == 0


@pytest.mark.parametrize(
    ("length", "pieces", "error"),
    [
        (11, [b"x" * 11], ContentTooLarge),
        (None, [b"x" * 11], ContentTooLarge),
        (None, [b"x" * 5, b"x" * 6, b""], ContentTooLarge),
        (5, [b"x" * 6], BadRequest),
        (5, [b"x" * 4], BadRequest),
        (5, [b"xx", b"xxxx"], BadRequest),
        (5, [b"xx", b"xx"], BadRequest),
    ],
)
async def test_a_body_of_the_wrong_size_is_refused(
    length: int | None, pieces: list[bytes], error: type[GatewayError]
) -> None:
    """Too long for the route, or not as long as announced: the upstream never sees a complete request."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append(await talk.closed())

    async with serving(script) as (_, upstream):
        with pytest.raises(error):
            await fetch(upstream, Client(*pieces), method=b"POST", body_length=length, body_limit=10)
        assert _pool(upstream).open_connections == 0
    for request in seen:
        assert not request.endswith(b"0\r\n\r\n")
        assert request.count(b"x") < 10


async def test_a_client_that_leaves_while_uploading_ends_the_exchange() -> None:
    """`http.disconnect` closes the upstream connection and nobody is answered."""

    class Leaving(Client):
        async def receive(self) -> dict[str, Any]:
            if self.asked:
                return {"type": "http.disconnect"}
            self.asked += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

    async def script(talk: Talk) -> None:
        await talk.closed()

    async with serving(script) as (_, upstream):
        client = Leaving()
        with pytest.raises(ClientGone):
            await fetch(upstream, client, method=b"POST", body_length=100)
        assert client.messages == []
        assert _pool(upstream).open_connections == 0


@pytest.mark.parametrize("moment", ["before the head", "inside the body", "while uploading"])
async def test_cancellation_closes_the_upstream_connection(moment: str) -> None:
    """A client that goes away cancels the request; the upstream sees its connection end."""
    reached = asyncio.Event()
    seen_end = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        if moment == "inside the body":
            await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel")
        reached.set()
        await talk.closed()
        seen_end.set()

    class Endless(Client):
        async def receive(self) -> dict[str, Any]:
            if self.asked:
                await asyncio.Event().wait()
            self.asked += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

    async with serving(script) as (_, upstream):
        client = Endless()
        body = {"method": b"POST", "body_length": 100} if moment == "while uploading" else {}
        task = asyncio.create_task(fetch(upstream, client, **body))
        await reached.wait()
        if moment == "inside the body":
            await client.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(seen_end.wait(), 5)
        assert _pool(upstream).open_connections == 0
        assert len(asyncio.all_tasks()) <= 3  # this test, the script, the server: no upload is left behind


async def test_a_slow_client_holds_the_upstream_back() -> None:
    """While the client does not read, at most a fixed amount is read from the upstream."""
    total = 64 * 2**20
    sent = 0

    async def script(talk: Talk) -> None:
        nonlocal sent
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        piece = bytes(2**20)
        for _ in range(total // len(piece)):
            await talk.say(piece)
            sent += len(piece)
        await talk.closed()

    gate = asyncio.Event()

    class Slow(Client):
        received = 0

        async def send(self, message: dict[str, Any]) -> None:
            self.started.set()
            await gate.wait()
            self.received += len(message.get("body", b""))

    async with serving(script) as (_, upstream):
        client = Slow()
        task = asyncio.create_task(fetch(upstream, client))
        await client.started.wait()
        connection = next(iter(_pool(upstream)._open))
        while not connection._paused:
            await asyncio.sleep(0.001)
        assert connection._buffered <= 2 * 256 * 1024
        assert sent < total
        gate.set()
        await task
        assert client.received == total
        assert _pool(upstream).idle_connections == 1


async def test_a_slow_upstream_holds_the_client_back() -> None:
    """While the upstream does not read, the client is not asked for more than the sockets hold."""
    gate = asyncio.Event()
    total = 64 * 2**20
    piece = bytes(2**18)

    async def script(talk: Talk) -> None:
        await gate.wait()
        head = await talk.head()
        assert b"content-length: %d" % total in head
        left = total
        while left:
            left -= len(await talk.reader.read(min(left, 2**18)))
        await talk.say(OK)
        await talk.closed()

    class Uploading(Client):
        async def receive(self) -> dict[str, Any]:
            self.asked += 1
            return {"type": "http.request", "body": piece, "more_body": self.asked * len(piece) < total}

    async with serving(script) as (_, upstream):
        client = Uploading()
        task = asyncio.create_task(fetch(upstream, client, method=b"POST", body_length=total, body_limit=total))
        while not (_pool(upstream)._open and next(iter(_pool(upstream)._open)).write_paused):
            await asyncio.sleep(0.001)
        asked = client.asked
        assert asked * len(piece) < total // 2
        for _ in range(20):
            await asyncio.sleep(0)
        assert client.asked == asked
        gate.set()
        await task
        assert (client.status, client.exchange.bytes_in) == (200, total)
        assert _pool(upstream).idle_connections == 1


# --- deadlines --------------------------------------------------------------------------------------------------------


async def _until_late(upstream: Upstream, task: "asyncio.Task[Any]") -> None:
    """Wind the pool's clock forward until the request ends."""
    while not task.done():
        _pool(upstream).sweep(1e12)
        await asyncio.sleep(0.001)


async def test_an_upstream_that_does_not_answer_is_a_timeout() -> None:
    """504 after the head timeout; the connection is closed."""
    arrived = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        arrived.set()
        await talk.closed()

    async with serving(script) as (_, upstream):
        task = asyncio.create_task(fetch(upstream))
        await arrived.wait()
        await _until_late(upstream, task)
        with pytest.raises(UpstreamTimeout):
            await task
        assert (_pool(upstream).open_connections, _pool(upstream).timed_out) == (0, 1)


async def test_the_sweep_runs_by_itself() -> None:
    """A head timeout needs no request to be noticed: the pool's timer does it."""

    async def script(talk: Talk) -> None:
        await talk.closed()

    async with serving(script) as (_, upstream):
        with pytest.raises(UpstreamTimeout):
            await fetch(upstream, head_timeout_s=0.01)


async def test_silence_inside_the_response_aborts_it() -> None:
    """The idle timeout counts from the last byte of the body."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel")
        await talk.closed()

    async with serving(script) as (_, upstream):
        client = Client()
        task = asyncio.create_task(fetch(upstream, client))
        await client.started.wait()
        await _until_late(upstream, task)
        with pytest.raises(ResponseAborted):
            await task
        assert client.exchange.code == "upstream_timeout"
        assert _pool(upstream).open_connections == 0


async def test_a_client_that_stops_reading_does_not_hold_a_connection_for_ever() -> None:
    """Blocked in `send` past the idle timeout: the response is aborted, and the task is not left cancelled."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel")
        await talk.closed()

    class Stuck(Client):
        async def send(self, message: dict[str, Any]) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

    async with serving(script) as (_, upstream):
        client = Stuck()

        async def request() -> int:
            with pytest.raises(ResponseAborted):
                await fetch(upstream, client)
            current = asyncio.current_task()
            assert current is not None
            return current.cancelling()

        task = asyncio.create_task(request())
        await client.started.wait()
        await _until_late(upstream, task)
        assert await task == 0
        assert (client.exchange.code, _pool(upstream).timed_out) == ("client_gone", 0)
        assert _pool(upstream).open_connections == 0


async def test_an_upstream_that_stops_reading_is_a_timeout() -> None:
    """An upload that makes no progress for the idle time fails with 504."""
    done = asyncio.Event()

    async def script(talk: Talk) -> None:
        await done.wait()

    class Endless(Client):
        async def receive(self) -> dict[str, Any]:
            self.asked += 1
            return {"type": "http.request", "body": bytes(2**18), "more_body": True}

    async with serving(script) as (_, upstream):
        request = fetch(upstream, Endless(), method=b"POST", body_length=None, body_limit=2**40)
        task = asyncio.create_task(request)
        while not (_pool(upstream)._open and next(iter(_pool(upstream)._open)).write_paused):
            await asyncio.sleep(0.001)
        await _until_late(upstream, task)
        with pytest.raises(UpstreamTimeout):
            await task
        done.set()


# --- what is never written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": [(b"a", b"b\r\nx-user-id: evil")]},
        {"headers": [(b"a", b"b\n")]},
        {"headers": [(b"a", b"b\rc")]},
        {"headers": [(b"a", b"b\0c")]},
        {"headers": [(b"a\r\nb", b"c")]},
        {"host": b"h\r\nx: y"},
        {"target": b"/ HTTP/1.1\r\nx: y"},
        {"target": b"/a b"},
        {"target": b""},
        {"method": b"GET / HTTP/1.1\r\n\r\nGET"},
        {"method": b"CONNECT"},
    ],
)
async def test_nothing_can_add_a_line_to_the_request(changes: dict[str, Any]) -> None:
    """A line break or NUL anywhere in the head, or a space in the target, is refused before a byte is written."""
    with pytest.raises(BadRequest):
        render_head(make_request(**changes), changes.get("host", b"h"))
    async with serving(replying()) as (_, upstream):
        with pytest.raises(BadRequest):
            await fetch(upstream, **changes)
        assert _pool(upstream).open_connections == 0
