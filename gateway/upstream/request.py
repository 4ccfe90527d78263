"""What is sent to an upstream: the request with everything about it decided, and its head as bytes."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import BadRequest
from gateway.fields import Header
from gateway.upstream.headers import NO_BODY

_NUL, _LF, _CR = b"\x00\n\r"


@dataclass(slots=True)
class UpstreamRequest:
    """What to send. Not frozen, for speed; nobody changes it after it is made."""

    method: bytes
    target: bytes  # the raw path and query, byte for byte as matched
    host: bytes  # the client's authority; an upstream may be configured to see its endpoint's instead
    headers: list[Header]  # the client's, from RequestHeaders.build: neither Host nor framing
    lines: bytes  # ours, from there too: rendered from what was checked when it was made
    request_id: bytes
    body_length: int | None = NO_BODY  # bytes; None: chunked; NO_BODY: none (from headers.body_length)
    body_limit: int = 10 * 2**20
    head_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0

    @property
    def fields(self) -> list[Header]:
        """All fields, the client's and ours."""
        ours = [line.partition(b": ") for line in self.lines.split(b"\r\n")[:-1]]
        return [*self.headers, *((name, value) for name, _, value in ours)]


def render_head(request: UpstreamRequest, host: bytes) -> bytes:
    """The request's head as bytes.

    Raises `BadRequest` if anything of the client's holds CR, LF or NUL, or the request line a space too many.
    """
    length = request.body_length
    if length is None:
        framing = b"\r\ntransfer-encoding: chunked\r\n"
    elif length >= 0:
        framing = b"\r\ncontent-length: %d\r\n" % length
    else:
        framing = b"\r\n"
    target = request.target
    said: list[bytes] = [request.method, target, host]
    parts: list[bytes] = [request.method, b" ", target, b" HTTP/1.1\r\nhost: ", host, framing]
    for pair in request.headers:
        said += pair
        parts += (pair[0], b": ", pair[1], b"\r\n")
    text = b"".join(said)
    if _LF in text or _CR in text or _NUL in text:
        raise BadRequest("The request holds a line break where none may be.")
    if b" " in target or not target or request.method == b"CONNECT":
        raise BadRequest("The request line cannot be forwarded.")
    parts += (request.lines, b"\r\n")
    return b"".join(parts)
