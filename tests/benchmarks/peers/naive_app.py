"""The application of the naive peer, as a team would write it in an afternoon; uvicorn runs it with its own defaults.

Kept in the usual manner on purpose: one shared client, streamed answers, a decode per request. Its reading of JWTs and
of headers is not safe at an edge.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import jwt
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.benchmarks import tokens

_NOT_FORWARDED = {"authorization", "connection", "x-user-id"}
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_app() -> Starlette:
    """The application, configured by NAIVE_* in the environment."""
    algorithm = os.environ["NAIVE_ALGORITHM"]
    key = jwt.PyJWK(json.loads(Path(os.environ["NAIVE_JWKS"]).read_text())["keys"][0], algorithm=algorithm)
    limits = httpx2.Limits(max_connections=2_000, max_keepalive_connections=2_000)
    client = httpx2.AsyncClient(base_url=os.environ["NAIVE_UPSTREAM"], limits=limits, timeout=60, trust_env=False)

    async def forward(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise jwt.InvalidTokenError("no bearer token")
            claims = jwt.decode(token, key, [algorithm], audience=tokens.AUDIENCE, issuer=tokens.ISSUER)
        except jwt.InvalidTokenError:
            return JSONResponse({"error": "unauthorized"}, 401, {"www-authenticate": "Bearer"})
        headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_FORWARDED]
        headers.append(("x-user-id", claims["sub"]))
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        upstream = await client.send(
            client.build_request(
                request.method,
                httpx2.URL(path=request.url.path, query=request.url.query.encode() or None),
                headers=headers,
                content=request.stream() if has_body else None,
            ),
            stream=True,
        )
        return StreamingResponse(
            upstream.aiter_raw(),
            upstream.status_code,
            dict(upstream.headers),
            background=BackgroundTask(upstream.aclose),
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(routes=[Route("/{path:path}", forward, methods=_METHODS)], lifespan=lifespan)
