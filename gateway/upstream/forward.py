"""One request to the upstream and its response back, both streamed, with bounded memory.

    take a connection ─► write the head with the first of the body ─► read the head of the response ─► stream its body
          │                        │ closed before a byte came back, and safe to repeat: once more on a new connection
          │                        └ more body: a second task sends it while the first waits for the response
          └ none yet: connect, another endpoint if this one cannot be reached

A connection goes back to its pool before the last piece is sent to the client, so a slow client holds none for longer
than needed. Whatever else happens (a fault, a client that leaves, cancellation), it is closed: the exchange is not
complete.

A response that lasts may be ended by whoever watches it (`end`): an event stream then gets a last event of ours, if it
stands between two events and was not compressed, and any other response is cut off.

A response that begins while the body still uploads is passed on at once. If it is an error or a redirect the upload
stops, for the endpoint does not want the rest; otherwise both go on, since some endpoints answer while they read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Final, Literal, cast

from gateway.errors import (
    BadRequest,
    ConnectFailed,
    ContentTooLarge,
    GatewayError,
)
from gateway.telemetry.exchange import Exchange
from gateway.upstream.conduit import LONG_BYTES, pouring
from gateway.upstream.ending import ENDS, Watch
from gateway.upstream.endpoints import Endpoint, Upstream
from gateway.upstream.events import EventStream
from gateway.upstream.headers import NO_BODY, response_lines
from gateway.upstream.http1 import Connection, StaleConnection
from gateway.upstream.request import UpstreamRequest, render_head
from gateway.upstream.response import ResponseHead

# ASGI's own types are dicts of any values.
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"QUERY"))  # RFC 9110 §9.2.2
_JOIN_BYTES: Final = 64 * 1024  # up to here one copy is cheaper than one more buffer


_LONG_S: Final = 1.0  # an answer to a safe method that was so long in coming is checked again before it begins
_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"QUERY"))  # RFC 9110 §9.2.1


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


class ResponseAborted(Exception):
    """The response has begun and cannot be completed: the client's connection must be closed, so that it notices."""


def forward(
    request: UpstreamRequest,
    upstream: Upstream,
    receive: Receive,
    send: Send,
    exchange: Exchange,
    watch: Watch | None = None,
    token: object = None,
) -> Coroutine[Any, Any, None]:
    """Send `request` to `upstream` and its response to `send`, when awaited; facts go into `exchange`.

    Raises, only while no response has started: `BadRequest`, `ContentTooLarge`, the leaves of `UpstreamFault`,
    `ClientGone`, and for what `watch` says of `token` by then: `TokenRevoked`, `TokenExpired`. Afterwards:
    `ResponseAborted`. Cancellation closes the upstream connection at once.
    """
    return _Conversation(request, upstream, receive, send, exchange, watch, token).run()


class _Conversation:
    """One request's way to the upstream and back. Owner of the connection it holds and of the task that uploads."""

    __slots__ = (
        "_body_bytes",
        "_body_ended",
        "_connection",
        "_ended",
        "_endpoint",
        "_events",
        "_exchange",
        "_first",
        "_has_body",
        "_is_held",
        "_receive",
        "_request",
        "_send",
        "_token",
        "_upload",
        "_upstream",
        "_watch",
    )

    def __init__(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        watch: Watch | None,
        token: object,
    ) -> None:
        self._watch = watch
        self._token = token
        self._events: EventStream | None = None
        self._ended: GatewayError | None = None  # what `end` was told
        self._request = request
        self._upstream = upstream
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._endpoint: Endpoint = cast("Endpoint", None)  # until it is chosen, which is the first step
        self._connection: Connection | None = None
        self._upload: asyncio.Task[None] | None = None
        self._has_body = request.body_length != NO_BODY and request.body_length != 0
        self._first: bytes | None = None  # the body's first piece, kept until a response begins
        self._is_held = not self._has_body  # nothing of the body was taken from the client but the first piece
        self._body_ended = not self._has_body
        self._body_bytes = 0

    async def run(self) -> None:
        """From the first byte to the last.

        Most requests have no body, find an idle connection, and have their whole response in one read: those wait once,
        here, and need no other coroutine.
        """
        request = self._request
        if request.body_length is not None and request.body_length > request.body_limit:
            raise ContentTooLarge
        try:
            connection = self._ask_at_once()
            if connection is None:
                head = await self._ask()
            else:
                while connection.head is None and connection.error is None:
                    await connection.arrived
                if connection.head is not None:
                    head = connection.head
                else:
                    head = await self._ask_again(connection)
            connection = self._connection
            assert connection is not None
            self._note_head(head, connection)
            if self._upload is None and connection.complete:
                start, body = self._whole(head, connection)
                await self._send(start)
                await self._send(body)
            else:
                await self._answer(head, connection)
        finally:
            if self._connection is not None or self._upload is not None:
                await self._release()

    def _ask_at_once(self) -> Connection | None:
        """Choose an endpoint; send a request without a body on an idle connection. None if it is to be waited for."""
        exchange, upstream = self._exchange, self._upstream
        exchange.upstream = upstream.name
        self._endpoint = endpoint = upstream.choose()
        exchange.endpoint = endpoint.name
        self._connection = connection = self._take_idle(endpoint)
        if connection is None:
            return None
        exchange.connect_s = 0.0
        if self._has_body:
            return None
        connection.begin(self._request.method == b"HEAD")
        connection.write(self._render_head(endpoint))
        connection.read_deadline = monotonic() + self._request.head_timeout_s
        return connection

    async def _ask(self) -> ResponseHead:
        """The response's head, after at most one repetition."""
        exchange = self._exchange
        if self._connection is None:
            started = monotonic()
            self._endpoint, self._connection = await self._upstream.acquire(self._endpoint)
            exchange.connect_s = monotonic() - started
            exchange.endpoint = self._endpoint.name
        connection = self._connection
        try:
            return await self._attempt(self._endpoint, connection)
        except StaleConnection as stale:
            return await self._repeat(connection, stale)

    async def _ask_again(self, connection: Connection) -> ResponseHead:
        """After an exchange that was begun at once and has failed."""
        error = connection.error
        assert error is not None
        if not isinstance(error, StaleConnection):
            raise error
        return await self._repeat(connection, error)

    async def _repeat(self, connection: Connection, stale: StaleConnection) -> ResponseHead:
        """Once more on a new connection, if that does no harm.

        The endpoint closed a kept connection at the moment it was used: RFC 9112 §9.3.1.
        """
        endpoint = self._endpoint
        if not connection.reused or (connection.sent and not self._is_repeatable()):
            raise ConnectFailed(cause=f"{endpoint.name}: closed without a response") from stale
        self._connection = None
        connection.release()
        self._exchange.retried = True
        endpoint.pool.retried += 1
        endpoint, connection = await self._upstream.acquire(endpoint, fresh=True)
        self._connection = connection
        try:
            return await self._attempt(endpoint, connection)
        except StaleConnection as again:
            raise ConnectFailed(cause=f"{endpoint.name}: closed without a response, twice") from again

    def _take_idle(self, endpoint: Endpoint) -> Connection | None:
        connection = endpoint.pool.take()
        if self._request.method in _IDEMPOTENT and not self._has_body:
            return connection
        # This request may not be one to send twice, so a look at the socket is worth a system call.
        while connection is not None and connection.is_readable():
            endpoint.pool.give_back(connection, reusable=False)
            connection = endpoint.pool.take()
        return connection

    def _is_repeatable(self) -> bool:
        """Whether sending the request twice does no harm: idempotent, and all of its body still at hand."""
        return self._request.method in _IDEMPOTENT and self._is_held

    async def _attempt(self, endpoint: Endpoint, connection: Connection) -> ResponseHead:
        request = self._request
        self._exchange.endpoint = endpoint.name
        connection.begin(request.method == b"HEAD")
        head = self._render_head(endpoint)
        if not self._has_body:
            connection.write(head)
        else:
            # Before the head, so that both are one write; after the connection, because to ask for the body is to let a
            # client with `Expect: 100-continue` send it.
            if self._first is None:
                self._first = await self._next_piece()
                self._is_held = self._body_ended
            if connection.closed:
                raise connection.error or StaleConnection
            self._write_first(connection, head, self._first)
        if self._body_ended:
            connection.read_deadline = monotonic() + request.head_timeout_s
        else:
            connection.uploaded = False
            self._upload = asyncio.get_running_loop().create_task(self._send_rest(connection))
        return await connection.head_arrived()

    def _render_head(self, endpoint: Endpoint) -> bytes:
        request = self._request
        return render_head(request, endpoint.authority if self._upstream.sends_own_host else request.host)

    def _write_first(self, connection: Connection, head: bytes, piece: bytes) -> None:
        parts = [head, *self._frame(piece)]
        if self._body_ended and self._request.body_length is None:
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
        """The next piece of the client's body, counted; sets `_body_ended`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self._body_ended = not message.get("more_body", False)
        self._body_bytes += len(piece)
        self._exchange.bytes_in = self._body_bytes
        length = self._request.body_length
        if length is None:
            if self._body_bytes > self._request.body_limit:
                raise ContentTooLarge
        elif self._body_bytes > length or (self._body_ended and self._body_bytes < length):
            raise BadRequest("The body is not as long as Content-Length says.")
        return piece

    async def _send_rest(self, connection: Connection) -> None:
        """The second task: sends what follows the first piece; the first sees by the connection what goes wrong."""
        idle_s = self._request.idle_timeout_s
        try:
            while not self._body_ended:
                if connection.write_paused:
                    await connection.drain(monotonic() + idle_s)
                piece = await self._next_piece()
                if connection.closed or connection.error is not None:
                    return
                parts = self._frame(piece)
                if self._body_ended and self._request.body_length is None:
                    parts.append(b"0\r\n\r\n")
                if parts:
                    connection.write_lines(parts)
                if (self._request.body_length or 0) - self._body_bytes > LONG_BYTES:
                    await self._pour_up(connection, idle_s)
        except Exception as error:  # whatever asking the client for its body raises, the first task must see it
            connection.fail(error)
            return
        connection.uploaded = True
        if connection.head is None:
            connection.read_deadline = monotonic() + self._request.head_timeout_s

    async def _pour_up(self, connection: Connection, idle_s: float) -> None:
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
            self._body_bytes += conduit.taken
            self._exchange.bytes_in = self._body_bytes

    def _note_head(self, head: ResponseHead, connection: Connection) -> None:
        """Account for a response that is here; TokenRevoked, TokenExpired if it came too late to begin."""
        exchange, watch = self._exchange, self._watch
        self._first = None
        exchange.head_s = monotonic() - exchange.started
        exchange.status = head.status
        if exchange.head_s > _LONG_S and watch is not None and self._request.method in _SAFE:
            # Nothing was done that a repetition could do twice; of an unsafe method the client must learn the outcome.
            reason = watch.is_over(self._token)
            if reason:
                raise ENDS[reason]()

    def _start(self, head: ResponseHead) -> dict[str, Any]:
        headers = response_lines(head, self._request.request_id)
        return {"type": "http.response.start", "status": head.status, "headers": headers}

    def _whole(self, head: ResponseHead, connection: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
        """The messages of a response that is complete; the connection is free before the client is written to."""
        start = self._start(head)
        body = connection.take()
        while not connection.ended:
            body += connection.take()
        self._connection = None
        connection.release()
        self._exchange.bytes_out = len(body)
        return start, {"type": "http.response.body", "body": body, "more_body": False}

    async def _answer(self, head: ResponseHead, connection: Connection) -> None:
        """Pass a response on as it arrives, or one that is here before its request has ended."""
        watch = self._watch
        if self._upload is not None and not connection.uploaded and head.status >= 300:
            await self._stop_upload()
        if connection.complete:
            start, body = self._whole(head, connection)
            await self._release()
            await self._send(start)
            await self._send(body)
            return
        start = self._start(head)
        if watch is None:
            await self._stream(connection, start)
            return
        self._events = EventStream.of(head.headers)
        watch.enter(self, self._token, lasts=self._events is not None)
        try:
            await self._stream(connection, start)
        finally:
            watch.leave(self)
            self._ended = None  # it was raised, so it holds frames that hold this object

    async def _stream(self, connection: Connection, start: dict[str, Any]) -> None:
        exchange, send = self._exchange, self._send
        idle_s = self._request.idle_timeout_s
        connection.holder = asyncio.current_task()
        connection.read_deadline = monotonic() + idle_s
        try:
            await send(start)
            piece = connection.take()  # b"" when nothing of it is here: the head must not wait for it
            while not connection.ended:
                exchange.bytes_out += len(piece)
                if self._events is not None:
                    self._events.pass_on(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                connection.read_deadline = monotonic() + idle_s
                if connection.unread > LONG_BYTES and self._events is None:
                    await self._pour_down(connection, idle_s)
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
        await self._release()
        exchange.bytes_out += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": False})

    async def _pour_down(self, connection: Connection, idle_s: float) -> None:
        """Let the kernel move what it can of a long body, if nothing stands between this and the server."""
        outlet = pouring(self._send)
        conduit = None if outlet is None else await outlet.conduit_from(connection.transport, connection.unread)
        if outlet is None or conduit is None:
            return
        try:
            while True:
                if conduit.move():
                    connection.read_deadline = monotonic() + idle_s
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

    @property
    def kind(self) -> Literal["events", "response"]:
        """What kind of response is being streamed."""
        return "response" if self._events is None else "events"

    def end(self, code: str) -> None:
        """End the response that is being streamed, for `code`; called from outside."""
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
        last = b'event: gateway\ndata: {"code":"%b"}\n\n' % ended.code.encode()
        self._exchange.code = ended.code
        await self._release()
        self._exchange.bytes_out += len(last)
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        return True

    def _aborted(self, code: str, cause: str) -> ResponseAborted:
        self._exchange.code = code
        self._exchange.cause = cause
        return ResponseAborted(cause)

    async def _stop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None and not upload.done():
            upload.cancel()
            await asyncio.wait([upload])

    async def _release(self) -> None:
        """Give the connection back, closed unless both messages are complete. Does nothing the second time."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        if self._upload is not None:
            await self._stop_upload()
