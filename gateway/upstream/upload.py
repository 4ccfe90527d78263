"""A request's body on its way to an endpoint, in bounded memory.

The first piece goes with the head, in one write; what follows is sent by a task of its own, while the request waits for
the response. The first piece is kept until a response begins, so that a request whose body was no more than that can be
repeated on another connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from gateway.errors import BadRequest, ContentTooLarge
from gateway.telemetry.exchange import Exchange
from gateway.upstream.conduit import LONG_BYTES, pouring
from gateway.upstream.http1 import Connection, StaleConnection
from gateway.upstream.request import UpstreamRequest

# ASGI's own types are dicts of any values.
Receive = Callable[[], Awaitable[dict[str, Any]]]

_JOIN_BYTES: Final = 64 * 1024  # up to here one copy is cheaper than one more buffer


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


class Upload:
    """The body of one request. Owner of the task that sends what follows the first piece."""

    __slots__ = ("_bytes", "_exchange", "_first", "_receive", "_request", "_task", "ended", "is_held")

    def __init__(self, request: UpstreamRequest, receive: Receive, exchange: Exchange) -> None:
        self._request: UpstreamRequest = request
        self._receive = receive
        self._exchange: Exchange = exchange
        self._first: bytes | None = None  # the first piece, kept until a response begins
        self._task: asyncio.Task[None] | None = None
        self._bytes = 0  # taken from the client
        self.ended = False  # all of it was taken from the client
        self.is_held = False  # and it is no more than the first piece

    @property
    def is_under_way(self) -> bool:
        """Whether some of it is still to be sent."""
        return self._task is not None and not self._task.done()

    async def begin(self, connection: Connection, head: bytes) -> None:
        """Send the head and the first piece; the rest follows by itself, and the connection learns what goes wrong.

        Raises `BadRequest`, `ContentTooLarge`, `ClientGone`, `StaleConnection`. May be called again with another
        connection while the body `is_held`.
        """
        # The piece before the head, so that both are one write; after the connection, because to ask for the body is to
        # let a client with `Expect: 100-continue` send it.
        if self._first is None:
            self._first = await self._next_piece()
            self.is_held = self.ended
        if connection.closed:
            raise connection.error or StaleConnection
        self._write_first(connection, head, self._first)
        if not self.ended:
            connection.uploaded = False
            self._task = asyncio.get_running_loop().create_task(self._send_rest(connection))

    def forget_first(self) -> None:
        """A response has begun: the request will not be repeated."""
        self._first = None

    async def stop(self) -> None:
        """Send no more of it."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def _write_first(self, connection: Connection, head: bytes, piece: bytes) -> None:
        parts = [head, *self._frame(piece)]
        if self.ended and self._request.body_length is None:
            parts.append(b"0\r\n\r\n")
        if len(piece) <= _JOIN_BYTES:
            connection.write(b"".join(parts))
        else:
            connection.write_lines(parts)

    def _frame(self, piece: bytes) -> list[bytes]:
        if not piece:
            return []
        return [piece] if self._request.body_length is not None else [b"%x\r\n" % len(piece), piece, b"\r\n"]

    async def _next_piece(self) -> bytes:
        """The next piece of the client's body, counted; sets `ended`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self.ended = not message.get("more_body", False)
        self._bytes += len(piece)
        self._exchange.bytes_in = self._bytes
        length = self._request.body_length
        if length is None:
            if self._bytes > self._request.body_limit:
                raise ContentTooLarge
        elif self._bytes > length or (self.ended and self._bytes < length):
            raise BadRequest("The body is not as long as Content-Length says.")
        return piece

    async def _send_rest(self, connection: Connection) -> None:
        idle_s = self._request.idle_timeout_s
        try:
            while not self.ended:
                if connection.write_paused:
                    await connection.drain(monotonic() + idle_s)
                piece = await self._next_piece()
                if connection.closed or connection.error is not None:
                    return
                parts = self._frame(piece)
                if self.ended and self._request.body_length is None:
                    parts.append(b"0\r\n\r\n")
                if parts:
                    connection.write_lines(parts)
                if (self._request.body_length or 0) - self._bytes > LONG_BYTES:
                    await self._pour(connection, idle_s)
        except Exception as error:  # whatever asking the client for its body raises, the request must see it
            connection.fail(error)
            return
        connection.uploaded = True
        if connection.head is None:
            connection.read_deadline = monotonic() + self._request.head_timeout_s

    async def _pour(self, connection: Connection, idle_s: float) -> None:
        """Let the kernel move what it can of a long body, if nothing stands between the server and this."""
        inlet = pouring(self._receive)
        if inlet is None:
            return
        if connection.write_paused:
            await connection.drain(monotonic() + idle_s)
        connection.let_out()
        conduit = inlet.conduit_to(connection.transport)
        if conduit is None:
            return
        try:
            while not connection.closed and connection.error is None:
                conduit.move()
                if conduit.held:
                    await connection.until_taken(conduit, monotonic() + idle_s)
                elif not conduit.left or not await inlet.until_readable(conduit):
                    return
        finally:
            conduit.close()
            inlet.poured_out(conduit)
            self._bytes += conduit.taken
            self._exchange.bytes_in = self._bytes
