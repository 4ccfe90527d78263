"""The life of one client connection, apart from parsing: requests in turn, answers made here, time, and the end.

The read side is always in one of these phases; the write side has at most one active `Cycle`, and further complete
heads wait in a bounded queue while the socket is not read.

    IDLE ──first byte──▶ HEAD ──head complete──▶ BODY ──message complete──▶ IDLE
      │ keep-alive time    │ head time, 431, 400    │ body time, 400            any ──▶ DEAF: answered early, the rest
      ▼ close              ▼ 408, DEAF              ▼ 408, DEAF                         is thrown away, then closed

Every phase remembers the sweep's tick of its last progress; `check_time` compares. See `gateway.server.listener`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import cast

from gateway.errors import GatewayError, Overloaded, RequestTimeout
from gateway.http_date import http_date
from gateway.outbox import Outgoing
from gateway.problem import problem_response
from gateway.server.cycle import Application, Cycle
from gateway.server.head import STATUS_LINES
from gateway.server.listener import Listener
from gateway.server.websocket import Session
from gateway.strand import PlainProtocol, Strand
from gateway.telemetry.exchange import Exchange

DISCARDED_BYTES = 64 * 1024  # of an unread body, rather than closing the connection
ANSWERED_OVERFLOW = 128  # connections above the limit that are told so; the rest is closed unheard


class _Phase(IntEnum):
    IDLE = 0
    HEAD = 1
    BODY = 2
    DEAF = 3


# As plain integers: a member's look-up through its class costs more than the comparison.
IDLE, HEAD, BODY, DEAF = (int(phase) for phase in _Phase)


class ClientConnection(PlainProtocol):
    """Everything of a connection but its parser. Known to its `Listener` while open."""

    __slots__ = (
        "_active",
        "_application",
        "_client",
        "_closing",
        "_discarding",
        "_incoming",
        "_outgoing",
        "_phase",
        "_queue",
        "_read_paused",
        "_refusal",
        "_scheme",
        "_server",
        "_since",
        "_stalled",
        "_transport",
        "_url",
        "_writable",
        "listener",
        "loop",
        "write_paused",
    )

    def __init__(self, listener: Listener, application: Application, loop: asyncio.AbstractEventLoop) -> None:
        self.listener = listener
        self.loop = loop
        self._application = application
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # until connection_made
        self._outgoing: Outgoing = cast("Outgoing", None)
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._scheme = "http"
        # read side
        self._phase = IDLE
        self._since = self.listener.tick  # the tick of the phase's last progress
        self._incoming: Cycle | None = None  # the request whose message is being read
        self._url = b""  # its target, as far as it is here
        self._discarding = -1  # bytes of an unread body still accepted; -1 while the application may want it
        self._read_paused = False
        # write side
        self._active: Cycle | None = None
        self._queue: deque[Cycle] | None = None  # made on the first pipelined request
        self._refusal: GatewayError | None = None  # to be answered when those before it are done
        self._closing = False  # no further request on this connection
        self.write_paused = False
        self._stalled = -1  # size of the write buffer at the last look while paused
        self._writable: asyncio.Future[None] | None = None

    # --- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in, or turn it away when there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        listener = self.listener
        self._outgoing = Outgoing(self._transport, listener.outbox, self.loop)
        listener.accepted += 1
        listener.connections.add(self)
        peer = transport.get_extra_info("peername")
        self._client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        name = transport.get_extra_info("sockname")
        self._server = (name[0], name[1]) if isinstance(name, tuple) else None
        if transport.get_extra_info("sslcontext") is not None:
            self._scheme = "https"
        excess = len(listener.connections) - listener.max_connections
        if excess > ANSWERED_OVERFLOW:
            listener.count_refusal(Overloaded.code)
            self._transport.abort()
            self._phase = DEAF
        elif excess > 0:
            self._answer(Overloaded(cause="connection limit"), None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request in progress: nobody is left to answer."""
        self.listener.connections.discard(self)
        self._phase = DEAF
        self._queue = None
        self.resume_writing()
        active, self._active = self._active, None
        if active is not None and not active.is_done:
            active.disconnected = True
            if active.strand is not None:
                active.strand.cancel()
        self._incoming = None

    def eof_received(self) -> None:
        """A half-closed client counts as gone: it cannot be told from one that closed its window."""

    def pause_writing(self) -> None:
        """The client reads slower than the application writes."""
        self.write_paused = True
        self._stalled = -1
        self._since = self.listener.tick

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    async def until_writable(self) -> None:
        """Wait until the client has caught up, or is gone; `check_time` bounds the wait."""
        if self._writable is None or self._writable.done():
            self._writable = self.loop.create_future()
        await asyncio.shield(self._writable)

    # --- requests in turn --------------------------------------------------------------------------------------------

    def want_body(self) -> None:
        """The application waits for more of the body: read on, and start the clock."""
        self._since = self.listener.tick
        self._resume_reading()

    @property
    def transport(self) -> asyncio.Transport:
        """Where the client is; nothing waits to be written before what its user writes."""
        self._outgoing.let_out()
        return self._transport

    def unread_body(self, cycle: Cycle) -> int:
        """Bytes of this request's body that nobody but its reader needs to see; 0 if there are none."""
        return 0

    def reading_poured(self) -> None:
        """Somebody else reads what comes: not paused, as far as the time for it goes."""
        self._read_paused = False

    def body_poured(self, count: int) -> None:
        """Some of the body was read by somebody else."""

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self._queue and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()

    def _begin(self, cycle: Cycle) -> Strand:
        """Make it the active one; it still is to be started."""
        self._active = cycle
        listener = self.listener
        listener.requests += 1
        cycle.strand = strand = Strand(cycle.run(self._application), self.loop, listener.strands)
        return strand

    def _enqueue(self, cycle: Cycle) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(cycle)
        self._pause_reading()

    def response_done(self, cycle: Cycle) -> None:
        """The response is written: go on with what is queued, read on, or close."""
        self._active = None
        if not cycle.keep_alive:
            self._finish()
        elif cycle.body_complete:
            self._next()
        elif cycle.expects_continue:
            self._finish()  # whether the body still comes is anybody's guess (RFC 9110 §10.1.1)
        else:
            self._discarding = DISCARDED_BYTES - cycle.buffered
            cycle.chunks = None
            self._since = self.listener.tick
            self._resume_reading()

    def _next(self) -> None:
        if self._queue:
            self._begin(self._queue.popleft()).start_soon()  # the response before it has not quite ended
        elif self._refusal is not None:
            self._answer(self._refusal, None)
        elif self._closing or self._phase == DEAF:
            self._finish()
        else:
            self._since = self.listener.tick
            self._resume_reading()

    def closes_after(self, cycle: Cycle) -> bool:
        """Whether the connection ends with this cycle's response although the client would keep it."""
        return (self._closing or self._phase == DEAF) and not self._queue and self._refusal is None

    def _finish(self) -> None:
        """No further request. What the client still sends is read for a moment, or it might never see the response."""
        self._active = None
        self._queue = None
        incoming = self._incoming
        if self._phase == IDLE and (incoming is None or incoming.body_complete):
            self._phase = DEAF
            self._close()
        else:
            self._linger()

    def _linger(self) -> None:
        transport = self._transport
        self._become_deaf()
        self._refusal = None
        if transport.is_closing():
            return
        self._outgoing.let_out()
        if transport.can_write_eof():
            transport.write_eof()
            self._since = self.listener.tick
            self._resume_reading()
        else:
            transport.close()

    def _become_deaf(self) -> None:
        self._phase = DEAF
        self._since = self.listener.tick

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refuse(self, error: GatewayError) -> None:
        """Answer `error` in its turn, and read no further."""
        cycle = self._incoming
        if self._phase == BODY and cycle is not None and not cycle.body_complete:
            self._become_deaf()
            if self._active is not cycle and not (self._queue and cycle in self._queue):
                self._finish()  # its response is out already
            else:
                cycle.feed_failure(error)
            return
        self._become_deaf()
        self._closing = True
        if self._active is None:
            self._answer(error, None)
        else:
            self._refusal = error
            self._pause_reading()

    def answer(self, cycle: Cycle, error: GatewayError) -> None:
        """Answer for an application that failed before its response started."""
        self._answer(error, cycle)

    def _answer(self, error: GatewayError, cycle: Cycle | None) -> None:
        listener = self.listener
        request_id = os.urandom(16).hex()
        status, headers, body = problem_response(error, request_id, http_date(time.time()))
        lines = [b"%b: %b\r\n" % field for field in headers if field[0] != b"connection"]
        bodiless = cycle is not None and cycle.scope["method"] == "HEAD"
        self.write(
            b"%b%bconnection: close\r\n\r\n%b" % (STATUS_LINES[status], b"".join(lines), b"" if bodiless else body)
        )
        if cycle is None:
            listener.count_refusal(error.code)
            if listener.record is not None:
                listener.record(self._exchange(error, request_id, len(body)))
        else:
            cycle.disconnect()
        self._active = None
        self._queue = None
        self._linger()

    def _exchange(self, error: GatewayError, request_id: str, size: int) -> Exchange:
        """The record of a request that no application saw; what is not known stays empty."""
        return Exchange(
            started=time.monotonic(),
            method="",
            host="",
            path=self._url.partition(b"?")[0].decode("ascii", "replace"),
            client=self._client[0] if self._client else "",
            request_id=request_id,
            status=error.status,
            code=error.code,
            cause=error.cause or error.detail or "",
            bytes_out=size,
            duration_s=0.0,
        )

    # --- writing and ending ------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._outgoing.write(data)

    def hand_over(self, *, max_message: int, idle_s: float) -> Session:
        """Give the transport to a WebSocket; this connection has nothing to do any more."""
        self._active = self._incoming = None
        self._phase = DEAF
        self.listener.connections.discard(self)
        self._outgoing.let_out()
        session = Session(
            self.listener, self._transport, max_message=max_message, idle_s=idle_s, read_paused=self._read_paused
        )
        self._transport.set_protocol(session)
        if self._closing:
            session.shutdown()
        return session

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Send several pieces without joining them here.

        Not by `writelines`: asyncio's never pauses the writer in Python 3.12.0 to 3.13.0 (CVE-2024-12254).
        """
        self._outgoing.let_out()
        for piece in pieces:
            self._transport.write(piece)

    def _close(self) -> None:
        """End the connection once everything is sent."""
        self._outgoing.let_out()
        self._transport.close()

    def abandon(self, cycle: Cycle) -> None:
        """Cut a response that cannot be finished, so that the client notices."""
        if cycle.is_done or self._transport.is_closing():
            return
        self._become_deaf()
        self._outgoing.let_out()
        if cycle.scope["http_version"] == "1.0":
            self._transport.abort()  # a plain end of the connection would look like a complete body
        else:
            self._close()

    def shutdown(self) -> None:
        """Close after the response in progress, or at once when there is none; a head being read is still answered."""
        self._closing = True
        if self._active is None and self._phase == IDLE:
            self._phase = DEAF
            self._close()

    def check_time(self, tick: int) -> None:
        """Called by the sweep: end what has lasted too long, and let a waiting head out."""
        listener = self.listener
        active = self._active
        if active is not None:
            active.flush_head()
            if self.write_paused:
                self._check_write_stall(tick)
                return
        age = tick - self._since
        phase = self._phase
        if phase == HEAD:
            if age > listener.head_ticks and not self._read_paused:
                self._refuse(RequestTimeout("The request head did not arrive in time."))
        elif phase == BODY:
            if age > listener.body_ticks and not self._read_paused and self._is_body_wanted():
                self._refuse(RequestTimeout("The request body did not arrive in time."))
        elif phase == DEAF:
            if active is None and age > listener.linger_ticks:
                self._transport.abort()
        elif active is None:
            # Before the first request the head's time counts, from the accept.
            limit = listener.head_ticks if self._incoming is None else listener.idle_ticks
            if age > limit:
                self._phase = DEAF
                self._close()

    def _is_body_wanted(self) -> bool:
        return self._discarding >= 0 or (self._active is not None and self._active.awaits_body)

    def _check_write_stall(self, tick: int) -> None:
        """Abort a client that reads nothing for the keep-alive time while a response waits for it."""
        size = self._transport.get_write_buffer_size()
        if size != self._stalled:
            self._stalled = size
            self._since = tick
        elif tick - self._since > self.listener.idle_ticks:
            self._transport.abort()
