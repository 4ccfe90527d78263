"""Every way a request can fail, drawn as a tree: whose fault, then what.

    GatewayError
    ├─ ClientError
    │  ├─ BadRequest            400 bad_request
    │  ├─ NoRoute               404 no_route
    │  ├─ MethodNotAllowed      405 method_not_allowed
    │  ├─ RequestTimeout        408 request_timeout
    │  ├─ ContentTooLarge       413 content_too_large
    │  ├─ UpgradeRequired       426 upgrade_required
    │  ├─ RateLimited           429 rate_limited
    │  ├─ IdempotencyKeyMissing     400 idempotency_key_missing
    │  ├─ IdempotencyKeyReused      422 idempotency_key_reused
    │  ├─ IdempotencyKeyInUse       409 idempotency_key_in_use
    │  ├─ IdempotencyOutcomeUnknown 409 idempotency_outcome_unknown
    │  ├─ HeaderTooLarge        431 header_too_large
    │  ├─ Unauthorized          401
    │  │  ├─ TokenMissing           token_missing
    │  │  ├─ TokenInvalid           token_invalid
    │  │  ├─ TokenExpired           token_expired
    │  │  └─ TokenRevoked           token_revoked
    │  └─ Forbidden             403
    │     ├─ InsufficientScope      insufficient_scope
    │     └─ Denied                 denied
    ├─ GatewayFault
    │  ├─ KeysUnavailable       503 keys_unavailable
    │  ├─ DenylistStale         503 denylist_stale
    │  ├─ StatusUnavailable     503 status_unavailable
    │  ├─ IdempotencyUnavailable    503 idempotency_unavailable
    │  ├─ Overloaded            503 overloaded
    │  └─ Unexpected            500 unexpected
    └─ UpstreamFault
       ├─ ConnectFailed         502 connect_failed
       ├─ BadResponse           502 bad_response
       ├─ UpstreamTimeout       504 upstream_timeout
       └─ NoEndpoint            503 no_endpoint

A client can always tell *sign in again* (revoked) from *refresh* (expired) from *try later* (503). `title` is the
public sentence of the kind and never varies; `detail` is a public sentence about this occurrence, safe to show; `cause`
is for the log only. Neither may hold a token, a key or a secret. `gateway.problem` renders them; nothing else turns an
error into a response.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """A request that ends here instead of at an upstream; only its leaves are raised."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    retry_after_s: int | None = None  # seconds for `Retry-After` (RFC 9110 §10.2.3); every 503 has one

    def __init__(self, detail: str | None = None, *, cause: str | None = None) -> None:
        """`detail` goes to the client as it is; `cause` goes to the log only."""
        super().__init__(detail or self.title)
        self.detail = detail
        self.cause = cause


class ClientError(GatewayError):
    """The request itself is at fault; sent again unchanged it fails again."""


class BadRequest(ClientError):
    """The request can be read in more than one way, or in none."""

    status, code, title = 400, "bad_request", "The request is malformed or ambiguous."


class NoRoute(ClientError):
    """No route of the configuration matches host and path."""

    status, code, title = 404, "no_route", "No route matches this request."


class MethodNotAllowed(ClientError):
    """Routes match host and path, but none of them this method (RFC 9110 §15.5.6)."""

    status, code, title = 405, "method_not_allowed", "The method is not allowed for this resource."

    def __init__(self, allow: tuple[str, ...], detail: str | None = None) -> None:
        """`allow` lists the methods for the `Allow` field, sorted."""
        super().__init__(detail)
        self.allow = allow


class RequestTimeout(ClientError):
    """The head or the body did not arrive in time (RFC 9110 §15.5.9); the connection closes."""

    status, code, title = 408, "request_timeout", "The request did not arrive in time."


class ContentTooLarge(ClientError):
    """The body is longer than the route accepts (RFC 9110 §15.5.14)."""

    status, code, title = 413, "content_too_large", "The request body is too large."


class UpgradeRequired(ClientError):
    """A WebSocket handshake of another version than the one there is (RFC 6455 §4.4)."""

    status, code, title = 426, "upgrade_required", "Only version 13 of the WebSocket protocol is spoken here."


class RateLimited(ClientError):
    """The client asked too often (RFC 6585 §4)."""

    status, code, title = 429, "rate_limited", "Too many requests."
    retry_after_s = 1


class IdempotencyKeyMissing(ClientError):
    """A POST or PATCH without `Idempotency-Key` on a route that asks for one."""

    status, code, title = 400, "idempotency_key_missing", "This request needs an Idempotency-Key."


class IdempotencyKeyReused(ClientError):
    """The key belongs to a request with another method, target or body."""

    status, code, title = 422, "idempotency_key_reused", "The Idempotency-Key belongs to another request."


class IdempotencyKeyInUse(ClientError):
    """A request with this key is in flight, and has been for as long as the route waits."""

    status, code, title = 409, "idempotency_key_in_use", "A request with this Idempotency-Key is being handled."
    retry_after_s = 1


class IdempotencyOutcomeUnknown(ClientError):
    """A request with this key may have been handled, and the route does not forward it again."""

    status, code = 409, "idempotency_outcome_unknown"
    title = "A request with this Idempotency-Key may have been handled; look before you send it under a new one."


class HeaderTooLarge(ClientError):
    """The head has too many bytes or too many fields (RFC 6585 §5)."""

    status, code, title = 431, "header_too_large", "The request head is too large."


class Unauthorized(ClientError):
    """The request lacks valid credentials; carries an RFC 6750 challenge."""

    status = 401


class TokenMissing(Unauthorized):
    """No credential at all: the challenge names no error (RFC 6750 §3.1)."""

    code, title = "token_missing", "An access token is required."


class TokenInvalid(Unauthorized):
    """Anything wrong with the token up to and including its signature, audience and issuer."""

    code, title = "token_invalid", "The access token is not valid here."


class TokenExpired(Unauthorized):
    """A genuine token whose `exp` has passed: the client should refresh."""

    code, title = "token_expired", "The access token has expired."


class TokenRevoked(Unauthorized):
    """A genuine token that the denylist denies: the client should sign in again."""

    code, title = "token_revoked", "The access token has been revoked."


class Forbidden(ClientError):
    """The token is good and does not suffice."""

    status = 403


class InsufficientScope(Forbidden):
    """A scope is missing; the challenge names what the route wants (RFC 6750 §3.1)."""

    code, title = "insufficient_scope", "The access token does not carry the required scope."

    def __init__(self, scope: str, detail: str | None = None) -> None:
        """`scope` is the space-separated list for the challenge's `scope` attribute."""
        super().__init__(detail)
        self.scope = scope


class Denied(Forbidden):
    """A claim that the route requires is absent or has another value."""

    code, title = "denied", "The access token does not permit this request."


class GatewayFault(GatewayError):
    """The gateway cannot decide or serve now; the request may be fine."""


class KeysUnavailable(GatewayFault):
    """No keys of the token's issuer have been fetched yet."""

    status, code, title = 503, "keys_unavailable", "The issuer's keys are not available; try again later."
    retry_after_s = 5


class DenylistStale(GatewayFault):
    """The denylist has been out of contact for longer than the route accepts."""

    status, code, title = 503, "denylist_stale", "Revocation cannot be checked at the moment; try again later."
    retry_after_s = 5


class StatusUnavailable(GatewayFault):
    """The token refers to a status list that cannot be had, and the issuer's setting refuses then."""

    status, code, title = 503, "status_unavailable", "The token's status cannot be checked now; try again later."
    retry_after_s = 5


class IdempotencyUnavailable(GatewayFault):
    """The store of answers cannot be asked; nothing was forwarded."""

    status, code, title = 503, "idempotency_unavailable", "Repetitions cannot be recognised now; try again later."
    retry_after_s = 2


class Overloaded(GatewayFault):
    """A limit of the gateway itself (connections, waiting requests) is reached."""

    status, code, title = 503, "overloaded", "The gateway is at its limit; try again later."
    retry_after_s = 1


class Unexpected(GatewayFault):
    """A fault in the gateway's own code; the cause is in the log under the request id."""

    status, code, title = 500, "unexpected", "The gateway failed to handle the request."


class UpstreamFault(GatewayError):
    """The upstream cannot be reached, or does not keep to the protocol or to its time."""


class ConnectFailed(UpstreamFault):
    """No connection to an endpoint (refused, unreachable, TLS failure), or it died before a response head."""

    status, code, title = 502, "connect_failed", "The upstream could not be reached."


class BadResponse(UpstreamFault):
    """The upstream answered something that is not HTTP/1.1, or that could be read in two ways."""

    status, code, title = 502, "bad_response", "The upstream sent an invalid response."


class UpstreamTimeout(UpstreamFault):
    """The upstream took longer than the configured connect, head or idle time."""

    status, code, title = 504, "upstream_timeout", "The upstream did not respond in time."


class NoEndpoint(UpstreamFault):
    """No endpoint of the upstream is available, or its pool stayed full for the whole wait."""

    status, code, title = 503, "no_endpoint", "No upstream endpoint is available; try again later."
    retry_after_s = 2
