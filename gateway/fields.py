"""Header fields in the two forms they have here: pairs to be looked at, and lines ready to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

Header = tuple[bytes, bytes]

# RFC 9110 §7.6.1 and the proxies' lore around it; Expect is answered by our server, Host and framing are written anew.
CONNECTION_FIELDS: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"proxy",  # of no use to anybody; CGI would turn it into HTTP_PROXY, which clients obey ("httpoxy")
    )
)


class FieldLines:
    """The fields of a response as the lines of a head; iterating gives pairs, as ASGI wants them.

    Whoever makes one vouches that names are in lower case, that no value holds a control character, and that nothing
    but Content-Length speaks of the framing or the connection.
    """

    __slots__ = ("length", "lines")

    def __init__(self, lines: bytes, length: int) -> None:
        """`lines` each end in CR LF; `length` is the Content-Length among them, -1 if there is none."""
        self.lines = lines
        self.length = length

    def __iter__(self) -> Iterator[Header]:
        for line in self.lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            yield name, value
