"""A backend that answers with the request it saw: what a gateway adds and removes becomes visible."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """ASGI app: 200 with method, path, query, header fields (in order, names lower-case) and the length of the body."""
    if scope["type"] != "http":
        return
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    seen = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in scope["headers"]],
        "body_bytes": length,
    }
    body = json.dumps(seen, indent=2).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class SideServer(uvicorn.Server):
    """A server beside others in one loop: whoever runs it decides about signals."""

    def __init__(self, app: Any) -> None:  # Any: an ASGI app, which uvicorn types as a union of private names
        super().__init__(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False)
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the process's signal handlers alone."""
        yield


def serve_echo(host: str, port: int) -> int:
    """Runs the backend until SIGINT or SIGTERM; the exit status."""
    try:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as exc:
        print(f"gateway echo: cannot listen on {host}:{port}: {exc.strerror}")
        return 1
    with sock:
        print(f"echo: http://{host}:{sock.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(echo, log_level="warning", lifespan="off", ws="none"))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
            asyncio.run(server.serve(sockets=[sock]))
    return 0
