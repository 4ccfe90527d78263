"""What of a client's head goes on to the upstream, and of an upstream's head to the client.

Three kinds of fields never pass: those that concern one connection only (RFC 9110 §7.6.1), those that only the gateway
may write (identity, who is calling, request id, trace), and credentials that end here. A field counts as "the
gateway's" in every spelling that some server folds into the same name: case, and any character that is not a letter or
a digit in place of `-` (CGI and WSGI turn `X-User-Id` and `X_User_Id` into one variable; older Apache does so with
`X.User.Id`).

Removal comes before addition, so a client's `Connection: x-user-id` can only ever remove its own copy.
"""

from __future__ import annotations

import os
import re
import struct
from binascii import hexlify
from collections.abc import Iterable
from time import time
from typing import Final

from gateway.errors import BadRequest
from gateway.fields import CONNECTION_FIELDS, FieldLines, Header
from gateway.http_date import http_date
from gateway.upstream.peer import Peer
from gateway.upstream.response import RESPONSE_REMOVED, ResponseHead

NO_BODY: Final = -1

_REQUESTS_AT_ONCE: Final = 128  # whose digits are made together
_NO_SPAN: Final = b"0" * 16


class _Digits:
    """Random hex digits, lower-case, made for many requests at once and given out in pieces: ids, and half as long."""

    __slots__ = ("_halves", "_ids")

    def __init__(self) -> None:
        self._ids: list[bytes] = []
        self._halves: list[bytes] = []

    def restart(self) -> None:
        """Go on unlike the process this one was forked from."""
        self._ids.clear()
        self._halves.clear()

    def take(self, count: int) -> bytes:
        """The next `count` digits, 32 or 16."""
        pieces = self._ids if count == 32 else self._halves
        if not pieces:
            pieces += _cut(hexlify(os.urandom(_REQUESTS_AT_ONCE * count // 2)), count)
        return pieces.pop()


def _cut(digits: bytes, count: int) -> list[bytes]:
    """Pieces of so many digits."""
    return list(struct.unpack(f"{count}s" * (len(digits) // count), digits))


_digits = _Digits()
os.register_at_fork(after_in_child=_digits.restart)

_SPELLING: Final = bytes(c if chr(c).isascii() and chr(c).isalnum() else ord("-") for c in range(256)).lower()

_WRITTEN_ANEW: Final = frozenset(
    (b"host", b"content-length", b"expect", b"forwarded", b"x-request-id", b"traceparent", b"tracestate")
)
_BODY_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))
_READ_WHEN_REMOVED: Final = frozenset((b"connection", b"traceparent", b"tracestate"))
_NOMINATES_NOTHING: Final = frozenset((b"keep-alive", b"close", b"Keep-Alive"))
# Some frameworks believe these as they believe X-Forwarded-*: a stranger's are dropped, a trusted proxy's pass.
_BELIEVED_BY_BACKENDS: Final = frozenset(
    (
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"forwarded-for",
        b"x-forwarded",
        b"true-client-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-original-host",
    )
)
_FORWARDING_PREFIX: Final = b"x-forwarded-"
_FORWARDING: Final = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"))

# Fields of nearly every request, which need no closer look.
_ORDINARY: Final = frozenset(
    (
        *(b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control", b"content-encoding"),
        *(b"content-language", b"content-type", b"cookie", b"dnt", b"if-match", b"if-modified-since", b"if-none-match"),
        *(b"if-range", b"if-unmodified-since", b"origin", b"pragma", b"priority", b"range", b"referer", b"user-agent"),
        *(
            b"sec-ch-ua",
            b"sec-ch-ua-mobile",
            b"sec-ch-ua-platform",
            b"sec-fetch-dest",
            b"sec-fetch-mode",
            b"sec-fetch-site",
        ),
        *(b"sec-fetch-user", b"upgrade-insecure-requests", b"via", b"x-requested-with", b"idempotency-key"),
    )
)

_VIA: Final = {version: (b"via", version.encode() + b" gateway") for version in ("1.0", "1.1", "2", "2.0", "3")}
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_ID: Final = re.compile(rb"(?!0{32})[0-9a-f]{32}")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}")


def spelling(name: bytes) -> bytes:
    """The one form of all spellings that servers may fold together: lower case, `-` for all but letters and digits."""
    return name.translate(_SPELLING)


def request_id(headers: Iterable[Header], trusted: bool) -> bytes:
    """The id of a request: a trusted proxy's if it sent exactly one that is plain, else 32 new hex digits.

    Either consists of characters that stand for themselves in a log line of JSON.
    """
    if trusted:
        sent = [value for name, value in headers if name == b"x-request-id"]
        if len(sent) == 1 and _REQUEST_ID.fullmatch(sent[0]):
            return sent[0]
    digits: _Digits = _digits
    return digits.take(32)


def body_length(headers: Iterable[Header]) -> int | None:
    """How long the request's body is: bytes, None for a chunked one, `NO_BODY` where there is none (RFC 9112 §6.3).

    Raises `BadRequest` for a body whose end could be read in two ways; our server lets none through, others might.
    """
    framing = [pair for pair in headers if pair[0] in _BODY_FIELDS]
    if not framing:
        return NO_BODY
    length = NO_BODY
    chunked = False
    for name, value in framing:
        if name == b"content-length":
            if length != NO_BODY or not value.isdigit() or len(value) > 18:
                raise BadRequest("Content-Length is unusable.")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise BadRequest("Only the chunked transfer coding is understood.")
            chunked = True
    if not chunked:
        return length
    if length != NO_BODY:
        raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
    return None


def without_cookies(value: bytes, names: frozenset[bytes]) -> bytes:
    """A Cookie field's value without the cookies of these names, the others byte for byte; b"" when none is left."""
    kept = [pair for pair in value.split(b";") if pair.partition(b"=")[0].strip() not in names]
    return b";".join(kept).strip(b" \t")


class RequestHeaders:
    """The rules for one route's requests, compiled when the config is loaded."""

    __slots__ = ("_drop_cookies", "_dropped", "_ordinary", "_removed")

    def __init__(
        self,
        *,
        stripped: Iterable[bytes] = (),
        forward_token: bool = False,
        drop_cookies: Iterable[bytes] = (),
    ) -> None:
        """`stripped`: names that only the gateway may set; `drop_cookies`: cookies that hold the credential."""
        self._drop_cookies = frozenset(drop_cookies)
        removed = {spelling(name) for name in stripped} | CONNECTION_FIELDS | _WRITTEN_ANEW | _FORWARDING
        if not forward_token:
            removed.add(b"authorization")
        self._removed = frozenset(removed)
        looked_at = {b"cookie"} if self._drop_cookies else set()
        self._ordinary = _ORDINARY - removed - looked_at
        self._dropped = self._removed - _READ_WHEN_REMOVED

    def build(
        self,
        headers: Iterable[Header],
        identity: bytes,
        peer: Peer,
        request_id: bytes,
        http_version: str = "1.1",
    ) -> tuple[list[Header], bytes]:
        """The fields for the upstream: the client's in their order, and ours, as lines, to stand behind them.

        Host and framing are left to `forward`. `identity` are lines too; `http_version` is the client's, for Via.
        """
        kept: list[Header] = []
        seen: list[Header] = []  # removed fields that still have something to say
        ordinary, dropped = self._ordinary, self._dropped
        for pair in headers:
            if pair[0] in ordinary:
                kept.append(pair)
            elif pair[0] not in dropped:
                self._judge(pair, peer.trusted, kept, seen)
        trace = self._read_removed(seen, kept, peer.trusted) if seen else None
        via = _VIA_FIELDS.get(http_version, _VIA_FIELDS["1.1"])
        if trace is not None:
            ours = (identity, peer.lines, b"x-request-id: ", request_id, b"\r\ntraceparent: ", trace, via)
            return kept, b"".join(ours)
        # A new trace, sampled, as a backend would start its own; its id is our request id, so logs and traces meet.
        trace_id = _digits.take(32) if peer.trusted and _TRACE_ID.fullmatch(request_id) is None else request_id
        new = (b"\r\ntraceparent: 00-", trace_id, b"-", _new_span(), b"-01", via)
        return kept, b"".join((identity, peer.lines, b"x-request-id: ", request_id, *new))

    def _judge(self, pair: Header, trusted: bool, kept: list[Header], seen: list[Header]) -> None:
        name, value = pair
        folded = name.translate(_SPELLING)
        if folded in self._removed:
            if name in _READ_WHEN_REMOVED and value not in _NOMINATES_NOTHING:
                seen.append(pair)
        elif name == b"cookie" and self._drop_cookies:
            value = without_cookies(value, self._drop_cookies)
            if value:
                kept.append((name, value))
        elif not trusted and (folded in _BELIEVED_BY_BACKENDS or folded.startswith(_FORWARDING_PREFIX)):
            return
        else:
            kept.append(pair)

    def _read_removed(self, seen: list[Header], kept: list[Header], trusted: bool) -> bytes | None:
        """Apply what Connection nominates; returns the trace to continue, if there is one to believe."""
        nominated = {
            option.strip().lower() for name, value in seen if name == b"connection" for option in value.split(b",")
        }
        if nominated:
            kept[:] = [pair for pair in kept if pair[0] not in nominated]
        traces = [value for name, value in seen if name == b"traceparent"]
        if not trusted or len(traces) != 1 or _TRACEPARENT.fullmatch(traces[0]) is None:
            return None  # nor its state: without its trace it means nothing (W3C Trace Context §3.3)
        kept += [pair for pair in seen if pair[0] == b"tracestate"]
        return traces[0]


def _new_span() -> bytes:
    digits: _Digits = _digits
    span = digits.take(16)
    return span if span != _NO_SPAN else b"0" * 15 + b"1"


_RESPONSE_SPECIAL: Final = RESPONSE_REMOVED | {b"date", b"content-length"}
_VIA_LINES: Final = {version: b"via: %b\r\nx-request-id: " % value for version, (_, value) in _VIA.items()}
_VIA_FIELDS: Final = {version: b"\r\nvia: %b\r\n" % value for version, (_, value) in _VIA.items()}


def response_lines(head: ResponseHead, request_id: bytes) -> FieldLines:
    """What `response_headers` gives for a head, as lines; joined from those that were checked when they were read."""
    passed, length = head.passed, head.length
    if head.connection and head.connection not in _NOMINATES_NOTHING:
        nominated = {option.strip() for option in head.connection.split(b",")} - {b"content-length", b"date"}
        passed = [line for line in passed if line.partition(b":")[0] not in nominated]
    if head.status == 204 and length >= 0:
        passed = [line for line in passed if not line.startswith(b"content-length:")]
        length = -1
    date = b"" if head.dated else b"date: %b\r\n" % http_date(time())
    return FieldLines(b"".join((*passed, date, _VIA_LINES[head.version], request_id, b"\r\n")), length)


def response_headers(headers: Iterable[Header], status: int, request_id: bytes, version: str = "1.1") -> list[Header]:
    """The fields for the client: the upstream's in their order, duplicates kept, then Date if absent, Via and the id.

    Content-Length stays, as it was checked when the head was read, except on a 204, which may not have one (RFC 9110
    §8.6).
    """
    kept: list[Header] = []
    nominated: set[bytes] = set()
    dated = False
    special = _RESPONSE_SPECIAL
    for pair in headers:
        name = pair[0]
        if name not in special:
            kept.append(pair)
        elif name == b"date":
            dated = True
            kept.append(pair)
        elif name == b"content-length":
            if status != 204:
                kept.append(pair)
        elif name == b"connection" and pair[1] not in _NOMINATES_NOTHING:
            nominated.update(option.strip().lower() for option in pair[1].split(b","))
    if nominated:
        nominated -= {b"content-length", b"date"}  # framing is not theirs to take away, nor is what a clock relies on
        kept = [pair for pair in kept if pair[0] not in nominated]
    if not dated:
        kept.append((b"date", http_date(time())))
    kept.append(_VIA[version])
    kept.append((b"x-request-id", request_id))
    return kept
