"""An ASGI app on the clients' address beside the routes: recorded, dated and refused in the manner of a route.

The app finds the caller in `scope["client"]` and the scheme in `scope["scheme"]` once trusted proxies were believed,
and sees only what arrived under its own paths, byte for byte.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any

from gateway.errors import GatewayError, Unexpected
from gateway.http_date import http_date
from gateway.problem import problem_response
from gateway.telemetry.exchange import Exchange
from gateway.upstream.arrival import open_exchange
from gateway.upstream.peer import Peers

logger = logging.getLogger("gateway.mount")

Message = dict[str, Any]  # ASGI scopes and messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

CLIENT_GONE = 499  # recorded, never sent


class Mount:
    """One app and the paths that are its own."""

    def __init__(
        self,
        name: str,
        application: Application,
        path: str,
        *,
        exact: tuple[str, ...] = (),
        peers: Peers,
        record: Callable[[Exchange], None],
    ) -> None:
        """`path` and everything below it, and the paths in `exact`; `name` stands in the log as the route."""
        self._name = name
        self._application = application
        self._below = path.encode() + b"/"
        self._exact = frozenset({path.encode(), *(text.encode() for text in exact)})
        self._peers = peers
        self._record = record

    def owns(self, raw_path: bytes) -> bool:
        """Whether a request for this path belongs here."""
        return raw_path.startswith(self._below) or raw_path in self._exact

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens, and account for it."""
        await self._serve(self._application, scope, receive, send)

    async def refuse(self, error: GatewayError, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request with an error that was found before it got anywhere, and account for it."""

        async def refusing(_scope: Message, _receive: Receive, _send: Send) -> None:
            raise error

        async def denying(message: Message) -> None:  # ASGI's words where a WebSocket was asked for
            await send({**message, "type": f"websocket.{message['type']}"})

        if scope["type"] == "websocket":
            await receive()  # `websocket.connect`
        await self._serve(refusing, scope, receive, denying if scope["type"] == "websocket" else send)

    async def _serve(self, application: Application, scope: Message, receive: Receive, send: Send) -> None:
        exchange, peer, _, identifier = open_exchange(scope, self._peers, self._name)
        client = scope["client"]
        inner = {**scope, "client": (peer.client_ip, client[1] if client else 0), "scheme": peer.scheme.decode()}
        inner["state"] = {"request_id": exchange.request_id}

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = [(b"date", http_date(time())), (b"x-request-id", identifier)]
                message = {**message, "headers": [*message["headers"], *own]}
            else:
                exchange.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await application(inner, receive, dated)
        except asyncio.CancelledError:
            exchange.status = exchange.status or CLIENT_GONE
            exchange.code = "client_gone"
            raise
        except GatewayError as error:  # the body broke off
            await self._refuse(error, exchange, send)
        except Exception as exc:
            logger.exception("request %s failed", exchange.request_id)
            await self._refuse(Unexpected(cause=f"{type(exc).__name__}: {exc}"), exchange, send)
        finally:
            exchange.duration_s = monotonic() - exchange.started
            self._record(exchange)

    @staticmethod
    async def _refuse(error: GatewayError, exchange: Exchange, send: Send) -> None:
        exchange.code = error.code
        exchange.cause = error.cause or error.detail or ""
        if exchange.status:
            raise error  # a response has started: the server cuts it short
        status, headers, body = problem_response(error, exchange.request_id, http_date(time()))
        exchange.status, exchange.bytes_out = status, len(body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
