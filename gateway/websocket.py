"""One WebSocket, by the same steps as any request (`gateway.pipeline`); what differs stands here.

    offer   its handshake as a request: a token behind the subprotocol `bearer` moves into `Authorization`, where the
            rules for credentials find it, and the rules for headers remove it
    carry   its last step: origin, the upstream's handshake, then messages until one side, or the token, ends

A refusal at any step is the HTTP response that a request would have got.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway.errors import BadRequest, Denied
from gateway.live import Watch
from gateway.telemetry.exchange import Exchange
from gateway.tokens.bearer import from_subprotocols
from gateway.tokens.claims import Token
from gateway.upstream.endpoints import Upstream
from gateway.upstream.relay import Relay
from gateway.upstream.request import UpstreamRequest
from gateway.upstream.websocket import HandshakeRefused, UpstreamHandshake, accepted_headers, dial

Message = dict[str, Any]  # ASGI scopes and messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WebSocketRules:
    """What a route says of WebSockets; made when a configuration loads."""

    enabled: bool
    max_message: int  # bytes, either way
    idle_s: float
    origins: frozenset[bytes] | None  # None: any, or the same host if the route takes tokens from cookies
    has_cookies: bool  # whether a token may come in one, which browsers send for any page

    def check(self, headers: list[tuple[bytes, bytes]], host: bytes) -> None:
        """BadRequest where there are none; Denied for a page that may not connect (RFC 6455 §10.2)."""
        if not self.enabled:
            raise BadRequest("This resource does not speak WebSocket.")
        origins = [value for name, value in headers if name == b"origin"]
        if self.origins is not None:
            if len(origins) > 1 or (origins and origins[0].lower() not in self.origins):
                raise Denied("Pages of this origin may not open a WebSocket here.")
            return
        # The browser may have added a cookie, whoever wrote the page; only an origin of this host is the user's own.
        if self.has_cookies and origins and not any(name == b"authorization" for name, _ in headers):
            hosts = [origin.lower().partition(b"://")[2] for origin in origins]
            if hosts != [host.lower()]:
                raise Denied("Pages of another host may not open a WebSocket here.")


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's handshake: the two channels of its `websocket` scope, and what it offers besides a token."""

    receive: Receive
    send: Send
    headers: list[tuple[bytes, bytes]]  # with a token from the subprotocols in `authorization`
    subprotocols: list[str]  # without `bearer` and its token
    bearer: str | None  # as the client spells it, if it was there

    @classmethod
    def of(cls, scope: Message, receive: Receive, send: Send) -> Offer:
        """The offer of a `websocket` scope."""
        offered: list[str] = scope["subprotocols"]
        tokens, others = from_subprotocols(offered)
        headers = [pair for pair in scope["headers"] if pair[0] != b"sec-websocket-protocol"]
        # Several become several Authorization fields, and are refused as those are.
        headers += [(b"authorization", b"Bearer " + token) for token in tokens]
        bearer = next((name for name in offered if name not in others), None) if tokens else None
        return cls(receive, send, headers, others, bearer)

    def as_request(self, scope: Message) -> Message:
        """The scope of the request that the handshake is."""
        scheme = "https" if scope["scheme"] == "wss" else "http"
        return {**scope, "type": "http", "method": "GET", "scheme": scheme, "headers": self.headers}

    async def refuse(self, message: Message) -> None:
        """Send a part of an HTTP response instead of accepting."""
        await self.send({**message, "type": f"websocket.{message['type']}"})


async def carry(
    offer: Offer,
    request: UpstreamRequest,
    upstream: Upstream,
    rules: WebSocketRules,
    watch: Watch | None,
    token: Token | None,
    exchange: Exchange,
) -> None:
    """Open the WebSocket to `upstream`, accept the client's, and relay until the end.

    Raises, only while nothing was accepted: `BadRequest`, `Denied`, the leaves of `UpstreamFault`.
    """
    rules.check(offer.headers, request.host)
    handshake = UpstreamHandshake(
        target=request.target,
        host=request.host,
        headers=request.fields,
        subprotocols=offer.subprotocols,
        request_id=request.request_id,
        max_message=rules.max_message,
        head_timeout_s=request.head_timeout_s,
    )
    try:
        leg = await dial(handshake, upstream, exchange)
    except HandshakeRefused as refused:
        exchange.status, exchange.bytes_out = refused.status, len(refused.body)
        headers = [*refused.headers, (b"content-length", b"%d" % len(refused.body))]
        await offer.refuse({"type": "http.response.start", "status": refused.status, "headers": headers})
        await offer.refuse({"type": "http.response.body", "body": refused.body, "more_body": False})
        return
    exchange.status = 101
    exchange.head_s = monotonic() - exchange.started
    relay = Relay(leg, offer.receive, offer.send, exchange)
    accept = {
        "type": "websocket.accept",
        # Browsers give up on a server that chooses none of what they offered.
        "subprotocol": leg.subprotocol or offer.bearer,
        "headers": accepted_headers(leg, request.request_id),
        "max_message": rules.max_message,
        "idle_s": rules.idle_s,
    }
    try:
        await offer.send(accept)
        if watch is not None:
            watch.enter(relay, token, lasts=True)
        await relay.run()
    finally:
        leg.transport.close()
        if watch is not None:
            watch.leave(relay)
