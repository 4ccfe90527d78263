"""`/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.telemetry.health import Readiness
from gateway.telemetry.metrics import CONTENT_TYPE, Scrape

_NO_STORE = {"cache-control": "no-store"}

Endpoint = Callable[[Request], Awaitable[Response]]


def _live() -> Endpoint:
    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"}, headers=_NO_STORE)

    return live


def _ready(readiness: Readiness) -> Endpoint:
    async def ready(_: Request) -> Response:
        is_ready, document = readiness.report()
        return JSONResponse(document, status_code=200 if is_ready else 503, headers=_NO_STORE)

    return ready


def _metrics(scrape: Scrape) -> Endpoint:
    async def metrics(_: Request) -> Response:
        return Response(await scrape.exposition(), media_type=CONTENT_TYPE, headers=_NO_STORE)

    return metrics


def create_admin(readiness: Readiness, scrape: Scrape, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The admin application; `routes` are those of parts that bring their own."""
    return Starlette(
        routes=[
            Route("/health/live", _live()),
            Route("/health/ready", _ready(readiness)),
            Route("/metrics", _metrics(scrape)),
            *routes,
        ]
    )
