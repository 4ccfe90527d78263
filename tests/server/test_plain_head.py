"""Ordinary heads are read by their lines, and mean what they mean to the parser."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.server.plain_head import KEPT_BYTES, KEPT_LINES, KEPT_NAMES, PlainHeads

Field = tuple[bytes, bytes]

_ORDINARY = b"GET /a?b=%7E HTTP/1.1\r\nHost: h:1\r\nAccept: */*\r\nX-A:\t a b \r\nAuthorization: Bearer a.b.c\r\n\r\n"


class _Parsed:
    """What the parser calls back with."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[Field] = []
        self.completed = 0
        self.extra = False

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        self.completed += 1


def _head(*lines: bytes, request: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    return b"\r\n".join((request, host, *lines, b"", b""))


def test_an_ordinary_head_gives_method_target_and_fields() -> None:
    """Names come in lower case, values without the white space around them, in the order received."""
    for heads in (PlainHeads(), PlainHeads()):
        for _ in range(2):  # read, then remembered
            head = heads.read(_ORDINARY)
            assert head is not None
            assert (head.method, head.target) == ("GET", b"/a?b=%7E")
            assert head.fields == [
                (b"host", b"h:1"),
                (b"accept", b"*/*"),
                (b"x-a", b"a b"),
                (b"authorization", b"Bearer a.b.c"),
            ]


@pytest.mark.parametrize(
    "data",
    [
        # not whole, or not alone
        b"",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r",
        _head() + b"G",
        _head() + _head(),
        b"\r\n" + _head(),
        # another request line
        _head(request=b"POST / HTTP/1.1"),
        _head(request=b"TRACE / HTTP/1.1"),
        _head(request=b"get / HTTP/1.1"),
        _head(request=b"GET / HTTP/1.0"),
        _head(request=b"GET / HTTP/2.0"),
        _head(request=b"GET /"),
        _head(request=b"GET  / HTTP/1.1"),
        _head(request=b"GET / HTTP/1.1 "),
        _head(request=b"GET /a b HTTP/1.1"),
        _head(request=b"GET http://h/ HTTP/1.1"),
        _head(request=b"GET * HTTP/1.1"),
        _head(request=b"GET /a#b HTTP/1.1"),
        _head(request=b"GET /\xe9 HTTP/1.1"),
        _head(request=b"GET /\x00 HTTP/1.1"),
        _head(request=b"GET /\n HTTP/1.1"),
        # Host
        _head(host=b"Accept: */*"),
        _head(b"Host: h"),
        _head(host=b"Host: a b"),
        _head(host=b"Host:"),
        _head(host=b"Host: h/"),
        # what decides about framing, the connection, another protocol
        _head(b"Content-Length: 0"),
        _head(b"content_length: 0"),
        _head(b"Transfer-Encoding: chunked"),
        _head(b"Expect: 100-continue"),
        _head(b"Upgrade: websocket"),
        _head(b"Connection: close"),
        _head(b"Connection: keep-alive, Upgrade"),
        _head(b"Proxy-Connection: keep-alive"),
        # malformed fields
        _head(b"X"),
        _head(b": x"),
        _head(b" folded: x"),
        _head(b"X : x"),
        _head(b"X: a\rb"),
        _head(b"X: a\nY: b"),
        _head(b"X: a\x00"),
        _head(b"X: a\x7f"),
        _head(b"X\xe9: a"),
    ],
)
def test_whatever_is_not_ordinary_is_left_to_the_parser(data: bytes) -> None:
    """Also where the parser would take it."""
    heads = PlainHeads()
    heads.read(_ORDINARY)
    assert heads.read(data) is None


def test_keep_alive_is_ordinary() -> None:
    """Browsers say so with each request; it is what HTTP/1.1 means anyway."""
    head = PlainHeads().read(_head(b"Connection: keep-alive"))
    assert head is not None
    assert head.fields[-1] == (b"connection", b"keep-alive")


_token = st.sampled_from(
    [b"X-A", b"accept", b"Host", b"connection", b"Content-Length", b"te", b"X_User_Id", b"a b", b""]
)
_piece = st.binary(max_size=4) | st.sampled_from([b"h", b"keep-alive", b"0", b"\t x ", b"a\r\n b", b"\r\n", b"close"])
_line = st.builds(lambda *parts: b"".join(parts), _token, st.sampled_from([b":", b": ", b""]), _piece)
_request = st.builds(
    lambda *parts: b"".join(parts),
    st.sampled_from([b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"PRI"]),
    st.just(b" "),
    st.sampled_from([b"/", b"/a?b=c", b"*", b"a"]),
    st.binary(max_size=3),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b""]),
)


@given(_request, st.lists(_line, max_size=5), st.sampled_from([b"\r\n\r\n", b"\r\n", b"\r\n\r\n\r\n", b"\n\n"]))
@example(b"GET / HTTP/1.1", [b"Host: h"], b"\r\n\r\n")
@example(b"GET / HTTP/1.1", [b"Host: h", b"X: a\x80"], b"\r\n\r\n")
def test_what_is_read_is_what_the_parser_reads(request_line: bytes, lines: list[bytes], end: bytes) -> None:
    """Never a head that the parser refuses, reads otherwise, or sees no end of."""
    data = b"\r\n".join((request_line, *lines)) + end
    heads = PlainHeads()
    head = heads.read(data)
    if head is None:
        return
    again = heads.read(data)
    assert again is not None
    assert again.fields == head.fields
    parsed = _Parsed()
    parser = httptools.HttpRequestParser(parsed)
    parser.feed_data(data)
    assert parsed.completed == 1
    assert parser.should_keep_alive()
    assert not parser.should_upgrade()
    assert parser.get_http_version() == "1.1"
    assert (parser.get_method().decode(), parsed.target, parsed.fields) == (head.method, head.target, head.fields)


def test_what_is_remembered_is_bounded() -> None:
    """Lines that never come again push one another out, and long ones are not kept at all."""
    heads = PlainHeads()
    for number in range(2 * KEPT_LINES):
        assert heads.read(_head(b"X-%d: %d" % (number, number))) is not None
        assert len(heads._lines) <= KEPT_LINES
        assert len(heads._names) <= KEPT_NAMES
    assert heads.read(_head(b"X: " + b"a" * KEPT_BYTES)) is not None
    assert heads.read(_head(b"X" * KEPT_BYTES + b": a")) is not None
    assert not any(len(line) > KEPT_BYTES for line in heads._lines)
