"""A listener with an application of the test's choice, and a client that speaks bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gateway.config.schema import Limits
from gateway.server.listener import Listener
from gateway.server.protocol import HardenedProtocol
from gateway.telemetry.exchange import Exchange

ANSWER_S = 10.0  # nothing in these tests takes longer unless it is broken


@dataclass
class Answer:
    """One response as it came over the wire."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first field of that name."""
        return next((value for field, value in self.headers if field.lower() == name), None)

    @property
    def code(self) -> str:
        """The problem's code; the whole document is checked on the way."""
        assert self.header(b"content-type") == b"application/problem+json"
        assert self.header(b"date") is not None
        problem: dict[str, Any] = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["request_id"].encode() == self.header(b"x-request-id")
        code: str = problem["code"]
        return code


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Write, and let the server see it."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer | None:
        """The next response with its body; None when the server closed instead. 1xx responses count as responses."""
        async with asyncio.timeout(ANSWER_S):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            line, *fields = head[:-4].split(b"\r\n")
            headers = [(name, value) for name, _, value in (field.partition(b": ") for field in fields)]
            answer = Answer(int(line.split()[1]), headers, b"")
            answer.body = await self._body(answer, method)
            return answer

    async def _body(self, answer: Answer, method: str) -> bytes:
        if method == "HEAD" or answer.status in (100, 204, 304):
            return b""
        if answer.header(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
            return body
        length = answer.header(b"content-length")
        return await (self.reader.read() if length is None else self.reader.readexactly(int(length)))

    async def is_closed(self) -> bool:
        """Whether the server has closed, sending nothing more; waits for it."""
        async with asyncio.timeout(ANSWER_S):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


class Edge:
    """A listener on a port of its own, and what its application saw."""

    def __init__(self, port: int, listener: Listener, records: list[Exchange]) -> None:
        self.port, self.listener, self.records = port, listener, records

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection to it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def ask(self, raw: bytes) -> Answer | None:
        """Send bytes on a new connection; the first response."""
        async with self.client() as client:
            await client.send(raw)
            return await client.answer(raw.partition(b" ")[0].decode("latin-1"))


@asynccontextmanager
async def edge(
    application: Callable[..., Any],
    *,
    speaks_websocket: bool = False,
    protocol: type[HardenedProtocol] = HardenedProtocol,
    **limits: Any,
) -> AsyncIterator[Edge]:
    """A listener for `application`, with limits as the YAML writes them."""
    records: list[Exchange] = []
    listener = Listener("test", Limits.model_validate(limits), records.append, speaks_websocket=speaks_websocket)
    config: Any = SimpleNamespace(listener=listener, loaded_app=application)
    loop = asyncio.get_running_loop()
    state: Any = None
    server = await loop.create_server(lambda: protocol(config, state, {}, loop), "127.0.0.1", 0)
    listener.start(loop)
    try:
        yield Edge(server.sockets[0].getsockname()[1], listener, records)
    finally:
        server.close()
        listener.stop()
        for connection in tuple(listener.connections):
            connection.shutdown()
        for strand in tuple(listener.strands):
            strand.cancel()
        await asyncio.gather(*listener.strands, return_exceptions=True)


class Echo:
    """Reads the whole request and answers 200 with its body; keeps what it saw."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        headers = [(b"content-length", b"%d" % len(body)), (b"x-method", scope["method"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
