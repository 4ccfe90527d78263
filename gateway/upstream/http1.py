"""One HTTP/1.1 connection to an endpoint: one exchange after the other, never two at once.

        ┌────────────── release(): both messages ended as they said ─────────────┐
        ▼                                                                        │
      idle ── begin() ──► asked ── head read ──► answering ── body ended ──► complete
        │                   │                        │                           │
        └── any byte, EOF ──┴── malformed, late, ────┴───────────────────────────┴──► closed
                                cut short, cancelled

The protocol side (`data_received` and its siblings) is driven by the event loop; the exchange side (`begin`, `write`,
`head_arrived`, `read`) by the one request that holds the connection. Between them are a deque of body pieces and one
future. Bytes that arrive while idle, or after a complete response, close the connection: handed to the next request
they would be somebody else's answer.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from gateway.errors import BadResponse, UpstreamTimeout
from gateway.outbox import Outgoing
from gateway.strand import Bell, PlainProtocol
from gateway.upstream.conduit import Conduit
from gateway.upstream.response import (
    CHUNKED,
    MAX_HEAD_BYTES,
    UNTIL_CLOSE,
    ChunkedBody,
    MalformedResponse,
    ResponseHead,
    parse_head,
)

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

HIGH_WATER_BYTES: Final = 256 * 1024  # of unread body; one more read (256 KiB with uvloop) may come on top
_WHOLE_PIECE_BYTES: Final = 32 * 1024  # smaller pieces are joined before they are handed on
_MAX_INTERIM: Final = 8  # 1xx responses to one request
_NEVER: Final = float("inf")


class StaleConnection(Exception):
    """The connection closed before any byte of a response arrived."""


class Connection(PlainProtocol):
    """One connection and the exchange it is in. Owner: its pool while idle, the request that holds it otherwise."""

    __slots__ = (
        "_buffered",
        "_chunked",
        "_drained",
        "_head_bytes",
        "_head_only",
        "_interim",
        "_left",
        "_loop",
        "_outgoing",
        "_paused",
        "_pieces",
        "arrived",
        "busy",
        "closed",
        "complete",
        "error",
        "exchanges",
        "head",
        "holder",
        "idle_since",
        "leftover",
        "pool",
        "read_deadline",
        "received",
        "sent",
        "stalled",
        "transport",
        "uploaded",
        "write_deadline",
        "write_paused",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.transport: asyncio.Transport
        self._outgoing: Outgoing
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self.arrived: Bell = Bell(loop)  # rung when anything has changed for the request that holds the connection
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._chunked: ChunkedBody | None = None
        self._left = 0
        self._head_bytes = b""
        self._head_only = False
        self._interim = 0
        self.busy = False
        self.closed = False
        self.exchanges = 0
        self.idle_since = 0.0  # monotonic
        self.write_paused = False
        self._reset()

    def _reset(self) -> None:
        self.head: ResponseHead | None = None
        self.complete = False  # the response ended where it said
        self.leftover = False  # bytes after its end
        self.received = False  # any byte of a response
        self.sent = False  # any byte of the request
        self.uploaded = True  # the request was sent to its end
        self.error: Exception | None = None  # why the exchange cannot go on
        self.holder: asyncio.Task[object] | None = None  # to be cancelled if the client stops reading for too long
        self.stalled = False  # and that it was cancelled for this reason
        self.read_deadline = _NEVER  # monotonic
        self.write_deadline = _NEVER  # monotonic

    # --- the exchange, driven by the request that holds the connection ------------------------------------------------

    def begin(self, head_only: bool) -> None:
        """Start an exchange on a connection just taken from the pool."""
        self.exchanges += 1
        if self.exchanges > 1:
            self._reset()
            self._chunked = None
            self._interim = 0
        self._head_only = head_only

    @property
    def reused(self) -> bool:
        """Whether an earlier exchange used this connection, so that the endpoint may have closed it meanwhile."""
        return self.exchanges > 1

    def is_readable(self) -> bool:
        """Whether the socket has something to say that the loop has not seen: on an idle connection, its end.

        A system call, so asked only before a request that could not be sent twice.
        """
        socket = self.transport.get_extra_info("socket")
        descriptor = -1 if socket is None else socket.fileno()
        if descriptor < 0:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def write(self, parts: bytes) -> None:
        """Send bytes; never blocks. `drain` before more when `write_paused`."""
        self.sent = True
        self._outgoing.write(parts)

    def write_lines(self, parts: list[bytes]) -> None:
        """Send several pieces without copying them together; see `ClientConnection.write_all` for why not at once."""
        self.sent = True
        self._outgoing.let_out()
        for part in parts:
            self.transport.write(part)

    def let_out(self) -> None:
        """See to it that nothing is waiting to be written, for who is about to write past this."""
        self._outgoing.let_out()

    async def drain(self, deadline: float) -> None:
        """Wait until the endpoint has taken what was written; raises what ended the exchange."""
        while self.write_paused and self.error is None and not self.closed:
            self.write_deadline = deadline
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
                self.write_deadline = _NEVER

    async def head_arrived(self) -> ResponseHead:
        """The response's head. Raises `StaleConnection`, `BadResponse`, `UpstreamTimeout`, or what `fail` was given."""
        while self.head is None:
            if self.error is not None:
                raise self.error
            await self.arrived
        return self.head

    async def read(self) -> bytes:
        """The next piece of the body; b"" at its end. Raises what cut it short."""
        while not self._pieces:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            await self.arrived
        return self.take()

    def take(self) -> bytes:
        """What has arrived of the body and was not taken yet, at most a few hundred KiB; b"" when nothing has."""
        pieces = self._pieces
        if not pieces:
            return b""
        if len(pieces) == 1 or len(pieces[0]) >= _WHOLE_PIECE_BYTES:
            piece = pieces.popleft()
        else:
            piece = b"".join(pieces)
            pieces.clear()
        self._buffered -= len(piece)
        if self._paused and self._buffered < HIGH_WATER_BYTES // 2:
            self._paused = False
            if not self.closed and not self.transport.is_closing():
                self.transport.resume_reading()
        return piece

    @property
    def ended(self) -> bool:
        """Whether the body is complete and taken."""
        return self.complete and not self._pieces

    @property
    def unread(self) -> int:
        """Bytes of the body that are still to be read from the socket; 0 while it is not known, or some wait here."""
        return self._left if self._left > 0 and not self._pieces and self.error is None and not self.closed else 0

    async def until_readable(self, conduit: Conduit) -> None:
        """Wait until the endpoint has sent more of the body; raises what ended the exchange."""
        conduit.watch_source(self.arrived.ring)
        try:
            await self.arrived
        finally:
            conduit.unwatch_source()
        if self.error is not None:
            raise self.error

    async def until_taken(self, conduit: Conduit, deadline: float) -> None:
        """Wait until the endpoint can take more of the request's body; raises what ended the exchange."""
        self.write_paused = True
        conduit.watch_sink(self.resume_writing)
        try:
            await self.drain(deadline)
        finally:
            conduit.unwatch_sink()
            self.write_paused = False

    def poured(self, conduit: Conduit) -> None:
        """A part of the body went through a conduit, which is closed now."""
        self._paused = False
        self._left -= conduit.taken

    def fail(self, error: Exception) -> None:
        """End the exchange for `error`, which the holder gets to see at its next step; closes the connection."""
        if self.error is None:
            self.error = error
        self.close()
        self._wake()

    def interrupt(self, error: Exception) -> None:
        """End a response that is being streamed, for a reason that has nothing to do with it."""
        if not self.arrived.is_awaited and self.holder is not None:
            # The holder waits for its client to read, and would not see the error before it does.
            self.stalled = True
            self.holder.cancel()
        else:
            self.fail(error)

    def release(self) -> None:
        """Give the connection back, once per `begin`: kept if both messages ended as they said, closed otherwise."""
        head = self.head
        reusable = self.complete and self.uploaded and not self.leftover and head is not None and head.keep_alive
        if reusable and (self.write_paused or self._pieces or self._paused or self.transport.is_closing()):
            reusable = False
        if not reusable:
            self.error = None  # once raised, it holds the frames of who got it, and they this connection
        self.read_deadline = self.write_deadline = _NEVER
        self.holder = None
        self.pool.give_back(self, reusable)

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""
        if not self.closed:
            self.closed = True
            self.transport.abort()
            self.pool.forget(self)

    def expire(self, now: float) -> None:
        """End the exchange if one of its deadlines has passed (`now`: monotonic); called by the pool's sweep."""
        if now < self.read_deadline and now < self.write_deadline:
            return
        self.read_deadline = self.write_deadline = _NEVER
        if not self.arrived.is_awaited and self._drained is None and self.holder is not None:
            # Nothing of ours is being waited for: the client is not reading.
            self.stalled = True
            self.holder.cancel()
            return
        self.pool.timed_out += 1
        self.fail(UpstreamTimeout(cause="no response head in time" if self.head is None else "silent inside the body"))

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self.arrived.ring()

    # --- the protocol, driven by the event loop -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop hands over the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not say so itself
        self._outgoing = Outgoing(self.transport, self.pool.outbox, self._loop)

    def data_received(self, data: bytes) -> None:
        """Bytes from the endpoint: a part of the response, or a reason to close."""
        if not self.busy or self.complete:
            self.leftover = True
            if not self.busy:
                self.close()
            return
        if not self.sent:  # the endpoint gives up on a connection whose request has not begun: nothing is lost
            self.fail(StaleConnection())
            return
        self.received = True
        try:
            if self.head is not None:
                self._receive_body(data)
            else:
                self._receive_head(data)
        except MalformedResponse as malformed:
            self._break(str(malformed))
            return
        self.arrived.ring()

    def _receive_head(self, data: bytes) -> None:
        if self._head_bytes:
            data = self._head_bytes + data
            self._head_bytes = b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    raise MalformedResponse("head too large")
                if data.count(b"\n") != data.count(b"\r\n"):
                    raise MalformedResponse("a line ends without CR")  # its blank line may never be seen
                self._head_bytes = data
                return
            end += 4
            if end > MAX_HEAD_BYTES:
                raise MalformedResponse("head too large")
            rest = data[end:]
            head = parse_head(data[:end] if rest else data, self._head_only)
            if head is not None:
                break
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise MalformedResponse("too many interim responses")
            if not rest:
                return
            data = rest
        self.head = head
        self._left = head.body_length
        if head.body_length == CHUNKED:
            self._chunked = ChunkedBody()
        elif head.body_length == 0:
            self.complete = True
            self.leftover = bool(rest)
            return
        if rest:
            self._receive_body(rest)

    def _receive_body(self, data: bytes) -> None:
        if self._left > 0:  # a known length: counted, not parsed
            self._left -= len(data)
            if self._left <= 0:
                self.complete = True
                if self._left < 0:
                    self.leftover = True
                    data = data[: self._left]
        elif self._chunked is not None:
            data = self._chunked.feed(data)
            self.complete = self._chunked.complete
            self.leftover = self._chunked.leftover
            if not data:
                return
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered > HIGH_WATER_BYTES and not self._paused and not self.complete:
            self._paused = True
            self.transport.pause_reading()

    def _break(self, cause: str) -> None:
        """The response violates the protocol: what arrived before still reaches the client, then it is cut off."""
        self.pool.malformed += 1
        self.fail(BadResponse(cause=cause))

    def eof_received(self) -> None:
        """The endpoint sends no more; for a body that ends with the connection, this is its end."""
        if self.busy and self.head is not None and self.head.body_length == UNTIL_CLOSE:
            self.complete = True
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; a response that was not complete never will be."""
        self.closed = True
        self.pool.forget(self)
        if self.busy and not self.complete and self.error is None:
            if not self.received:
                self.error = StaleConnection()
            elif exc is None and self.head is not None and self.head.body_length == UNTIL_CLOSE:
                self.complete = True
            else:
                # An incomplete message (RFC 9112 §8) breaks the protocol as much as a malformed one.
                part = "head" if self.head is None else "body"
                self._break(f"the connection closed inside the response {part}")
        self._wake()

    def pause_writing(self) -> None:
        """The endpoint reads more slowly than the client sends."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The endpoint has caught up."""
        self.write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
