"""An answer at rest: which ones are kept, what of them, their bytes in a store, and their form when they are replayed.

    version │ status │ has a body? │ length of the field lines │ field lines │ body

Kept are answers that decide: 2xx to 4xx, except those that speak of this moment or this credential (401, 403, 408, 425,
429). Fields of the moment and of the connection are left out (Date, the request id), and so are those that hold
secrets: a cookie that was set once is not set again a day later on another device.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from gateway.fields import FieldLines

_HEAD: Final = struct.Struct(">BHBI")
_VERSION: Final = 1
_NOT_DECIDED: Final = frozenset({401, 403, 408, 425, 429})
_LEFT_OUT: Final = frozenset(
    (
        *(b"age", b"authentication-info", b"content-length", b"date", b"idempotent-body", b"idempotent-replayed"),
        *(b"server-timing", b"set-cookie", b"set-cookie2", b"x-request-id"),
    )
)
_OF_THE_BODY: Final = frozenset(
    (
        *(b"accept-ranges", b"content-digest", b"content-disposition", b"content-encoding", b"content-language"),
        *(b"content-range", b"content-type", b"digest", b"repr-digest"),
    )
)
_BODILESS: Final = frozenset({204, 205, 304})


def decides(status: int) -> bool:
    """Whether an answer of this status is the request's answer for good; otherwise the client may ask again."""
    return 200 <= status < 500 and status not in _NOT_DECIDED


def is_event_stream(fields: FieldLines) -> bool:
    """Whether the response is one that lasts by its nature."""
    return any(name == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of a response: `body` is None where only its head was kept."""

    status: int
    lines: bytes  # field lines, each with its end
    body: bytes | None

    @classmethod
    def of(cls, status: int, fields: FieldLines, body: bytes | None) -> Answer:
        """What may be kept of a response; with `body` None it is kept without one."""
        dropped = _LEFT_OUT if body is not None else _LEFT_OUT | _OF_THE_BODY
        kept = [b"%b: %b\r\n" % pair for pair in fields if pair[0] not in dropped]
        return cls(status, b"".join(kept), body)

    def pack(self) -> bytes:
        """Its bytes in a store."""
        head = _HEAD.pack(_VERSION, self.status, self.body is not None, len(self.lines))
        return b"".join((head, self.lines, self.body or b""))

    @classmethod
    def unpack(cls, packed: bytes) -> Answer:
        """What `pack` has made; ValueError for anything else."""
        try:
            version, status, has_body, length = _HEAD.unpack_from(packed)
        except struct.error as fault:
            raise ValueError("not an answer") from fault
        end = _HEAD.size + length
        if version != _VERSION or len(packed) < end or not 200 <= status <= 599:
            raise ValueError("not an answer of this version")
        lines = packed[_HEAD.size : end]
        if lines and not lines.endswith(b"\r\n"):
            raise ValueError("not the fields of an answer")
        if lines.count(b"\n") != lines.count(b"\r\n") or lines.count(b"\r") != lines.count(b"\r\n") or 0 in lines:
            raise ValueError("not the fields of an answer")
        return cls(status, lines, packed[end:] if has_body else None)

    def replayed(self, request_id: bytes, date: bytes) -> FieldLines:
        """Its fields for a repetition, with the id of that request, and with the time, so that clocks can be set."""
        lines = [self.lines, b"date: %b\r\nx-request-id: %b\r\nidempotent-replayed: true\r\n" % (date, request_id)]
        if self.body is None:
            lines.append(b"idempotent-body: omitted\r\n")
        length = -1
        if self.status not in _BODILESS:
            length = len(self.body or b"")
            lines.append(b"content-length: %d\r\n" % length)
        return FieldLines(b"".join(lines), length)
