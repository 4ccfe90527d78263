"""The inlets in front of the pipeline: their exact paths are theirs, every other request goes on untouched.

Present only in a generation whose configuration accepts anything; one look into a dict is what others pay. Requests to
inlets are accounted for like all others, under the name `issuer/endpoint`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic, time
from types import MappingProxyType
from typing import Any

from gateway.config.schema import Config
from gateway.denylist.intake import Intake
from gateway.errors import ClientError, MethodNotAllowed, RequestTimeout
from gateway.http_date import http_date
from gateway.inlets.events import EventsEndpoint
from gateway.inlets.logout import LogoutEndpoint
from gateway.inlets.message import Inlet, Message, Reply, read_body
from gateway.inlets.revoke import RevocationEndpoint
from gateway.keys.source import KeySource
from gateway.problem import problem_response
from gateway.telemetry.exchange import Exchange
from gateway.tokens.verifier import Verifier
from gateway.upstream.arrival import open_exchange
from gateway.upstream.peer import Peers

Scope = dict[str, Any]  # ASGI scopes and messages are open mappings
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("gateway.inlets")

_BODY_S = 10.0  # for a whole message: senders are servers
_CLIENT_GONE = 499


def build_inlets(
    config: Config,
    keys: Mapping[str, KeySource],
    verifier: Verifier,
    intake: Intake,
    transmitters: Mapping[str, KeySource] = MappingProxyType({}),
) -> dict[bytes, Inlet]:
    """Every endpoint that some issuer of the configuration accepts messages at, by its path.

    `transmitters` are the keys of those that sign security events with keys of their own, by the issuer's name.
    """
    inlets: dict[bytes, Inlet] = {}
    for name, issuer in config.issuers.items():
        settings = issuer.revocation
        found: list[Inlet] = []
        if settings.clients:
            found.append(RevocationEndpoint(name, settings.clients, issuer.leeway, verifier, intake))
        if settings.backchannel_logout is not None:
            found.append(LogoutEndpoint(name, issuer, settings.backchannel_logout, keys[name], intake))
        if settings.shared_signals is not None:
            signed_by = transmitters.get(name) or keys[name]
            found.append(EventsEndpoint(name, issuer, settings.shared_signals, signed_by, intake))
        assert config.denylist is not None or not found  # a check of the configuration
        for inlet in found:
            prefix = config.denylist.endpoints if config.denylist is not None else ""
            inlets[f"{prefix}/{inlet.name}".encode()] = inlet
    return inlets


class Mount:
    """An ASGI app: the inlets, and behind them the application that gets everything else."""

    def __init__(
        self,
        inlets: Mapping[bytes, Inlet],
        onward: Application,
        intake: Intake,
        peers: Peers,
        record: Callable[[Exchange], None],
        wall: Callable[[], float] = time,
    ) -> None:
        """`inlets` by raw path; `record` gets the exchange of each request to one of them."""
        self._inlets = inlets
        self._onward = onward
        self._intake = intake
        self._peers = peers
        self._record = record
        self._wall = wall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to an inlet; hand on every other. For `http` scopes."""
        inlet = self._inlets.get(scope["raw_path"])
        if inlet is None:
            await self._onward(scope, receive, send)
        else:
            await self._serve(inlet, scope, receive, send)

    async def _serve(self, inlet: Inlet, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, _, _, identifier = open_exchange(scope, self._peers, inlet.name)
        try:
            status, headers, body = await self._answer(inlet, scope, receive, exchange)
            exchange.status, exchange.bytes_out = status, len(body)
            headers.append((b"x-request-id", identifier))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})
        except asyncio.CancelledError:
            exchange.code = exchange.code or "client_gone"
            exchange.status = exchange.status or _CLIENT_GONE
            raise
        finally:
            exchange.duration_s = monotonic() - exchange.started
            self._record(exchange)

    async def _answer(
        self, inlet: Inlet, scope: Scope, receive: Receive, exchange: Exchange
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, fields and body."""
        date = http_date(self._wall())
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(("POST",))
            try:
                async with asyncio.timeout(_BODY_S):
                    body = await read_body(scope["headers"], receive)
            except TimeoutError:
                raise RequestTimeout from None
            exchange.bytes_in = len(body)
            reply = await self._reply(inlet, Message(scope["headers"], body, self._wall()), exchange)
        except ClientError as error:
            exchange.code, exchange.cause = error.code, error.detail or ""
            self._intake.count(inlet.source, "refused")
            status, fields, octets = problem_response(error, exchange.request_id, date)
            return status, [field for field in fields if field[0] != b"x-request-id"], octets
        fields, octets = reply.rendered()
        return reply.status, [*fields, (b"date", date)], octets

    async def _reply(self, inlet: Inlet, message: Message, exchange: Exchange) -> Reply:
        try:
            reply = await inlet.answer(message)
        except ClientError:
            raise
        except Exception:
            # The last line of defence: the sender may come again, the log has the reason.
            logger.exception("%s failed, request %s", inlet.name, exchange.request_id)
            reply = Reply(500, "failed")
        self._intake.count(inlet.source, reply.outcome)
        exchange.code, exchange.cause = reply.code, reply.text
        return reply
