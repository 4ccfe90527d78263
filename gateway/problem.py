"""An error as a response: an RFC 9457 body and, where the fault is the credential's, an RFC 6750 challenge.

The one place where a `GatewayError` becomes bytes. The body says whose fault it was and what to do; it never holds a
token, an upstream's address or an internal cause.
"""

from __future__ import annotations

import json

from gateway.errors import (
    ContentTooLarge,
    GatewayError,
    HeaderTooLarge,
    InsufficientScope,
    MethodNotAllowed,
    RequestTimeout,
    TokenMissing,
    Unauthorized,
    UpgradeRequired,
)

TYPE_PREFIX = "urn:gateway:error:"  # RFC 9457 §3.1.1: an identifier need not be dereferenceable


def problem_body(error: GatewayError, request_id: str) -> bytes:
    """The `application/problem+json` document; ASCII, one line."""
    body: dict[str, str | int] = {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }
    if error.detail:
        body["detail"] = error.detail
    body["request_id"] = request_id
    return json.dumps(body).encode() + b"\n"


def challenge(error: GatewayError) -> bytes | None:
    """The `WWW-Authenticate` value, or None where the error is not about the credential (RFC 6750 §3)."""
    if isinstance(error, TokenMissing):
        # "If the request lacks any authentication information … the resource server SHOULD NOT include an error code"
        return b"Bearer"
    if isinstance(error, Unauthorized):
        return b'Bearer error="invalid_token", error_description="%s"' % error.title.encode()
    if isinstance(error, InsufficientScope):
        return b'Bearer error="insufficient_scope", scope="%s"' % error.scope.encode()
    if error.status == 403:
        return b'Bearer error="insufficient_scope", error_description="%s"' % error.title.encode()
    return None


def problem_response(error: GatewayError, request_id: str, date: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer; `date` is an IMF-fixdate, so that clients can correct their clocks."""
    body = problem_body(error, request_id)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"date", date),
        (b"x-request-id", request_id.encode()),
    ]
    value = challenge(error)
    if value is not None:
        headers.append((b"www-authenticate", value))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if isinstance(error, UpgradeRequired):
        headers += [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if isinstance(error, ContentTooLarge | HeaderTooLarge | RequestTimeout):
        headers.append((b"connection", b"close"))  # the rest of the message is not worth reading
    return error.status, headers, body
