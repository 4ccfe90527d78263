"""One request and its response, as ASGI sees them: `receive`, `send`, and the strand that calls the application.

A body goes from the parser to `receive()` in the chunks it arrived in; nothing is gathered. A response head waits for
the first body message, so that both leave in one write; an application that has a head but no body yet sends an empty
body message with `more_body` and the head leaves at once (the sweep lets it out within a tick otherwise).

    head not sent ──start──▶ head pending ──body──▶ streaming ──last body──▶ done

A response that cannot be finished closes the connection, so that the client sees it cut short: there is no other way to
say so in HTTP/1.1 (RFC 9112 §8).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import GatewayError, Unexpected
from gateway.fields import FieldLines
from gateway.server.head import STATUS_LINES, Header
from gateway.strand import Strand
from gateway.upstream.conduit import TAIL_BYTES, Conduit, is_plain, open_conduit

if TYPE_CHECKING:
    from gateway.server.connection import ClientConnection

logger = logging.getLogger("gateway.server")

Message = dict[str, Any]  # ASGI messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

BUFFERED_BYTES = 256 * 1024  # of a body that nobody has asked for yet, about one read; beyond, the socket is not read
SMALL_BYTES = 16 * 1024  # up to here one copy is cheaper than a second buffer for the transport

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_AWAITS_HEAD, _HEAD_PENDING, _STREAMING, _DONE = range(4)


def render_fields(headers: list[Header]) -> bytes:
    """The field lines; RuntimeError when they are more than were put in, or hold a NUL: that is an injection.

    Joined by the interpreter and looked at as a whole, because a pattern per field costs more than the rest of a head.
    """
    if not headers:
        return b""
    fields = b"\r\n".join(map(b": ".join, headers)) + b"\r\n"
    if fields.count(b"\n") != len(headers) or fields.count(b"\r") != len(headers) or 0 in fields:
        raise RuntimeError("a response header holds a control character")
    return fields


class _Taken:
    """What `send` gives for a message that was taken at once: to await it is to wait for nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return cast("Generator[Any, Any, None]", iter(()))  # an iterator is all that `await` asks for


_TAKEN = _Taken()


class Cycle:
    """One request in progress. Owned by its connection, which feeds the body and learns when the response is done."""

    __slots__ = (
        "_body_left",
        "_chunked",
        "_connection",
        "_delivered_end",
        "_failure",
        "_head",
        "_no_body",
        "_state",
        "_waiter",
        "body_complete",
        "buffered",
        "chunks",
        "disconnected",
        "expects_continue",
        "keep_alive",
        "scope",
        "strand",
    )

    def __init__(self, connection: ClientConnection, scope: Message, keep_alive: bool, expects_continue: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.strand: Strand | None = None
        self.disconnected = False
        # request body
        self.chunks: deque[bytes] | None = None  # made with the first chunk: most requests have no body
        self.buffered = 0
        self.body_complete = False
        self._delivered_end = False
        self._failure: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        # response
        self._state = _AWAITS_HEAD
        self._head = b""
        self._no_body = False
        self._chunked = False
        self._body_left = -1  # of a declared Content-Length; -1 when none was declared

    @property
    def is_done(self) -> bool:
        """Whether the response is complete."""
        return self._state == _DONE

    def mark_done(self) -> None:
        """The connection speaks another protocol from here on; there is no response to complete."""
        self._state = _DONE

    @property
    def has_started(self) -> bool:
        """Whether a response head was accepted from the application."""
        return self._state != _AWAITS_HEAD

    @property
    def awaits_body(self) -> bool:
        """Whether the application waits for body bytes that the client has not sent."""
        return self._waiter is not None and not self.body_complete

    async def run(self, application: Application) -> None:
        """Call the application; whatever it does, the connection is left answered or closed."""
        connection = self._connection
        try:
            await application(self.scope, self.receive, self.send)
            if self._state != _DONE and not self.disconnected:
                self._fail(Unexpected(cause="the application returned without a complete response"))
        except asyncio.CancelledError:
            connection.abandon(self)  # the client is gone, or the time to drain is over
            raise
        except GatewayError as error:
            self._fail(error)
        except Exception:  # the last line of defence: anything may come out of an application
            if self._state != _DONE and not self.disconnected:
                logger.exception("the application failed")
            self._fail(Unexpected())

    def _fail(self, error: GatewayError) -> None:
        if self.disconnected or self._state == _DONE:
            return
        if self._state == _AWAITS_HEAD:
            self._connection.answer(self, error)
        else:
            if error.cause:
                logger.error("%s", error.cause)
            self.flush_head()
            self._connection.abandon(self)

    # --- request ----------------------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> int:
        """Take a chunk of the body from the parser; gives the bytes that now wait for the application."""
        if self.chunks is None:
            self.chunks = deque()
        self.chunks.append(chunk)
        self.buffered += len(chunk)
        self._wake()
        return self.buffered

    def feed_end(self) -> None:
        """The body is complete."""
        self.body_complete = True
        if self._waiter is not None:
            self._wake()

    def feed_failure(self, error: GatewayError) -> None:
        """The rest of the body will not come; `receive()` raises `error`."""
        self._failure = error
        self.keep_alive = False
        self._wake()

    def disconnect(self) -> None:
        """The client is gone."""
        self.disconnected = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> Message:
        """The next chunk of the body; `http.disconnect` once there is nothing more to say to each other.

        Raises the failure of a body that broke off: BadRequest for its framing, RequestTimeout for its pace.
        """
        while True:
            if self.disconnected or self._state == _DONE:
                return {"type": "http.disconnect"}
            chunks = self.chunks
            if chunks:
                chunk = chunks.popleft()
                self.buffered -= len(chunk)
                more = not self.body_complete or bool(chunks)
                self._delivered_end = not more
                return {"type": "http.request", "body": chunk, "more_body": more}
            if self._failure is not None:
                raise self._failure
            if self.body_complete and not self._delivered_end:
                self._delivered_end = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._wait()

    async def _wait(self) -> None:
        connection = self._connection
        if self._state == _HEAD_PENDING:
            self.flush_head()
        if self.expects_continue and self._state == _AWAITS_HEAD:
            self.expects_continue = False
            connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.body_complete:
            connection.want_body()
        self._waiter = connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- response ---------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> Awaitable[None]:
        """Take a response message; waits while the client does not read. After a disconnect messages are dropped.

        Nearly always there is nothing to wait for, and then no coroutine is made for it.
        """
        if self.disconnected:
            return _TAKEN
        if self._state == _AWAITS_HEAD:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"expected http.response.start, got {message['type']}")
            self._start(message["status"], message.get("headers", ()))
            return _TAKEN
        if self._state == _DONE or message["type"] != "http.response.body":
            raise RuntimeError(f"unexpected {message['type']}")
        if self._connection.write_paused:
            return self._send_when_writable(message)
        self._send_body(message.get("body", b""), message.get("more_body", False))
        return _TAKEN

    async def _send_when_writable(self, message: Message) -> None:
        await self._connection.until_writable()
        if not self.disconnected:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    def _start(self, status: int, headers: Iterable[Header]) -> None:
        """Render the head. Framing is decided here: what the application says of the connection is not sent."""
        if status not in STATUS_LINES:
            raise RuntimeError(f"{status} is not the status of a final response")
        if type(headers) is FieldLines:
            lines = headers.lines
            self._body_left = headers.length
        else:
            lines = render_fields(self._read_framing(headers))
        parts = [STATUS_LINES[status], lines]
        self._no_body = self.scope["method"] == "HEAD" or status == 204 or status == 304
        if self._no_body:
            self._body_left = -1
        elif self._body_left < 0:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
        # An uninvited body may or may not come now (RFC 9110 §10.1.1), so nothing can follow it.
        is_uninvited = self.expects_continue and not self.body_complete
        if not self.keep_alive or is_uninvited or self._connection.closes_after(self):
            self.keep_alive = False
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)
        self._state = _HEAD_PENDING

    def _read_framing(self, headers: Iterable[Header]) -> list[Header]:
        """The fields to send: a length and a `close` are noted, what else is about the connection is left out."""
        kept = []
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"connection":
                if b"close" in value.lower():
                    self.keep_alive = False
                continue
            if lowered == b"transfer-encoding":
                continue
            if lowered == b"content-length":
                if self._body_left >= 0 or not value.isdigit():
                    raise RuntimeError("a response needs one decimal Content-Length")
                self._body_left = int(value)
            kept.append((name, value))
        return kept

    def flush_head(self) -> None:
        """Let a pending head out without waiting for the body."""
        if self._state == _HEAD_PENDING:
            self._state = _STREAMING
            self._connection.write(self._head)
            self._head = b""

    def _send_body(self, body: bytes, more: bool) -> None:
        if self._no_body:
            body = b""
        elif self._body_left >= 0:
            self._body_left -= len(body)
            if self._body_left < 0 or (self._body_left and not more):
                raise RuntimeError("the response's body is not as long as its Content-Length")
        if self._chunked:
            self._write_chunk(body, more)
        elif len(body) <= SMALL_BYTES:
            if self._head or body:
                self._connection.write(self._head + body)
        else:
            self._connection.write_all((self._head, body) if self._head else (body,))
        self._head = b""
        self._state = _STREAMING
        if not more:
            self._state = _DONE
            if self._waiter is not None:
                self._wake()  # it is told of the end
            self._connection.response_done(self)

    def _write_chunk(self, body: bytes, more: bool) -> None:
        connection, head = self._connection, self._head
        if not body:
            tail = head if more else head + b"0\r\n\r\n"
            if tail:
                connection.write(tail)
            return
        end = b"\r\n" if more else b"\r\n0\r\n\r\n"
        if len(body) <= SMALL_BYTES:
            connection.write(b"%b%x\r\n%b%b" % (head, len(body), body, end))
        else:
            connection.write_all((b"%b%x\r\n" % (head, len(body)), body, end))

    # --- long bodies that the kernel moves (see `gateway.conduit`) ----------------------------------------------------

    async def conduit_from(self, source: asyncio.Transport, length: int) -> Conduit | None:
        """A conduit to the client for most of the next `length` bytes of the response; None if that cannot be."""
        connection = self._connection
        if self._state != _STREAMING or self._no_body or self._chunked:
            return None
        if not is_plain(source) or not is_plain(connection.transport):
            return None
        if connection.write_paused:
            await connection.until_writable()
        if self.disconnected:
            return None
        if self._body_left >= 0:
            length = min(length, self._body_left)
        return open_conduit(source, connection.transport, length - TAIL_BYTES, connection.loop)

    def poured_in(self, conduit: Conduit) -> None:
        """This conduit is closed; what it gave was a part of the response's body."""
        if self._body_left >= 0:
            self._body_left -= conduit.given

    async def until_taken(self, conduit: Conduit) -> None:
        """Wait until the client can take more; `check_time` bounds the wait."""
        connection = self._connection
        connection.pause_writing()
        conduit.watch_sink(connection.resume_writing)
        try:
            await connection.until_writable()
        finally:
            conduit.unwatch_sink()
            connection.resume_writing()

    def conduit_to(self, sink: asyncio.Transport) -> Conduit | None:
        """A conduit from the client for most of what is to come of the request's body; None if that cannot be."""
        if self.chunks or self.body_complete or self._failure is not None or self.disconnected:
            return None
        connection = self._connection
        length = connection.unread_body(self) - TAIL_BYTES
        conduit = open_conduit(connection.transport, sink, length, connection.loop)
        if conduit is not None:
            connection.reading_poured()
        return conduit

    def poured_out(self, conduit: Conduit) -> None:
        """This conduit is closed; what it took was a part of the request's body."""
        self._connection.body_poured(conduit.taken)

    async def until_readable(self, conduit: Conduit) -> bool:
        """Wait until the client has sent more; False if it has nothing more to say."""
        conduit.watch_source(self._wake)
        try:
            await self._wait()
        finally:
            conduit.unwatch_source()
        return not self.disconnected and self._failure is None
