"""Whether a word of our own can be put into an event stream (HTML Living Standard, Server-sent events).

Events end with an empty line; what stands before one belongs to an event that is not complete. So another event can be
added only right after an empty line, or at the very beginning, and only where bytes mean what they say: not in a
compressed body, and not in one whose length was announced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from gateway.fields import Header

_TYPE: Final = b"text/event-stream"
_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")
_LONGEST_END: Final = 4


class EventStream:
    """The last bytes of an event stream that is passed on."""

    __slots__ = ("_is_plain", "_tail")

    def __init__(self, is_plain: bool) -> None:
        """`is_plain`: neither compressed nor of a length that was announced."""
        self._is_plain = is_plain
        self._tail = b""

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Self | None:
        """The stream that a response's fields announce; None for any other type."""
        is_events, is_plain = False, True
        for name, value in headers:
            if name == b"content-type":
                is_events = value.partition(b";")[0].strip().lower() == _TYPE
            elif name == b"content-length" or (name == b"content-encoding" and value.strip().lower() != b"identity"):
                is_plain = False
        return cls(is_plain) if is_events else None

    def pass_on(self, piece: bytes) -> None:
        """Note what has been passed on."""
        if len(piece) >= _LONGEST_END:
            self._tail = piece[-_LONGEST_END:]
        else:
            self._tail = (self._tail + piece)[-_LONGEST_END:]

    @property
    def takes_another(self) -> bool:
        """Whether an event can be added here without becoming a part of another one."""
        return self._is_plain and (not self._tail or self._tail.endswith(_ENDS))
