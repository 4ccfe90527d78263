"""The demo's webhook: prints the messages that a service of yours would send as mail."""

from __future__ import annotations

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def _receive(request: Request) -> Response:
    message = json.loads(await request.body())
    print(f"mail to {message['to']}: {message['event']} {message['token'] or ''}", flush=True)
    return Response(status_code=204)


mailbox = Starlette(routes=[Route("/", _receive, methods=["POST"])])
