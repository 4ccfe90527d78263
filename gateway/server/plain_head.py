"""Ordinary request heads, read by their lines; whatever is not ordinary is left to the parser.

Nearly every request is a head and nothing else, in one piece, of lines like those of the request before. Such a head is
split at its line ends, and each line means what it meant the last time. That is a third of what the parser and its
calls back cost, and no second opinion: a head is ordinary only if

    its bytes     end in the one blank line they hold, so that nothing follows and nothing is missing
    request line  is GET, HEAD, OPTIONS or DELETE, a path of visible ASCII, and HTTP/1.1, with one space between them
    each field    is a token, a colon, and visible characters, spaces and tabs (RFC 9110 §5.5); no line begins with a
                  space, since that is no token
    no field      says anything about framing, the connection or another protocol, but `Connection: keep-alive`
    Host          stands there once, and is one

and then the parser, which is as strict or less, gives the same method, target and fields; a test compares them.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from gateway.errors import BadRequest
from gateway.server.head import WATCHED, check_host

Header = tuple[bytes, bytes]

KEPT_LINES: Final = 4096  # at most 4 MiB; a client's token is one of them
KEPT_BYTES: Final = 1024  # of a line
KEPT_NAMES: Final = 1024
SHORT_BYTES: Final = 256  # of a line: longer ones, a token or cookies, are kept when they come a second time
SEEN_LINES: Final = 16_384  # by their hashes

_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "OPTIONS", "DELETE")}
# A text is allowed if these leave it as it is. One table costs a third of a pattern, or of characters to be deleted.
_TARGET: Final = bytes(c if 0x21 <= c < 0x7F and c != ord("#") else 0x7F ^ c for c in range(256))
_VALUE: Final = bytes(c if c == 0x09 or 0x20 <= c < 0x7F or c >= 0x80 else 0x7F ^ c for c in range(256))
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What the parser itself obeys, besides what decides about framing here.
_SPECIAL: Final = (WATCHED - {b"host"}) | {b"connection", b"proxy-connection"}


class PlainHead:
    """What an ordinary head says."""

    __slots__ = ("fields", "method", "target")

    def __init__(self, method: str, target: bytes, fields: list[Header]) -> None:
        """`fields` are pairs as received, names in lower case."""
        self.method = method
        self.target = target
        self.fields = fields


class PlainHeads:
    """Reads ordinary heads, and remembers lines.

    Filled with lines once read, valid for ever, for a line means what it means; emptied when it is full.
    """

    __slots__ = ("_lines", "_names", "_seen")

    def __init__(self) -> None:
        self._lines: dict[bytes, Header] = {}
        self._seen: set[int] = set()
        self._names: dict[bytes, bytes] = {}  # names as received, in lower case; b"" for one that is special

    def read(self, data: bytes) -> PlainHead | None:
        """The head that `data` is; None if it is not an ordinary one, or not whole, or not alone."""
        lines: list[bytes] = BytesIO(data).readlines()  # it looks for line ends many bytes at a time, `split` does not
        if len(lines) < 3 or lines.pop() != b"\r\n":
            return None
        request_line: list[bytes] = lines[0].split(b" ")
        if len(request_line) != 3 or request_line[2] != b"HTTP/1.1\r\n":
            return None
        method = _METHODS.get(request_line[0])
        target = request_line[1]
        if method is None or target[:1] != b"/" or target.translate(_TARGET) != target:
            return None
        del lines[0]
        known = self._lines
        fields: list[Header] = []
        hosts = 0
        for line in lines:
            field = known.get(line)
            if field is None:
                field = self._read_line(line)
                if field is None:
                    return None
            if field[0] == b"host":
                hosts += 1
            fields.append(field)
        return PlainHead(method, target, fields) if hosts == 1 else None

    def _read_line(self, line: bytes) -> Header | None:
        """The field in a line; None if it is special, or malformed: the parser says how."""
        received, colon, rest = line.partition(b":")
        if not colon or rest[-2:] != b"\r\n":
            return None
        name = self._names.get(received)
        if name is None:
            name = self._read_name(received)
        value = rest[:-2].strip(b" \t")
        if value.translate(_VALUE) != value:
            return None
        if not name and not (received.lower() == b"connection" and value.lower() == b"keep-alive"):
            return None
        if name == b"host" and not _is_host(value):
            return None
        field = (name or b"connection", value)
        if len(line) <= SHORT_BYTES or (len(line) <= KEPT_BYTES and self._was_seen(line)):
            if len(self._lines) >= KEPT_LINES:
                self._lines.clear()
            self._lines[line] = field
        return field

    def _was_seen(self, line: bytes) -> bool:
        """Whether a line comes again, with a tiny error: many long ones never do, and would only push others out."""
        number = hash(line)
        if number in self._seen:
            return True
        if len(self._seen) >= SEEN_LINES:
            self._seen.clear()
        self._seen.add(number)
        return False

    def _read_name(self, received: bytes) -> bytes:
        name = received.lower()
        if _TOKEN.fullmatch(received) is None or name in _SPECIAL:
            name = b""
        if len(received) <= KEPT_BYTES:
            if len(self._names) >= KEPT_NAMES:
                self._names.clear()
            self._names[received] = name
        return name


def _is_host(value: bytes) -> bool:
    try:
        check_host(value)
    except BadRequest:
        return False
    return True
