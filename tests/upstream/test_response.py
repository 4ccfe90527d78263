"""How a response is framed, and what is refused because it could be read in two ways."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.response import (
    _KNOWN_FIELDS,
    _KNOWN_STATUSES,
    _LINES,
    CHUNKED,
    MAX_HEADERS,
    MAX_TRAILER_BYTES,
    UNTIL_CLOSE,
    ChunkedBody,
    MalformedResponse,
    parse_head,
)


def _head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((status, *lines, b"", b""))


@pytest.mark.parametrize(
    ("head", "head_only", "length", "keep_alive"),
    [
        (_head(b"Content-Length: 5"), False, 5, True),
        (_head(b"Content-Length: 0"), False, 0, True),
        (_head(b"Content-Length:5 \t"), False, 5, True),
        (_head(b"Transfer-Encoding: chunked "), False, CHUNKED, True),
        (_head(b"Content-Length: 5"), True, 0, True),  # HEAD
        (_head(b"Transfer-Encoding: chunked"), False, CHUNKED, True),
        (_head(b"transfer-encoding: Chunked"), False, CHUNKED, True),
        (_head(b"Transfer-Encoding: chunked"), True, 0, True),
        (_head(), False, UNTIL_CLOSE, False),
        (_head(status=b"HTTP/1.1 204 No Content"), False, 0, True),
        (_head(b"Content-Length: 7", status=b"HTTP/1.1 204 No Content"), False, 0, True),
        (_head(b"Content-Length: 7", status=b"HTTP/1.1 304 Not Modified"), False, 0, True),
        (_head(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 304 Not Modified"), False, 0, False),
        (_head(b"Content-Length: 5", b"Connection: close"), False, 5, False),
        (_head(b"Content-Length: 5", b"Connection: x", b"Connection: foo, CLOSE"), False, 5, False),
        (_head(b"Content-Length: 5", status=b"HTTP/1.0 200 OK"), False, 5, False),
        (_head(b"Content-Length: 5", b"Connection: keep-alive", status=b"HTTP/1.0 200 OK"), False, 5, False),
        (_head(b"Content-Length: 5", status=b"HTTP/1.1 200"), False, 5, True),  # no reason phrase
        (_head(b"Content-Length: 5", status=b"HTTP/1.1 599 "), False, 5, True),
    ],
)
def test_where_a_body_ends(head: bytes, head_only: bool, length: int, keep_alive: bool) -> None:
    """RFC 9112 §6.3 decides where a body ends, and an ended connection is the last resort."""
    parsed = parse_head(head, head_only)
    assert parsed is not None
    assert (parsed.body_length, parsed.keep_alive) == (length, keep_alive)


@pytest.mark.parametrize(
    "head",
    [
        _head(b"Content-Length: 5", b"Content-Length: 6"),
        _head(b"Content-Length: 5", b"Content-Length: 5"),
        _head(b"Content-Length: 5, 5"),
        _head(b"Content-Length: +5"),
        _head(b"Content-Length: -1"),
        _head(b"Content-Length: 0x5"),
        _head(b"Content-Length: 5 5"),
        _head(b"Content-Length: "),
        _head(b"Content-Length: " + b"9" * 19),
        _head(b"Content-Length: 5", status=b"HTTP/1.1 304 Not Modified").replace(b"5", b"five"),
        _head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        _head(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        _head(b"Transfer-Encoding: gzip, chunked"),
        _head(b"Transfer-Encoding: chunked, gzip"),
        _head(b"Transfer-Encoding: chunked, chunked"),
        _head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        _head(b"Transfer-Encoding: identity"),
        _head(b"Transfer-Encoding: xchunked"),
        _head(b"Transfer-Encoding: "),
        _head(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK"),
        _head(b"Upgrade: websocket", b"Connection: upgrade", status=b"HTTP/1.1 101 Switching Protocols"),
        _head(status=b"HTTP/1.1 101 Switching Protocols"),
        _head(b"Content-Length: 5", status=b"HTTP/2.0 200 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/0.9 200 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/1.2 200 OK"),
        _head(b"Content-Length: 5", status=b"ICY 200 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/1.1 099 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/1.1 600 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/1.1 20 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/1.1 2000 OK"),
        _head(b"Content-Length: 5", status=b"HTTP/1.1  200 OK"),
        b"\r\n\r\n",
        b"\r\n" + _head(b"Content-Length: 5"),
        _head(b"Content-Length : 5"),
        _head(b"Content Length: 5"),
        _head(b": 5"),
        _head(b"no-colon"),
        _head(b" folded: 5"),
        _head(b"A: b", b" folded"),
        _head(b"A: b\x00c"),
        _head(b"A: b\rc"),
        _head(b"A: b\nC: d"),
        _head(b"A: b\x01c"),
        _head(*(b"A%d: b" % n for n in range(MAX_HEADERS + 1))),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    """A head that another reader could take differently is malformed, whatever RFC 9112 lets a client make of it."""
    with pytest.raises(MalformedResponse):
        parse_head(head, False)


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 x"])
def test_an_interim_response_is_no_response(status: bytes) -> None:
    """1xx other than 101 is read and not handed on."""
    assert parse_head(_head(b"Link: x", status=b"HTTP/1.1 " + status), False) is None


def test_fields_keep_order_duplicates_and_bytes() -> None:
    """Fields come as they were sent, only their names in lower case."""
    parsed = parse_head(_head(b"Set-Cookie: a=1", b"X: \xe9 ", b"Set-Cookie: b=2", b"Content-Length: 0"), False)
    assert parsed is not None
    assert parsed.headers == [
        (b"set-cookie", b"a=1"),
        (b"x", b"\xe9 "),
        (b"set-cookie", b"b=2"),
        (b"content-length", b"0"),
    ]


def test_what_is_remembered_of_heads_is_bounded() -> None:
    """Lines that never come again do not gather, and a line means the same before and after it was forgotten."""
    for number in range(5 * _KNOWN_FIELDS):
        parsed = parse_head(_head(b"Server: s", b"ETag: %d" % number, status=b"HTTP/1.1 200 OK%d" % number), False)
        assert parsed is not None
        assert parsed.headers == [(b"server", b"s"), (b"etag", b"%d" % number)]
    assert parse_head(_head(b"A: " + b"x" * 300), False) is not None
    assert len(_LINES.fields) <= _KNOWN_FIELDS
    assert len(_LINES.statuses) <= _KNOWN_STATUSES
    assert b"A: " + b"x" * 300 not in _LINES.fields


def _feed(pieces: list[bytes]) -> tuple[bytes, ChunkedBody]:
    body = ChunkedBody()
    return b"".join([body.feed(piece) for piece in pieces]), body


def _cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


_EXTENSIONS = st.sampled_from([b"", b";a", b" ;a=b", b';a="\xff b"', b"\t;x"])
_TRAILERS = st.lists(st.sampled_from([b"X-User-Id: evil\r\n", b"a:\r\n", b"B: \tc d \r\n"]), max_size=3)


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=300), _EXTENSIONS, st.booleans()), max_size=8),
    _TRAILERS,
    st.lists(st.integers(0, 5000), max_size=12),
    st.binary(max_size=3),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    chunks: list[tuple[bytes, bytes, bool]], trailers: list[bytes], cuts: list[int], after: bytes
) -> None:
    """Payload, end and leftover do not depend on how the network cut the bytes; trailers never come out."""
    lines = [(b"%X" if upper else b"%04x") % len(data) + ext + b"\r\n" + data + b"\r\n" for data, ext, upper in chunks]
    coded = b"".join(lines) + b"0\r\n" + b"".join(trailers) + b"\r\n"
    payload, body = _feed(_cut(coded + after, cuts))
    assert payload == b"".join(data for data, _, _ in chunks)
    assert body.complete
    assert body.leftover == bool(after)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4), st.data())
def test_a_chunked_body_that_was_cut_short_is_not_complete(chunks: list[bytes], data: st.DataObject) -> None:
    """Every proper prefix of a body is either incomplete or refused, never complete."""
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    end = data.draw(st.integers(0, len(coded) - 1))
    _, body = _feed([coded[:end]])
    assert not body.complete


@given(st.binary(max_size=60))
def test_what_is_accepted_another_implementation_reads_alike(coded: bytes) -> None:
    """Whatever bytes count as a complete body here, h11 reads to the same payload, or refuses."""
    try:
        payload, body = _feed([coded])
    except MalformedResponse:
        return
    if not body.complete:
        return
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + coded)
    read = b""
    while not isinstance(event := peer.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            read += bytes(event.data)
    assert read == payload


@pytest.mark.parametrize(
    "coded",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\n",
        b"\r\n",
        b"g\r\n",
        b"1" * 16 + b"\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 5000,
        b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: b\nC: d\r\n\r\n",
        b"5\r\nhello\r\n0\r\n A: b\r\n\r\n",
        b"0\r\nA: " + b"b" * MAX_TRAILER_BYTES + b"\r\n",
    ],
)
@pytest.mark.parametrize("in_one_piece", [True, False])
def test_a_malformed_chunk_is_refused(coded: bytes, in_one_piece: bool) -> None:
    """No leniency: what some implementation forgives, another reads differently."""
    pieces = [coded] if in_one_piece else [coded[i : i + 1] for i in range(len(coded))]
    with pytest.raises(MalformedResponse):
        _feed(pieces)
