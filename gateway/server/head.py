"""What a request head must be, and how a response head is written. Rules only, no I/O.

The parser (llhttp, strict) has already refused bare CR or LF, folded lines, control characters, names that are no
tokens, two lengths, and a length beside a transfer coding. What it lets through and an edge must not is decided here:

- HTTP/0.9, HTTP/2.0 in an HTTP/1 line, CONNECT, TRACE, and the methods of other protocols that llhttp also speaks;
- no Host, two Hosts, a Host that is no authority, or a target whose authority is another one;
- a transfer coding other than exactly `chunked`, or any in HTTP/1.0;
- a length or a coding spelled with an underscore, which the next server may fold into the real one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from gateway.errors import BadRequest

Header = tuple[bytes, bytes]

WATCHED = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"content_length", b"transfer_encoding"}
)
"""Field names that decide framing or routing; everything else is passed on unread."""

# CONNECT would need a tunnel. TRACE would echo the identity headers set here back to the client (RFC 9110 §9.3.8). The
# others belong to HTTP/2's preface, ICE and RTSP, which llhttp also accepts.
REFUSED_METHODS = frozenset(
    {
        "CONNECT",
        "TRACE",
        "PRI",
        "SOURCE",
        "DESCRIBE",
        "ANNOUNCE",
        "SETUP",
        "PLAY",
        "PAUSE",
        "TEARDOWN",
        "GET_PARAMETER",
        "SET_PARAMETER",
        "REDIRECT",
        "RECORD",
        "FLUSH",
    }
)

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)


class Framing(NamedTuple):
    """Where the message goes and how its body ends, as far as the head says."""

    host: bytes
    length: int  # of the body; 0 without one, -1 when chunked
    expects_continue: bool
    offers_websocket: bool = False  # and nothing else, on a message without a body


def check_host(value: bytes) -> None:
    """BadRequest unless `value` is a host name, an IPv4 address or a bracketed IPv6 one, with an optional port."""
    if _HOST.fullmatch(value) is None:
        raise BadRequest("The Host field is not a host and an optional port.")


def read_framing(watched: Sequence[Header], version: str) -> Framing:
    """The framing that the fields of `WATCHED` (in order, names lower-case) give; BadRequest when they allow doubt."""
    hosts = [value for name, value in watched if name == b"host"]
    if len(hosts) != 1:
        # RFC 9112 §3.2: "MUST respond with a 400 … to any request message that contains more than one Host". HTTP/1.0
        # without one is refused as well: nothing could be routed by it.
        raise BadRequest("A request needs exactly one Host field.")
    check_host(hosts[0])
    if any(b"_" in name for name, _ in watched):
        raise BadRequest("A framing field is spelled with an underscore.")
    length = _body_length(watched, version)
    expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in watched)
    upgrades = [value.lower() for name, value in watched if name == b"upgrade"]
    offers_websocket = upgrades == [b"websocket"] and version == "1.1" and length == 0
    return Framing(hosts[0], length, expects and version == "1.1" and length != 0, offers_websocket)


def _body_length(watched: Sequence[Header], version: str) -> int:
    codings = [value for name, value in watched if name == b"transfer-encoding"]
    lengths = [value for name, value in watched if name == b"content-length"]
    if codings and lengths:
        raise BadRequest("A message has a length or a transfer coding, not both.")  # RFC 9112 §6.1
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked" or version != "1.1":
            raise BadRequest("The only transfer coding understood here is chunked, in HTTP/1.1.")
        return -1
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise BadRequest("The Content-Length is not one decimal number.")
    return int(lengths[0])


def check_method(method: str, version: str) -> None:
    """BadRequest for what no HTTP/1 origin behind a gateway should see; called for the rare method or version only."""
    if version not in ("1.0", "1.1"):
        raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if method in REFUSED_METHODS:
        raise BadRequest(f"The method {method} is not served here.")


def read_target(method: str, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """Raw path and query of the request target (RFC 9112 §3.2), byte for byte; BadRequest when it is another form."""
    if target[:1] != b"/":
        if target == b"*" and method == "OPTIONS":
            return target, b""
        target = _origin_form(target, host)
    if b"#" in target:
        raise BadRequest("The request target holds a fragment.")
    path, _, query = target.partition(b"?")
    return path, query


def _origin_form(target: bytes, host: bytes) -> bytes:
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("The request target is neither a path nor an http URL.")
    # RFC 9112 §3.2.2 lets the target's authority replace Host; a client must send both alike, so a difference is an
    # attempt to be read in two ways.
    if match[1].lower() != host.lower():
        raise BadRequest("The request target and the Host field name different authorities.")
    return match[2] if match[2].startswith(b"/") else b"/" + match[2]


def head_size(method: str, target: bytes, headers: Sequence[Header]) -> int:
    """Bytes of the head as sent, give or take optional white space."""
    return len(method) + len(target) + 14 + sum(len(name) + len(value) + 4 for name, value in headers)


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}
