"""Both ends of a forwarded request, scripted: an upstream that sends exact bytes, and a client that speaks ASGI."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

from gateway.config.schema import Upstream as UpstreamConfig
from gateway.telemetry.exchange import Exchange
from gateway.upstream.endpoints import Upstream
from gateway.upstream.forward import forward
from gateway.upstream.headers import NO_BODY
from gateway.upstream.request import UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Talk:
    """One connection, seen from the upstream's end; `number` counts connections from 0."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def head(self) -> bytes:
        """The next request's head, blank line included; `IncompleteReadError` when the gateway closed instead."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> bytes:
        """The next request, head and body."""
        head = await self.head()
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length is not None:
            return head + await self.reader.readexactly(int(length[1]))
        if b"\r\ntransfer-encoding: chunked" in head:
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += await self.reader.readuntil(b"\r\n")
            return head + body
        return head

    async def say(self, data: bytes) -> None:
        """Send exact bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> bytes:
        """Wait until the gateway closes; what it sent until then."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def hang_up(self) -> None:
        """Close in an orderly way."""
        self.writer.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.writer.transport.abort()


class ScriptedUpstream:
    """A listening socket whose every connection runs `script`; failures of a script fail the test at its end."""

    def __init__(self, script: Callable[[Talk], Awaitable[None]], tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> ScriptedUpstream:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._tasks:
            pending = (await asyncio.wait(self._tasks, timeout=5))[1]
            assert not pending, "a script did not end: the gateway left its connection open"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(Talk(reader, writer, self.connections)))
        self.connections += 1
        self._tasks.add(task)

    async def _run(self, talk: Talk) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._script(talk)
        talk.hang_up()


@asynccontextmanager
async def serving(
    script: Callable[[Talk], Awaitable[None]], server_tls: ssl.SSLContext | None = None, **config: Any
) -> AsyncIterator[tuple[ScriptedUpstream, Upstream]]:
    """A scripted upstream and the gateway's view of it; `config` as in the YAML."""
    async with ScriptedUpstream(script, server_tls) as server:
        upstream = Upstream("u", UpstreamConfig(endpoints=(server.url,), **config))
        try:
            yield server, upstream
        finally:
            await upstream.close(0)


def replying(*answers: bytes) -> Callable[[Talk], Awaitable[None]]:
    """A script: one answer per request on a connection, then wait for the gateway to close."""

    async def script(talk: Talk) -> None:
        for answer in answers:
            await talk.request()
            await talk.say(answer)
        await talk.closed()

    return script


class Client:
    """The ASGI side: gives a body in pieces, keeps what it was sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.messages: list[dict[str, Any]] = []
        self.asked = 0
        self.exchange = Exchange(monotonic(), "GET", "h", "/", "192.0.2.1")
        self.started = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """The next piece; for ever nothing after the last."""
        self.asked += 1
        if not self.pieces:
            await asyncio.Event().wait()
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, message: dict[str, Any]) -> None:
        """Keep a response message."""
        self.messages.append(message)
        self.started.set()

    @property
    def status(self) -> int:
        """The status that was sent."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header fields that were sent."""
        headers: list[tuple[bytes, bytes]] = list(self.messages[0]["headers"])
        return headers

    @property
    def body(self) -> bytes:
        """The body that was sent so far."""
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def is_complete(self) -> bool:
        """Whether the response was ended."""
        return len(self.messages) > 1 and not self.messages[-1]["more_body"]


def make_request(**changes: Any) -> UpstreamRequest:
    """A GET without a body, changed as told."""
    fields: dict[str, Any] = {
        "method": b"GET",
        "target": b"/a?b=c",
        "host": b"example.test",
        "headers": [(b"accept", b"*/*")],
        "lines": b"x-request-id: r1\r\n",
        "request_id": b"r1",
        "body_length": NO_BODY,
        "head_timeout_s": 5.0,
        "idle_timeout_s": 5.0,
    }
    return UpstreamRequest(**{**fields, **changes})


async def fetch(upstream: Upstream, client: Client | None = None, **changes: Any) -> Client:
    """Forward one request; the client with what it received."""
    client = client or Client()
    await forward(make_request(**changes), upstream, client.receive, client.send, client.exchange)
    return client
