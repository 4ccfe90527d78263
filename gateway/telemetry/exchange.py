"""One typed record per request: what is known when it ends, for the log line and the metrics.

The pipeline makes one `Exchange` when a request comes in, every step writes the facts it establishes into it, and the
record closes exactly once, also when the client goes away. It never holds a token, a query string or a header value
other than the request id.
"""

from __future__ import annotations

from dataclasses import dataclass

_TO_SPACE = bytes(c if 0x20 <= c < 0x7F and c not in b'"\\' else ord(" ") for c in range(256))


@dataclass(slots=True)
class Exchange:
    """The facts of one request. Times are monotonic seconds; bytes count message bodies only."""

    started: float  # monotonic, when the head was complete
    method: str
    host: str  # as received, "" when absent
    path: str  # the raw path as received, without the query (a query may carry credentials)
    client: str  # the client's address after trusted proxies were believed
    request_id: str = ""
    route: str = ""  # the route's name; "" before a match
    status: int = 0  # as sent to the client; 101 for a WebSocket; 499 when the client went away before a response head
    code: str = ""  # the error's stable code; "" when the upstream's answer was passed on
    cause: str = ""  # internal reason, for the log only
    issuer: str = ""  # the issuer's name in the YAML
    subject: str = ""  # `sub`; the log shows a digest unless configured otherwise
    token_id: str = ""  # `jti`
    upstream: str = ""
    endpoint: str = ""  # host:port that answered
    bytes_in: int = 0
    bytes_out: int = 0
    connect_s: float = -1.0  # seconds spent to get an upstream connection; -1 when none was sought
    head_s: float = -1.0  # seconds from `started` to the upstream's response head; -1 when none came
    duration_s: float = -1.0  # seconds from `started` to the end; -1 while open
    close_code: int = 0  # of a WebSocket, as the client was told or told us; 1006: without a word
    retried: bool = False  # a stale keep-alive connection was replaced
    token_cached: bool = False  # the signature was remembered, not computed
    is_clean: bool = False  # JSON shows the request id and the path as they are; False: nobody has looked


def is_clean(text: bytes) -> bool:
    """Whether JSON in ASCII shows a text as it is: printable ASCII without a quotation mark or a backslash."""
    return text.translate(_TO_SPACE) == text
