"""One request, in order. The file to read first.

    0  accept      the server has bounded the head and made sure of one Host; `app` has picked the generation, once
    1  record      an `Exchange` opens; whatever happens from here is written into it
    2  guard       a `GatewayError` becomes a response, unless one has started
    3  match       first, because audience and policy belong to the route                     400, 404, 405
    4  credential  where the route says a token may stand                                     400, 401
    5  verify      cheap claims before keys, so that forged tokens cannot cause fetches       401, 503
    6  revoked?    after the signature, so that strangers cannot probe the denylist           401, 503
    7  authorize   scopes and claims that the route asks for                                  403
    8  identify    what the upstream is told about the caller; a public route passes here too, to strip
    9  choose      and
    10 forward     both bodies streamed; or, by its key, as it was answered before       409, 413, 422, 502, 503, 504
    11 account     the record closes: one log line, one set of metrics

Each step turns the request into a stronger value: bytes → `Route` → `Token` → `Permit` → headers. What can be decided
when the configuration loads is decided in `gateway.generation`; nothing here parses a setting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic, time
from types import MappingProxyType
from typing import Any

from gateway.denylist.contract import StoreError
from gateway.denylist.replica import Replica
from gateway.denylist.strict import StrictCheck
from gateway.errors import BadResponse, DenylistStale, GatewayError, TokenRevoked, Unexpected
from gateway.http_date import http_date
from gateway.idempotency.route import Idempotency
from gateway.identity import IdentityHeaders
from gateway.live import Watch
from gateway.policy import Policy
from gateway.problem import problem_response
from gateway.routing.table import RouteTable
from gateway.telemetry.exchange import Exchange
from gateway.tokens.bearer import CredentialSources, find_token, without_query
from gateway.tokens.claims import Token
from gateway.tokens.status_cache import StatusLists
from gateway.tokens.verifier import Verifier, check_route
from gateway.upstream.arrival import open_exchange
from gateway.upstream.endpoints import Upstream
from gateway.upstream.forward import ClientGone, ResponseAborted, forward
from gateway.upstream.headers import RequestHeaders, body_length
from gateway.upstream.peer import Peers
from gateway.upstream.request import UpstreamRequest
from gateway.websocket import Offer, WebSocketRules, carry

Message = dict[str, Any]  # ASGI scopes and messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger("gateway.pipeline")

CLIENT_GONE = 499  # nginx's word for it: recorded, never sent


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One route with everything about it decided; made by `gateway.generation` when a configuration loads."""

    name: str
    checks_tokens: bool  # False: auth none
    sources: CredentialSources | None  # where a token may stand besides Authorization
    dropped_queries: frozenset[bytes]  # parameters that hold a credential, here or on another route
    issuers: frozenset[str] | None  # names of the issuers accepted here; None: all
    audience: frozenset[str] | None  # narrows the issuers' audience; None: as they say
    refuses_stale: bool
    asks_store: bool  # on each request; else the replica decides
    policy: Policy
    identity: IdentityHeaders
    headers: RequestHeaders
    upstream: Upstream
    body_limit: int  # bytes
    head_timeout_s: float
    idle_timeout_s: float
    watch: Watch | None  # of what lasts longer than its permission; None: nobody does
    websocket: WebSocketRules
    idempotency: Idempotency | None  # None: repetitions are none of its affair


class Pipeline:
    """The path of every request through one generation: an ASGI app without state of its own."""

    __slots__ = ("_peers", "_record", "_replica", "_statuses", "_strict", "_verifier", "routes")

    def __init__(
        self,
        routes: RouteTable[Route],
        verifier: Verifier,
        replica: Replica | None,
        peers: Peers,
        record: Callable[[Exchange], None],
        strict: StrictCheck | None = None,
        statuses: Mapping[str, StatusLists] = MappingProxyType({}),
    ) -> None:
        """`replica` and `strict` are None where nothing can be revoked; `statuses` are of issuers that have lists.

        `record` gets each exchange once, when it has ended.
        """
        self.routes = routes
        self._verifier = verifier
        self._replica = replica
        self._peers = peers
        self._record = record
        self._strict = strict
        self._statuses = statuses

    async def upgrade(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one `websocket` scope: by the steps of a request, since its handshake is one."""
        await receive()  # `websocket.connect`
        offer = Offer.of(scope, receive, send)
        await self(offer.as_request(scope), receive, offer.refuse, offer)

    async def __call__(self, scope: Message, receive: Receive, send: Send, offer: Offer | None = None) -> None:
        """Answer one request, whatever happens, and account for it; with `offer` it asks for a WebSocket."""
        exchange, peer, host, identifier = open_exchange(scope, self._peers)
        headers = scope["headers"]
        try:
            route: Route = self.routes.match(exchange.method, host, scope["raw_path"])
            exchange.route = route.name
            token = None
            raw = find_token(headers, scope["query_string"], route.sources) if route.checks_tokens else None
            if raw is not None:
                now = time()
                token = self._verifier.recall(raw, now)
                if token is not None:
                    exchange.token_cached = True
                else:
                    token = await self._verifier.verify(raw, now)
                self._judge(token, route, exchange, now)
                if route.asks_store or self._statuses:
                    await self._ask_outside(token, route)
            permit = route.policy.authorize(token)
            identity = route.identity.lines(permit)
            passed, ours = route.headers.build(headers, identity, peer, identifier, scope["http_version"])
            request = UpstreamRequest(
                exchange.method.encode(),
                _target(scope, route),
                host,
                passed,
                ours,
                identifier,
                body_length(headers),
                route.body_limit,
                route.head_timeout_s,
                route.idle_timeout_s,
            )
            if offer is not None:
                await carry(offer, request, route.upstream, route.websocket, route.watch, token, exchange)
            elif route.idempotency is None:
                await forward(request, route.upstream, receive, send, exchange, route.watch, token)
            else:
                await route.idempotency.forward(request, route.upstream, receive, send, exchange, route.watch, token)
        except GatewayError as error:
            await self._refuse(error, exchange, send)
        except (asyncio.CancelledError, ClientGone):
            exchange.code = exchange.code or "client_gone"
            exchange.status = exchange.status or CLIENT_GONE
            raise
        except ResponseAborted as aborted:
            # The record says why; the server closes the connection, so that the client notices.
            raise BadResponse from aborted
        except Exception as exc:
            # The last line of defence: the client learns an id, the log the reason.
            logger.exception("request %s failed", exchange.request_id)
            await self._refuse(Unexpected(cause=f"{type(exc).__name__}: {exc}"), exchange, send)
        finally:
            exchange.duration_s = monotonic() - exchange.started
            self._record(exchange)

    def _judge(self, token: Token, route: Route, exchange: Exchange, now: float) -> None:
        """What is known at once of a verified token: whether this route takes it, and whether it was revoked."""
        exchange.issuer = token.issuer
        exchange.subject = token.subject or ""
        exchange.token_id = token.token_id or ""
        if route.issuers is not None or route.audience is not None:
            check_route(token, route.issuers, route.audience)
        self._check_denylist(route, token, now)

    async def _ask_outside(self, token: Token, route: Route) -> None:
        """What may have to be waited for: the issuer's status list, and the store on a route that asks it."""
        lists = self._statuses.get(token.issuer)
        if lists is not None:
            await lists.check(token)
        if route.asks_store and self._strict is not None:
            await _ask_store(route, self._strict, token)

    def _check_denylist(self, route: Route, token: Token, now: float) -> None:
        """TokenRevoked for what the replica knows, however old; DenylistStale when it may have missed something."""
        replica = self._replica
        if replica is None:
            return
        kind = replica.find(
            token.issuer,
            token.token_id,
            token.session_id,
            token.subject,
            token.client_id,
            token.kid,
            token.issued_at,
            now,
        )
        if kind is not None:
            raise TokenRevoked(cause=f"denied by {kind}")
        # A route that asks the store learns from its answer, or from its silence.
        if route.refuses_stale and not route.asks_store and replica.is_stale(monotonic()):
            raise DenylistStale(cause="no contact with the denylist's store")

    @staticmethod
    async def _refuse(error: GatewayError, exchange: Exchange, send: Send) -> None:
        exchange.code = error.code
        exchange.cause = error.cause or error.detail or ""
        status, headers, body = problem_response(error, exchange.request_id, http_date(time()))
        exchange.status = status
        exchange.bytes_out = len(body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _ask_store(route: Route, strict: StrictCheck, token: Token) -> None:
    """TokenRevoked for what the store denies now; DenylistStale if it does not answer and the route refuses then."""
    try:
        kind = await strict.find(
            token.issuer,
            token.token_id,
            token.session_id,
            token.subject,
            token.client_id,
            token.kid,
            token.issued_at,
        )
    except StoreError as fault:
        if route.refuses_stale:
            raise DenylistStale(cause=f"strict: {fault}") from fault
        return  # what was last known has decided
    if kind is not None:
        raise TokenRevoked(cause=f"denied by {kind}, said the store")


def _target(scope: Message, route: Route) -> bytes:
    """Path and query for the upstream: byte for byte as matched, without a credential."""
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    if query and route.dropped_queries:
        query = without_query(query, route.dropped_queries)
    return path + b"?" + query if query else path
