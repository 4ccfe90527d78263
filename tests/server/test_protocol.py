"""What reaches the application and what does not, each case as the bytes on the wire."""

import asyncio
from typing import Any

import pytest

from tests.server.wire import Answer, Echo, edge

HOST = b"Host: api.example\r\n"


def _get(*lines: bytes, target: bytes = b"/a", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


_H = b"Host: api.example"

# What arrives, and the answer's status and code. None of these reach the application.
REFUSED: dict[str, tuple[bytes, int, str]] = {
    # --- request line
    "HTTP/0.9, with an empty line": (b"GET /a\r\n\r\n", 400, "bad_request"),
    "HTTP/2.0 in an HTTP/1 line": (_get(_H, version=b"HTTP/2.0"), 400, "bad_request"),
    "HTTP/1.2": (_get(_H, version=b"HTTP/1.2"), 400, "bad_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "RTSP": (b"DESCRIBE /a RTSP/1.0\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "ICE": (b"SOURCE /a ICE/1.0\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "bad_request"),
    "unknown method": (b"FOO /a HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "lower-case method": (b"get /a HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "CONNECT": (b"CONNECT api.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "TRACE would echo identity": (b"TRACE /a HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "space in the target": (_get(_H, target=b"/a b"), 400, "bad_request"),
    "space after the version": (b"GET /a HTTP/1.1 \r\n" + HOST + b"\r\n", 400, "bad_request"),
    "bare LF ends the request line": (b"GET /a HTTP/1.1\n" + HOST + b"\r\n", 400, "bad_request"),
    "bare CR ends the request line": (b"GET /a HTTP/1.1\r" + HOST + b"\r\n", 400, "bad_request"),
    # --- target
    "NUL in the target": (_get(_H, target=b"/a\x00"), 400, "bad_request"),
    "control character in the target": (_get(_H, target=b"/a\x01"), 400, "bad_request"),
    "DEL in the target": (_get(_H, target=b"/a\x7f"), 400, "bad_request"),
    "UTF-8 in the target": (_get(_H, target=b"/\xc3\xa9"), 400, "bad_request"),
    "UTF-8 in the query": (_get(_H, target=b"/a?q=\xc3\xa9"), 400, "bad_request"),
    "fragment": (_get(_H, target=b"/a#b"), 400, "bad_request"),
    "asterisk with GET": (_get(_H, target=b"*"), 400, "bad_request"),
    "authority form with GET": (_get(_H, target=b"api.example:80"), 400, "bad_request"),
    "relative path": (_get(_H, target=b"a"), 400, "bad_request"),
    "absolute form of another host": (_get(_H, target=b"http://evil.example/a"), 400, "bad_request"),
    "absolute form of another port": (_get(_H, target=b"http://api.example:81/a"), 400, "bad_request"),
    "absolute form with a user": (_get(_H, target=b"http://u@api.example/a"), 400, "bad_request"),
    "absolute form of another scheme": (_get(_H, target=b"ftp://api.example/a"), 400, "bad_request"),
    # --- Host
    "no Host": (_get(), 400, "bad_request"),
    "no Host in HTTP/1.0": (_get(version=b"HTTP/1.0"), 400, "bad_request"),
    "two Hosts": (_get(_H, b"Host: evil.example"), 400, "bad_request"),
    "two equal Hosts": (_get(_H, _H), 400, "bad_request"),
    "empty Host": (_get(b"Host:"), 400, "bad_request"),
    "Host with a list": (_get(b"Host: api.example, evil.example"), 400, "bad_request"),
    "Host with a user": (_get(b"Host: u@api.example"), 400, "bad_request"),
    "Host with a path": (_get(b"Host: api.example/x"), 400, "bad_request"),
    "Host with a wide port": (_get(b"Host: api.example:123456"), 400, "bad_request"),
    "Host with an encoded letter": (_get(b"Host: %61pi.example"), 400, "bad_request"),
    # --- fields
    "folded line": (_get(_H, b"X-A: a", b" b"), 400, "bad_request"),
    "fold before the first field": (b"GET /a HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "space before the colon": (_get(_H, b"X-A : a"), 400, "bad_request"),
    "empty name": (_get(_H, b": a"), 400, "bad_request"),
    "no colon": (_get(_H, b"X-A"), 400, "bad_request"),
    "name with a space": (_get(_H, b"X A: a"), 400, "bad_request"),
    "name beyond ASCII": (_get(_H, b"X-\xc3\xa9: a"), 400, "bad_request"),
    "NUL in a value": (_get(_H, b"X-A: a\x00b"), 400, "bad_request"),
    "control character in a value": (_get(_H, b"X-A: a\x01b"), 400, "bad_request"),
    "bare CR in a value": (_get(_H, b"X-A: a\rX-B: b"), 400, "bad_request"),
    "bare LF between fields": (_get(_H, b"X-A: a\nX-B: b"), 400, "bad_request"),
    # --- framing
    "length and coding": (_post(b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400, "bad_request"),
    "coding and length": (_post(b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400, "bad_request"),
    "two lengths": (_post(b"Content-Length: 3", b"Content-Length: 4"), 400, "bad_request"),
    "the same length twice": (_post(b"Content-Length: 3", b"Content-Length: 3"), 400, "bad_request"),
    "a list of lengths": (_post(b"Content-Length: 3, 3"), 400, "bad_request"),
    "signed length": (_post(b"Content-Length: +3"), 400, "bad_request"),
    "negative length": (_post(b"Content-Length: -3"), 400, "bad_request"),
    "hexadecimal length": (_post(b"Content-Length: 0x3"), 400, "bad_request"),
    "empty length": (_post(b"Content-Length:"), 400, "bad_request"),
    "endless length": (_post(b"Content-Length: 99999999999999999999"), 400, "bad_request"),
    "gzip under chunked": (_post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 400, "bad_request"),
    "coding after chunked": (_post(b"Transfer-Encoding: chunked, gzip"), 400, "bad_request"),
    "chunked twice in a line": (_post(b"Transfer-Encoding: chunked, chunked"), 400, "bad_request"),
    "chunked in two lines": (_post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "bad_request"),
    "identity": (_post(b"Transfer-Encoding: identity"), 400, "bad_request"),
    "misspelt chunked": (_post(b"Transfer-Encoding: xchunked"), 400, "bad_request"),
    "chunked with a tab in front": (_post(b"Transfer-Encoding: \x0bchunked"), 400, "bad_request"),
    "chunked in HTTP/1.0": (
        b"POST /a HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "coding with an underscore": (_post(b"Transfer_Encoding: chunked"), 400, "bad_request"),
    "length with an underscore": (_post(b"Content_Length: 3"), 400, "bad_request"),
    "length with an underscore beside one": (_post(b"Content-Length: 0", b"Content_Length: 3"), 400, "bad_request"),
    # --- size
    "a field of 40 KB": (_get(_H, b"X-A: " + b"a" * 40_000), 431, "header_too_large"),
    "a target of 40 KB": (_get(_H, target=b"/" + b"a" * 40_000), 431, "header_too_large"),
    "101 fields": (_get(_H, *[b"X-A: a"] * 100), 431, "header_too_large"),
    "20,000 fields": (_get(_H, *[b"A: a"] * 20_000), 431, "header_too_large"),
    "a field without end": (b"GET /a HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 300_000, 431, "header_too_large"),
    "a name without end": (b"GET /a HTTP/1.1\r\n" + HOST + b"a" * 300_000, 431, "header_too_large"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused(case: str) -> None:
    """The answer is a problem document, the connection closes, and the application sees nothing."""
    raw, status, code = REFUSED[case]
    application = Echo()
    async with edge(application) as server, server.client() as client:
        await client.send(raw)
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.code) == (status, code)
        assert answer.header(b"connection") == b"close"
        assert await client.is_closed()
        assert [record.code for record in server.records] == [code]
        assert server.listener.refused == {code: 1}
    assert application.scopes == []


# What arrives, and what the application sees: method, raw path, query, body.
ACCEPTED: dict[str, tuple[bytes, tuple[str, bytes, bytes, bytes]]] = {
    "plain": (_get(_H), ("GET", b"/a", b"", b"")),
    "query": (_get(_H, target=b"/a?b=c?d"), ("GET", b"/a", b"b=c?d", b"")),
    "percent-encoding untouched": (_get(_H, target=b"/a%2Fb%c3%a9"), ("GET", b"/a%2Fb%c3%a9", b"", b"")),
    "absolute form": (_get(_H, target=b"http://API.example/a?b"), ("GET", b"/a", b"b", b"")),
    "absolute form without a path": (_get(_H, target=b"http://api.example"), ("GET", b"/", b"", b"")),
    "absolute form with only a query": (_get(_H, target=b"http://api.example?b"), ("GET", b"/", b"b", b"")),
    "asterisk with OPTIONS": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", ("OPTIONS", b"*", b"", b"")),
    "empty lines in front": (b"\r\n\r\n" + _get(_H), ("GET", b"/a", b"", b"")),
    "IPv6 Host": (_get(b"Host: [::1]:8080"), ("GET", b"/a", b"", b"")),
    "HTTP/1.0": (_get(_H, version=b"HTTP/1.0"), ("GET", b"/a", b"", b"")),
    "other methods": (b"PROPFIND /a HTTP/1.1\r\n" + HOST + b"\r\n", ("PROPFIND", b"/a", b"", b"")),
    "body by length": (_post(b"Content-Length: 3", body=b"abc"), ("POST", b"/a", b"", b"abc")),
    "body by length, padded": (_post(b"Content-Length: 3 \t", body=b"abc"), ("POST", b"/a", b"", b"abc")),
    "body in chunks": (
        _post(b"Transfer-Encoding: Chunked", body=b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
        ("POST", b"/a", b"", b"abcde"),
    ),
    "h2c offered and ignored": (
        _get(_H, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM"),
        ("GET", b"/a", b"", b""),
    ),
    "h2c offered with a body": (
        _post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3", body=b"abc"),
        ("POST", b"/a", b"", b"abc"),
    ),
    "websocket offered with a chunked body": (
        _post(
            b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"
        ),
        ("POST", b"/a", b"", b"abc"),
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", ACCEPTED)
@pytest.mark.parametrize("step", [0, 1, 7], ids=["at once", "byte by byte", "in sevens"])
async def test_what_is_clear_arrives_as_it_was_sent(case: str, step: int) -> None:
    """Method, raw path, query and body are the client's own bytes, however they are cut on the way."""
    raw, expected = ACCEPTED[case]
    application = Echo()
    async with edge(application) as server, server.client() as client:
        for start in range(0, len(raw), step or len(raw)):
            await client.send(raw[start : start + (step or len(raw))])
            await asyncio.sleep(0)
        answer = await client.answer()
        assert answer is not None
        assert answer.status == 200
    scope = application.scopes[0]
    seen = (scope["method"], scope["raw_path"], scope["query_string"], application.bodies[0])
    assert seen == expected


@pytest.mark.asyncio
async def test_http_0_9_gets_nothing_from_the_application() -> None:
    """A request line without a version waits for more, and then is refused."""
    application = Echo()
    async with edge(application, head_timeout="100ms") as server:
        answer = await server.ask(b"GET /a\r\n")
        assert answer is None or answer.status in (400, 408)
    assert application.scopes == []


@pytest.mark.asyncio
async def test_trailers_never_become_headers() -> None:
    """A trailer `Authorization` or `X-User-Id` is dropped, whether it arrives with the head or later."""
    application = Echo()
    head = _post(b"Transfer-Encoding: chunked", b"X-Real: 1")
    rest = b"3\r\nabc\r\n0\r\nAuthorization: Bearer evil\r\nX-User-Id: root\r\n\r\n"
    async with edge(application) as server:
        for pieces in ([head + rest], [head, rest]):
            async with server.client() as client:
                for piece in pieces:
                    await client.send(piece)
                    await asyncio.sleep(0.01)
                answer = await client.answer()
                assert answer is not None
                assert answer.body == b"abc"
    for scope in application.scopes:
        assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding", b"x-real"]


@pytest.mark.asyncio
@pytest.mark.parametrize("tail", [b"X-A: " + b"a" * 500_000, b"X-A: a\r\n" * 60_000], ids=["one field", "many fields"])
async def test_endless_trailers_end_the_request(tail: bytes) -> None:
    """Trailers are bounded like a head, although nobody looks at them."""
    async with edge(Echo()) as server, server.client() as client:
        await client.send(_post(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n" + tail))
        answer = await client.answer()
        assert answer is not None
        assert answer.code == "header_too_large"


@pytest.mark.asyncio
async def test_underscores_are_left_to_the_proxy() -> None:
    """A field that only looks like another one arrives under its own name: the proxy knows which spellings to strip."""
    application = Echo()
    async with edge(application) as server:
        await server.ask(_get(_H, b"X_User_Id: root"))
    assert (b"x_user_id", b"root") in application.scopes[0]["headers"]


@pytest.mark.asyncio
async def test_white_space_around_a_value_is_not_part_of_it() -> None:
    """Optional white space is removed on both sides (RFC 9112 §5.1)."""
    application = Echo()
    async with edge(application) as server:
        await server.ask(_get(_H, b"X-A: \t a b \t "))
    assert (b"x-a", b"a b") in application.scopes[0]["headers"]


@pytest.mark.asyncio
async def test_a_head_of_the_limit_is_accepted() -> None:
    """The limits are inclusive: a head just below the bytes, and the very number of fields."""
    async with edge(Echo(), head_bytes="1KiB", headers=4) as server:
        fits = await server.ask(_get(_H, b"X-A: " + b"a" * 900))
        assert fits is not None
        assert fits.status == 200
        over = await server.ask(_get(_H, b"X-A: " + b"a" * 1000))
        assert over is not None
        assert over.status == 431
        four = await server.ask(_get(_H, b"A: a", b"B: b", b"C: c"))
        assert four is not None
        assert four.status == 200


@pytest.mark.asyncio
async def test_a_head_behind_a_large_body_is_not_charged_for_it() -> None:
    """The limit counts the bytes of one head, not what else came in the same packet."""
    application = Echo()
    big = _post(b"Content-Length: 60000", body=b"x" * 60_000)
    async with edge(application) as server, server.client() as client:
        await client.send(big + _get(_H)[:-2])
        first = await client.answer()
        await client.send(b"\r\n")
        second = await client.answer()
    assert [answer.status for answer in (first, second) if answer] == [200, 200]


@pytest.mark.asyncio
@pytest.mark.parametrize("step", [50_000, 300_000, 2_000_000])
@pytest.mark.parametrize("fields", [(), (b"Connection: close",), (b"Upgrade: other", b"Connection: upgrade")])
async def test_long_bodies_end_where_they_say(step: int, fields: tuple[bytes, ...]) -> None:
    """A body that goes past the parser is the same in whatever pieces it comes, and so is what stands behind it."""
    application = Echo()
    body = bytes(range(256)) * 2_500
    sent = _post(b"Content-Length: 640000", *fields, body=body)
    sent += _post(b"Content-Length: 640000", body=body[::-1]) + _get(_H, target=b"/last")
    closes = b"Connection: close" in fields
    async with edge(application) as server, server.client() as client:
        answers = []
        sending = asyncio.create_task(_send_in_steps(client, sent, step))
        for _ in range(1 if closes else 3):
            answers.append(await client.answer())
        sending.cancel()
        await asyncio.wait([sending])
        if closes:
            assert await client.is_closed()
    assert [answer.status for answer in answers if answer] == [200] * len(answers)
    assert application.bodies == [body, body[::-1], b""][: len(answers)]


async def _send_in_steps(client: Any, sent: bytes, step: int) -> None:
    for start in range(0, len(sent), step):
        await client.send(sent[start : start + step])
        await asyncio.sleep(0)


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"", None), (b"GET /a HT", 408), (_get(_H)[:-2], 408)],
    ids=["nothing", "half a line", "half a head"],
)
async def test_a_head_has_its_time(sent: bytes, status: int | None) -> None:
    """A half-sent head is answered 408 and closed; a connection on which nothing came is just closed."""
    async with edge(Echo(), head_timeout="100ms") as server, server.client() as client:
        await client.send(sent)
        answer = await client.answer()
        assert (answer and answer.status) == status
        assert await client.is_closed()


@pytest.mark.asyncio
async def test_dripping_does_not_prolong_a_head() -> None:
    """The head's time runs from its first byte, not from its last."""
    async with edge(Echo(), head_timeout="200ms") as server, server.client() as client:
        for byte in _get(_H, b"X-A: " + b"a" * 500):
            if client.reader.at_eof() or server.listener.refused:
                break
            await client.send(bytes([byte]))
            await asyncio.sleep(0.01)
        answer = await client.answer()
        assert answer is not None
        assert answer.code == "request_timeout"


@pytest.mark.asyncio
async def test_a_body_has_its_time() -> None:
    """A body that stops is answered 408 while the application waits for it."""
    async with edge(Echo(), body_timeout="100ms") as server, server.client() as client:
        await client.send(_post(b"Content-Length: 10", body=b"abc"))
        answer = await client.answer()
        assert answer is not None
        assert answer.code == "request_timeout"
        assert await client.is_closed()


@pytest.mark.asyncio
async def test_an_application_may_take_longer_than_the_clients_limits() -> None:
    """Only the client is timed: a slow answer, or a body nobody asks for yet, runs into none of these."""
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await Echo()(scope, receive, send)

    limits: dict[str, Any] = {"head_timeout": "40ms", "body_timeout": "40ms", "keep_alive": "40ms"}
    async with edge(slow, **limits) as server, server.client() as client:
        await client.send(_post(b"Content-Length: 3", body=b"ab"))
        tick = server.listener.tick
        while server.listener.tick < tick + 20:
            await asyncio.sleep(0.01)
        release.set()
        await client.send(b"c")
        answer = await client.answer()
        assert answer is not None
        assert answer.body == b"abc"


@pytest.mark.asyncio
async def test_an_idle_connection_is_closed_after_its_time() -> None:
    """Between two requests a connection lives for the keep-alive time."""
    async with edge(Echo(), keep_alive="100ms") as server, server.client() as client:
        await client.send(_get(_H))
        answer = await client.answer()
        assert answer is not None
        assert answer.header(b"connection") is None
        assert await client.is_closed()


@pytest.mark.asyncio
async def test_empty_lines_do_not_keep_a_connection() -> None:
    """Line breaks before a request are skipped and count for nothing."""
    async with edge(Echo(), head_timeout="100ms") as server, server.client() as client:
        closed = asyncio.create_task(client.is_closed())
        while not closed.done():
            client.writer.write(b"\r\n")
            await asyncio.sleep(0.02)
        assert closed.result()


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_connection_too_many_is_told_so() -> None:
    """Beyond the limit: 503 with `Retry-After`, while those inside go on."""
    async with edge(Echo(), connections=2) as server, server.client() as first, server.client() as second:
        for client in (first, second):
            await client.send(_get(_H))
            assert await client.answer() is not None
        async with server.client() as third:
            answer = await third.answer()
            assert answer is not None
            assert (answer.status, answer.code) == (503, "overloaded")
            assert answer.header(b"retry-after") == b"1"
        await first.send(_get(_H))
        assert await first.answer() is not None


@pytest.mark.asyncio
async def test_a_client_that_leaves_cancels_its_request() -> None:
    """The application's task is cancelled when the connection is lost."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with edge(application) as server:
        async with server.client() as client:
            await client.send(_get(_H))
            await asyncio.wait_for(started.wait(), 5)
        await asyncio.wait_for(cancelled.wait(), 5)
        while server.listener.strands or server.listener.connections:
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_client_that_reads_nothing_is_let_go() -> None:
    """A response that cannot be delivered ends after the keep-alive time, and with it the application's task."""
    cancelled = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with edge(endless, keep_alive="200ms") as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport as well
        await client.send(_get(_H))
        await asyncio.wait_for(cancelled.wait(), 10)


# --- requests in a row -----------------------------------------------------------------------------------------------


def _slow_first() -> tuple[Any, asyncio.Event, list[bytes]]:
    """An application whose first request waits for an event; the paths in the order they were begun."""
    release, begun = asyncio.Event(), list[bytes]()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["raw_path"])
        if len(begun) == 1:
            await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["raw_path"])]})
        await send({"type": "http.response.body", "body": b""})

    return application, release, begun


async def _paths(client: Any) -> list[bytes | int]:
    found: list[bytes | int] = []
    answer: Answer | None
    while (answer := await client.answer()) is not None:
        found.append(answer.header(b"x-path") or answer.status)
        if answer.header(b"connection") == b"close":
            break
    return found


@pytest.mark.asyncio
async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    """The next request begins when the one before is answered."""
    application, release, begun = _slow_first()
    raw = b"".join(_get(_H, target=b"/%d" % n) for n in range(5)) + _get(_H, b"Connection: close", target=b"/5")
    async with edge(application) as server, server.client() as client:
        await client.send(raw)
        while not begun:
            await asyncio.sleep(0)
        assert begun == [b"/0"]
        release.set()
        assert await _paths(client) == [b"/%d" % n for n in range(6)]


@pytest.mark.asyncio
async def test_too_many_pipelined_requests_end_the_connection() -> None:
    """A bounded number waits; those are answered, the rest is not read, and the connection closes."""
    application, release, begun = _slow_first()
    async with edge(application) as server, server.client() as client:
        await client.send(b"".join(_get(_H, target=b"/%d" % n) for n in range(200)))
        while not begun:
            await asyncio.sleep(0)
        release.set()
        answered = await _paths(client)
        assert answered == [b"/%d" % n for n in range(33)]
        assert begun == answered
        assert await client.is_closed()


@pytest.mark.asyncio
async def test_a_broken_request_is_answered_in_its_turn() -> None:
    """What came before it is answered first; what comes after it is not read."""
    application, release, begun = _slow_first()
    async with edge(application) as server, server.client() as client:
        await client.send(_get(_H, target=b"/0") + _get(_H, target=b"/1") + _get() + _get(_H, target=b"/3"))
        while not begun:
            await asyncio.sleep(0)
        release.set()
        assert await _paths(client) == [b"/0", b"/1", 400]
        assert begun == [b"/0", b"/1"]


@pytest.mark.asyncio
async def test_nothing_is_read_after_a_close() -> None:
    """A request behind `Connection: close` is not served, and does not disturb the answer."""
    application = Echo()
    async with edge(application) as server, server.client() as client:
        await client.send(_get(_H, b"Connection: close") + _get(_H, target=b"/smuggled"))
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.header(b"connection")) == (200, b"close")
        assert await client.is_closed()
    assert [scope["raw_path"] for scope in application.scopes] == [b"/a"]


@pytest.mark.asyncio
async def test_a_request_after_an_ignored_upgrade_is_served() -> None:
    """An offer of another protocol leaves the connection in HTTP/1.1, body or not."""
    application = Echo()
    offer = _post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3", body=b"abc")
    async with edge(application) as server, server.client() as client:
        await client.send(offer + _get(_H, target=b"/next"))
        assert await client.answer() is not None
        assert await client.answer() is not None
    assert [scope["raw_path"] for scope in application.scopes] == [b"/a", b"/next"]
    assert application.bodies == [b"abc", b""]
