"""A response's body on its way to the client, passed on as it arrives, in bounded memory.

The connection goes back to its pool before the last piece is sent to the client, so a slow client holds none for longer
than needed.

A response that lasts may be ended by whoever watches it (`end`): an event stream then gets a last event of ours, if it
stands between two events and was not compressed, and any other response is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Literal

from gateway.errors import GatewayError
from gateway.telemetry.exchange import Exchange
from gateway.upstream.conduit import LONG_BYTES, pouring
from gateway.upstream.ending import ENDS, Watch
from gateway.upstream.events import EventStream
from gateway.upstream.http1 import Connection

Message = dict[str, Any]  # ASGI's own types are dicts of any values
Send = Callable[[Message], Awaitable[None]]


class ResponseAborted(Exception):
    """The response has begun and cannot be completed: the client's connection must be closed, so that it notices."""


class Download:
    """One response that is being streamed; whoever watches knows it by its `kind`, and may `end` it."""

    __slots__ = ("_connection", "_ended", "_events", "_exchange", "_idle_s", "_release", "_send")

    def __init__(
        self,
        connection: Connection,
        release: Callable[[], Awaitable[None]],
        send: Send,
        exchange: Exchange,
        idle_s: float,
    ) -> None:
        """`release` gives the connection back; it is called once the response is complete."""
        self._connection: Connection | None = connection  # until it is given back
        self._release = release
        self._send = send
        self._exchange: Exchange = exchange
        self._idle_s = idle_s  # the longest silence
        self._events: EventStream | None = None
        self._ended: GatewayError | None = None  # what `end` was told

    async def run(self, start: Message, events: EventStream | None, watch: Watch | None, token: object) -> None:
        """Pass everything on, from `start`, the first message; raises `ResponseAborted`.

        `events` is the stream that the response is, if it is one; `watch` knows what `token` means.
        """
        self._events = events
        if watch is None:
            await self._stream(start)
            return
        watch.enter(self, token, lasts=events is not None)
        try:
            await self._stream(start)
        finally:
            watch.leave(self)
            self._ended = None  # it was raised, so it holds frames that hold this object

    async def _stream(self, start: Message) -> None:
        connection, exchange, send = self._connection, self._exchange, self._send
        assert connection is not None
        connection.holder = asyncio.current_task()
        connection.read_deadline = monotonic() + self._idle_s
        try:
            await send(start)
            piece = connection.take()  # b"" when nothing of it is here: the head must not wait for it
            while not connection.ended:
                exchange.bytes_out += len(piece)
                if self._events is not None:
                    self._events.pass_on(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                connection.read_deadline = monotonic() + self._idle_s
                if connection.unread > LONG_BYTES and self._events is None:
                    await self._pour(connection)
                piece = await connection.read()
        except asyncio.CancelledError:
            task = connection.holder
            if not connection.stalled or task is None or task.uncancel() > 0:
                raise
            if self._ended is not None:
                raise self._aborted(self._ended.code, "ended while the client did not read") from None
            raise self._aborted("client_gone", "the client did not read in time") from None
        except Exception as error:
            if error is not connection.error:
                raise  # the server's own, from `send`
            if error is self._ended and await self._say_last_event():
                return
            code = error.code if isinstance(error, GatewayError) else ""
            raise self._aborted(code, str(getattr(error, "cause", None) or error)) from error
        await self._finish(piece)

    async def _finish(self, piece: bytes) -> None:
        """Send the last piece."""
        self._connection = None
        await self._release()
        self._exchange.bytes_out += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": False})

    async def _pour(self, connection: Connection) -> None:
        """Let the kernel move what it can of a long body, if nothing stands between this and the server."""
        outlet = pouring(self._send)
        conduit = None if outlet is None else await outlet.conduit_from(connection.transport, connection.unread)
        if outlet is None or conduit is None:
            return
        try:
            while True:
                if conduit.move():
                    connection.read_deadline = monotonic() + self._idle_s
                if conduit.held:
                    await outlet.until_taken(conduit)
                elif conduit.left:
                    await connection.until_readable(conduit)
                else:
                    return
        finally:
            conduit.close()
            connection.poured(conduit)
            outlet.poured_in(conduit)
            self._exchange.bytes_out += conduit.given

    # --- ended from outside ------------------------------------------------------------------------------------------

    @property
    def kind(self) -> Literal["events", "response"]:
        """What kind of response is being streamed."""
        return "response" if self._events is None else "events"

    def end(self, code: str) -> None:
        """End the response, for `code`."""
        connection = self._connection
        if connection is None or self._ended is not None:
            return
        self._ended = ENDS[code]()
        connection.interrupt(self._ended)

    async def _say_last_event(self) -> bool:
        """End an event stream with a word of our own, where one can be put in; whether that was done."""
        ended, events = self._ended, self._events
        assert ended is not None
        if events is None or not events.takes_another:
            return False
        self._exchange.code = ended.code
        await self._finish(b'event: gateway\ndata: {"code":"%b"}\n\n' % ended.code.encode())
        return True

    def _aborted(self, code: str, cause: str) -> ResponseAborted:
        self._exchange.code = code
        self._exchange.cause = cause
        return ResponseAborted(cause)
