"""How an upstream's response is framed: RFC 9112 as rules without sockets, stricter than the RFC asks of a client.

A head is read line by line against two patterns without any leniency, and what they mean together is judged:

    version other than 1.0 or 1.1, blank lines before the status line      clients usually accept both
    line breaks other than CR LF, folded lines, control characters         likewise
    Transfer-Encoding other than exactly `chunked`                         it would reach the client undecoded (§6.1)
    Transfer-Encoding in an HTTP/1.0 response                              "treat the message as faulty" (§6.1)
    Transfer-Encoding beside Content-Length, Content-Length twice          two readings of one message (§6.3)
    101 Switching Protocols                                                we never ask for an upgrade

llhttp, which reads the requests, is not used here: it would copy each piece of a body and call back for it, while a
body of known length needs counting only, and it cannot be told that the next bytes are another head. `ChunkedBody`
reads the chunked coding with as little leniency.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Final

from gateway.fields import CONNECTION_FIELDS, Header

# Besides the connection's own fields: the request id is ours to say.
RESPONSE_REMOVED: Final = CONNECTION_FIELDS | {b"x-request-id"}

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

MAX_HEAD_BYTES: Final = 64 * 1024  # twice of what clients may send us: upstreams are ours, yet not unbounded
MAX_HEADERS: Final = 256
MAX_TRAILER_BYTES: Final = 16 * 1024
MAX_SIZE_LINE_BYTES: Final = 4 * 1024

_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))

_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([0-9]{3})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELD_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_KNOWN_STATUSES: Final = 64
_KNOWN_FIELDS: Final = 1024
_KNOWN_BYTES: Final = 256  # of a line; a longer one is hardly ever the same twice


class MalformedResponse(Exception):
    """The upstream's bytes are not HTTP/1.1, or could be read in two ways; the text says how, for the log."""


@dataclass(slots=True, eq=False)
class ResponseHead:
    """A response's status line and fields, and how its body ends."""

    status: int  # 200…599; interim responses are never handed on
    body_length: int  # bytes; 0 also when this response has no body; CHUNKED; UNTIL_CLOSE
    keep_alive: bool  # whether the upstream means to keep the connection after this response
    version: str  # "1.0" or "1.1"
    received: list[bytes]  # field lines as they came
    passed: list[bytes]  # the lines that may go on to a client, names in lower case, each with its end
    length: int  # the Content-Length among them, -1 without one
    dated: bool  # whether Date is among them
    connection: bytes  # what the Connection fields say, in lower case; may nominate others that must not go on

    @property
    def headers(self) -> list[Header]:
        """All fields as received; names lower-case, may repeat."""
        return [_split(line) for line in self.received]


class _Kind(IntEnum):
    PASSED = 0
    DATE = 1
    LENGTH = 2
    CONNECTION = 3
    CODING = 4
    DROPPED = 5


# As plain integers: a member's look-up through its class costs more than the comparison.
_PASSED, _DATE, _LENGTH, _CONNECTION, _CODING, _DROPPED = (int(kind) for kind in _Kind)
_KINDS: Final = {
    **dict.fromkeys(RESPONSE_REMOVED, _DROPPED),
    b"date": _DATE,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"transfer-encoding": _CODING,
}
_Field = tuple[int, bytes, int]  # kind; the field's line as a client gets it, or its value; its length, if it says one


class _Lines:
    """What lines of response heads mean. The lines of one upstream's responses are nearly always the same.

    Filled by `parse_head`, each line once and strictly; valid for ever, for a line means what it means; emptied when it
    is full, so that lines which never come again (ETag, Set-Cookie) cost what reading them costs and no memory.
    """

    __slots__ = ("fields", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[bytes, tuple[int, str]] = {}
        self.fields: dict[bytes, _Field] = {}

    def read_status(self, line: bytes) -> tuple[int, str]:
        """Status and version of a status line. Raises `MalformedResponse`."""
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise MalformedResponse("not an HTTP/1.x status line")
        meaning = (int(match[2]), match[1].decode())
        if not 100 <= meaning[0] <= 599:
            raise MalformedResponse(f"unusable status {meaning[0]}")
        if len(self.statuses) >= _KNOWN_STATUSES:
            self.statuses.clear()
        if len(line) <= _KNOWN_BYTES:
            self.statuses[line] = meaning
        return meaning

    def read_field(self, line: bytes) -> _Field:
        """The field of a line. Raises `MalformedResponse`."""
        field = _read_field(line)
        if len(line) <= _KNOWN_BYTES:
            if len(self.fields) >= _KNOWN_FIELDS:
                self.fields.clear()
            self.fields[line] = field
        return field


_LINES: Final = _Lines()


def _split(line: bytes) -> Header:
    """Name and value of a line with its end."""
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        raise MalformedResponse("not a field line")
    name, value = match[1].lower(), match[2]
    # The optional white space at the end (§5.1) must not count where a value decides about framing.
    return name, value.rstrip(b" \t") if name in _FRAMING else value


def _read_field(line: bytes) -> _Field:
    name, value = _split(line)
    kind = _KINDS.get(name, _PASSED)
    if kind in (_CONNECTION, _CODING):
        return kind, value.lower(), -1
    if kind == _LENGTH and (not value.isdigit() or len(value) > 18):
        raise MalformedResponse("unusable Content-Length")
    return kind, b"%b: %b\r\n" % (name, value), int(value) if kind == _LENGTH else -1


def parse_head(head: bytes, head_only: bool) -> ResponseHead | None:
    """The response of `head`, a complete head up to and including its blank line; None for an interim one (1xx).

    `head_only` tells that the request was HEAD. Raises `MalformedResponse`.
    """
    lines: list[bytes] = BytesIO(head).readlines()  # it looks for line ends many bytes at a time, `split` does not
    known: _Lines = _LINES
    status, version = known.statuses.get(lines[0]) or known.read_status(lines[0])
    del lines[-1], lines[0]
    if len(lines) > MAX_HEADERS:
        raise MalformedResponse("too many header fields")
    passed: list[bytes] = []
    dated = chunked = False
    length = -1
    connection = b""
    known_fields = known.fields
    for line in lines:
        field = known_fields.get(line)
        if field is None:
            field = known.read_field(line)
        kind, text, number = field
        if kind == _PASSED:
            passed.append(text)
        elif kind == _DATE:
            dated = True
            passed.append(text)
        elif kind == _LENGTH:
            if length >= 0:
                raise MalformedResponse("repeated Content-Length")
            length = number
            passed.append(text)
        elif kind == _CONNECTION:
            connection = b"%b,%b" % (connection, text) if connection else text
        elif kind == _CODING:
            if chunked or text != b"chunked":
                raise MalformedResponse("a transfer coding other than chunked")
            chunked = True
    if status < 200:
        if status == 101:
            raise MalformedResponse("101 without an upgrade request")
        return None
    if chunked and (length >= 0 or version == "1.0"):
        raise MalformedResponse("Transfer-Encoding beside Content-Length or in HTTP/1.0")
    # HTTP/1.0 keep-alive has framing traps of its own (§9.3, appendix C.2.2); those connections are not worth keeping.
    keep_alive = version == "1.1" and (
        connection == b"keep-alive" or b"close" not in connection or b"close" not in _options(connection)
    )
    # RFC 9112 §6.3, in its order.
    if head_only or status == 204 or status == 304:
        body_length = 0
        keep_alive = keep_alive and not (chunked and status in (204, 304))
    elif chunked:
        body_length = CHUNKED
    elif length >= 0:
        body_length = length
    else:
        body_length = UNTIL_CLOSE
        keep_alive = False
    return ResponseHead(status, body_length, keep_alive, version, lines, passed, length, dated, connection)


def _options(connection: bytes) -> list[bytes]:
    return [option.strip() for option in connection.split(b",")]


_SIZE = rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?"
_PARTIAL_SIZE = rb"(?:[0-9A-Fa-f]{1,15}(?:[ \t]*|[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)\r?)?"
_FIRST_LINE = re.compile(_SIZE + rb"\r\n")
_NEXT_LINE = re.compile(rb"\r\n" + _SIZE + rb"\r\n")  # the end of one chunk's data and the next size, in one step
_PARTIAL_FIRST_LINE = re.compile(_PARTIAL_SIZE)
_PARTIAL_NEXT_LINE = re.compile(rb"\r?|\r\n" + _PARTIAL_SIZE)
_TRAILERS = re.compile(rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*)*\r\n\r\n")


class ChunkedBody:
    """Reads one body in the chunked coding (RFC 9112 §7.1), in whatever pieces it arrives.

        size line → data → size line → … → last size line → trailers → complete

    Extensions are ignored, trailers checked and dropped: to merge them into a head is how headers get forged.
    """

    __slots__ = ("_first", "_held", "_left", "_trailing", "complete", "leftover")

    def __init__(self) -> None:
        self.complete = False
        self.leftover = False  # bytes arrived after the end
        self._held = b""  # an incomplete line, or the trailer section so far
        self._left = 0  # bytes of the current chunk still to come
        self._first = True
        self._trailing = False

    def feed(self, piece: bytes) -> bytes:
        """The payload in `piece`; b"" when it holds none. Raises `MalformedResponse`."""
        if self._left > len(piece):
            self._left -= len(piece)
            return piece  # inside a long chunk: handed on as it is
        if self.complete:
            self.leftover = self.leftover or bool(piece)
            return b""
        if self._trailing:
            self._read_trailers(self._held + piece)
            return b""
        return self._read_chunks(self._held + piece if self._held else piece)

    def _read_chunks(self, piece: bytes) -> bytes:
        self._held = b""
        payload: list[memoryview] = []
        view = memoryview(piece)
        at = self._left
        if at:
            payload.append(view[:at])
            self._left = 0
        match = (_FIRST_LINE if self._first else _NEXT_LINE).match(piece, at)
        while match is not None:
            self._first = False
            size = int(match[1], 16)
            start = match.end()
            if size == 0:
                self._trailing = True
                self._read_trailers(piece[start - 2 :])
                return b"".join(payload)
            at = start + size
            payload.append(view[start:at])
            if at > len(piece):
                self._left = at - len(piece)
                return b"".join(payload)
            match = _NEXT_LINE.match(piece, at)
        self._hold_line(piece[at:])
        return b"".join(payload)

    def _hold_line(self, rest: bytes) -> None:
        partial = _PARTIAL_FIRST_LINE if self._first else _PARTIAL_NEXT_LINE
        if len(rest) > MAX_SIZE_LINE_BYTES or partial.fullmatch(rest) is None:
            raise MalformedResponse("malformed chunk")
        self._held = rest

    def _read_trailers(self, section: bytes) -> None:
        """`section` starts with the CRLF of the last size line, so that an empty section needs no case of its own."""
        end = section.find(b"\r\n\r\n")
        if end < 0:
            if len(section) > MAX_TRAILER_BYTES:
                raise MalformedResponse("trailers too large")
            self._held = section
            return
        end += 4
        if _TRAILERS.fullmatch(section, 0, end) is None:
            raise MalformedResponse("malformed trailers")
        self._held = b""
        self.complete = True
        self.leftover = len(section) > end
