"""The moment as HTTP writes it (IMF-fixdate, RFC 9110 §5.6.7), rendered once a second."""

from __future__ import annotations

from email.utils import formatdate

_second = -1
_rendered = b""


def http_date(now: float) -> bytes:
    """`now` (epoch seconds) as `Sun, 06 Nov 1994 08:49:37 GMT`; the last second's text is kept for the next caller."""
    global _second, _rendered  # one process, one clock: the cheapest cache there is
    second = int(now)
    if second != _second:
        _rendered = formatdate(second, usegmt=True).encode()
        _second = second
    return _rendered
