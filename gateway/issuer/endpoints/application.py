"""The ASGI app: every endpoint, and 503 until the issuer has opened its store."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError
from gateway.http_date import http_date
from gateway.issuer.clients import OAuthError
from gateway.issuer.endpoints.answers import (
    on_gateway_error,
    on_http_exception,
    on_oauth_error,
    on_store_unavailable,
)
from gateway.issuer.endpoints.authorize import Authorize
from gateway.issuer.endpoints.first_party import FirstParty
from gateway.issuer.endpoints.metadata import Metadata
from gateway.issuer.endpoints.oauth import OAuth
from gateway.issuer.refusals import StoreDown
from gateway.issuer.service import Issuer
from gateway.issuer.store import StoreUnavailable
from gateway.problem import problem_response

Message = dict[str, Any]  # ASGI scopes and messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def create_endpoints(issuer: Issuer) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """The app. Its caller sets `scope["client"]`, `scope["scheme"]` and `scope["state"]["request_id"]`."""
    path = issuer.config.path
    parts = (FirstParty(issuer), OAuth(issuer), Authorize(issuer), Metadata(issuer))
    app: Any = Starlette(
        routes=[route for part in parts for route in part.routes(path)],
        exception_handlers={
            GatewayError: on_gateway_error,
            OAuthError: on_oauth_error,
            StoreUnavailable: on_store_unavailable,
            HTTPException: on_http_exception,
        },
    )
    app.router.redirect_slashes = False

    async def endpoints(scope: Message, receive: Receive, send: Send) -> None:
        if issuer.is_open:
            await app(scope, receive, send)
            return
        identifier = scope["state"]["request_id"]
        status, headers, body = problem_response(StoreDown(), identifier, http_date(time.time()))
        kept = [pair for pair in headers if pair[0] not in (b"date", b"x-request-id")]
        await send({"type": "http.response.start", "status": status, "headers": kept})
        await send({"type": "http.response.body", "body": body})

    return endpoints
