"""One client connection: bytes to requests, under limits, and nothing else.

It keeps uvicorn's contract for an HTTP protocol (constructor, `shutdown`), and shares no code with uvicorn's own
httptools protocol: that one keeps an event, a flow object and a timer per request or connection, merges trailers into
the headers, and has no limits; what would be left after overriding all of that is the constructor.

The read side of a connection is always in one of these phases; the write side has at most one active `Cycle`, and
further complete heads wait in a bounded queue while the socket is not read.

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
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote

import httptools

from gateway.errors import BadRequest, GatewayError, HeaderTooLarge, Overloaded, RequestTimeout
from gateway.http_date import http_date
from gateway.problem import problem_response
from gateway.server.cycle import BUFFERED_BYTES, Application, Cycle
from gateway.server.head import (
    REFUSED_METHODS,
    STATUS_LINES,
    WATCHED,
    Framing,
    Header,
    check_method,
    head_size,
    read_framing,
    read_target,
)
from gateway.server.listener import Listener
from gateway.telemetry.exchange import Exchange

if TYPE_CHECKING:
    from uvicorn.server import ServerState

MAX_PIPELINED = 32  # heads that may wait behind an unfinished response; who sends more is answered these and closed
DISCARDED_BYTES = 64 * 1024  # of an unread body, rather than closing the connection
ANSWERED_OVERFLOW = 128  # connections above the limit that are told so; the rest is closed unheard

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class EdgeConfig(Protocol):
    """What the protocol needs of the uvicorn configuration it is made with."""

    loaded_app: Application
    listener: Listener


class _Phase(IntEnum):
    IDLE = 0
    HEAD = 1
    BODY = 2
    DEAF = 3


# As plain integers: a member's look-up through its class costs more than the comparison.
_IDLE, _HEAD, _BODY, _DEAF = (int(phase) for phase in _Phase)


class _QueueFull(Exception):
    """Too many heads wait behind an unfinished response."""


class _Discard(list[Header]):
    """Where trailers go: nowhere (RFC 9110 §6.5.1: they must not be merged into the headers)."""

    def append(self, _: Header) -> None:
        """Forget it."""


_TRAILERS = _Discard()
_NO_HOST = Framing(b"?", 0, False)  # equals no Host: `?` is not one


class HardenedProtocol(asyncio.Protocol):
    """A client connection. Created by the event loop, known to its `Listener` while open."""

    __slots__ = (
        "_active",
        "_application",
        "_client",
        "_closing",
        "_discarding",
        "_fields",
        "_fresh",
        "_head_read",
        "_incoming",
        "_parser",
        "_phase",
        "_plain",
        "_queue",
        "_read_paused",
        "_refusal",
        "_replaying",
        "_scheme",
        "_server",
        "_silent",
        "_since",
        "_size",
        "_stalled",
        "_transport",
        "_url",
        "_watched",
        "_writable",
        "listener",
        "loop",
        "write_paused",
    )

    def __init__(
        self,
        config: EdgeConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn calls it; `server_state` and `app_state` are not used."""
        self.listener = config.listener
        self.loop = _loop or asyncio.get_running_loop()
        self._application = config.loaded_app
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # until connection_made
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._scheme = "http"
        # read side
        self._phase = _IDLE
        self._since = self.listener.tick  # the tick of the phase's last progress
        self._incoming: Cycle | None = None  # the request whose message is being read
        self._url = b""
        self._fields: list[Header] = []
        self._watched: list[Header] = []
        self._plain = _NO_HOST  # for a head that has the last good Host and no body: nearly every one
        self._size = 0  # of the bytes being parsed
        self._fresh = True  # whether they began with the message being read
        self._head_read = 0  # bytes of an incomplete head before them
        self._silent = 0  # bytes since the last piece of a body: chunk extensions, trailers
        self._discarding = -1  # bytes of an unread body still accepted; -1 while the application may want it
        self._read_paused = False
        self._replaying = False  # a head is fed a second time, to read the body behind an Upgrade
        # write side
        self._active: Cycle | None = None
        self._queue: deque[Cycle] | None = None  # made on the first pipelined request
        self._refusal: GatewayError | None = None  # to be answered when those before it are done
        self._closing = False  # no further request on this connection
        self.write_paused = False
        self._stalled = -1  # size of the write buffer at the last look while paused
        self._writable: asyncio.Future[None] | None = None

    # --- transport --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in, or turn it away when there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        listener = self.listener
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
            self._phase = _DEAF
        elif excess > 0:
            self._answer(Overloaded(cause="connection limit"), None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request in progress: nobody is left to answer."""
        self.listener.connections.discard(self)
        self._phase = _DEAF
        self._queue = None
        self.resume_writing()
        active, self._active = self._active, None
        if active is not None and not active.is_done:
            active.disconnected = True
            if active.task is not None:
                # A task that has not run yet never reaches its own clean-up.
                active.task.add_done_callback(self.listener.tasks.discard)
                active.task.cancel()
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

    # --- reading ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and bound what it may keep before it calls back."""
        if self._phase == _DEAF:
            return
        self._size = size = len(data)
        self._fresh = True
        self._silent += size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as exc:
            self._parse_failed(exc)
        if self._phase == _HEAD:
            self._head_read += size if self._fresh else 0
            if self._head_read > self.listener.head_bytes:
                self._refuse(HeaderTooLarge())
        elif self._phase == _BODY and self._silent > self.listener.head_bytes + size:
            self._refuse(HeaderTooLarge("The chunk extensions or trailers are too large."))

    def _parse_failed(self, exc: httptools.HttpParserError) -> None:
        cause = exc.__context__
        incoming = self._incoming
        if isinstance(cause, _QueueFull):
            self._become_deaf()
        elif isinstance(cause, GatewayError):
            self._refuse(cause)
        elif self._closing or (incoming is not None and incoming.body_complete and not incoming.keep_alive):
            self._become_deaf()  # data after `Connection: close` is nobody's
        else:
            self._refuse(BadRequest(cause=str(exc)))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read on in HTTP/1.1 after a request that offered another protocol (RFC 9110 §7.8: a server may ignore that).

        The parser takes what follows for the other protocol, a body included. A new one is fed the same framing without
        the offer, so that neither a body nor the next request is lost or misread.
        """
        if self._phase == _DEAF:
            return
        framing = [b"%b: %b\r\n" % field for field in self._watched if field[0] != b"expect"]
        self._parser = httptools.HttpRequestParser(self)
        self._replaying = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        self._replaying = False
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        """A request line starts."""
        if self._replaying:
            return
        if self._queue is not None and len(self._queue) >= MAX_PIPELINED:
            raise _QueueFull
        self._phase = _HEAD
        self._since = self.listener.tick
        self._head_read = 0
        self._url = b""
        self._fields = []
        self._watched = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer; the parser leaves white space at the end of the value."""
        if self._replaying:
            return
        field = (name.lower(), value.rstrip(b" \t"))
        if field[0] in WATCHED:
            self._watched.append(field)
        self._fields.append(field)

    def on_headers_complete(self) -> None:
        """The head is complete: judge it, and hand it to the application."""
        if self._replaying:
            return
        fields, self._fields = self._fields, _TRAILERS
        parser = self._parser
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        self._bound_head(method, fields)
        if version != "1.1" or method in REFUSED_METHODS:
            check_method(method, version)
        framing = self._framing(version)
        path, query = read_target(method, self._url, framing.host)
        text = path.decode("ascii")
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "method": method,
            "root_path": "",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "headers": fields,
        }
        keep_alive = version == "1.1" and parser.should_keep_alive()
        self._incoming = cycle = Cycle(self, scope, keep_alive, framing.expects_continue)
        self._phase = _BODY
        self._silent = 0
        self._discarding = -1
        if self._active is None:
            self._begin(cycle)
        else:
            self._enqueue(cycle)

    def _bound_head(self, method: str, fields: Sequence[Header]) -> None:
        listener = self.listener
        if len(fields) > listener.headers:
            raise HeaderTooLarge("There are too many header fields.")
        # Adding up every field is worth its time only for a head that may be over the limit.
        if self._head_read + self._size > listener.head_bytes and (
            head_size(method, self._url, fields) > listener.head_bytes
        ):
            raise HeaderTooLarge()

    def _framing(self, version: str) -> Framing:
        watched = self._watched
        plain = self._plain
        if len(watched) == 1 and watched[0][1] == plain.host and watched[0][0] == b"host":
            return plain
        framing = read_framing(watched, version)
        self._plain = Framing(framing.host, 0, False)
        return framing

    def on_body(self, body: bytes) -> None:
        """A piece of the body, chunk framing removed."""
        self._since = self.listener.tick
        self._silent = 0
        cycle = self._incoming
        if cycle is None:
            return
        if self._discarding >= 0:
            self._discarding -= len(body)
            if self._discarding < 0:
                self._become_deaf()
        elif cycle.feed(body) > BUFFERED_BYTES:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """The request is complete, trailers included."""
        self._fresh = False
        if self._phase != _BODY or (self._parser.should_upgrade() and not self._replaying):
            return  # refused, or its body is read by `_ignore_upgrade`
        self._phase = _IDLE
        self._since = self.listener.tick
        cycle = self._incoming
        if cycle is not None:
            cycle.feed_end()
            if self._discarding >= 0:
                self._discarding = -1
                self._next()

    def want_body(self) -> None:
        """The application waits for more of the body: read on, and start the clock."""
        self._since = self.listener.tick
        self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self._queue and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()

    # --- requests in turn -------------------------------------------------------------------------------------------

    def _begin(self, cycle: Cycle) -> None:
        self._active = cycle
        self.listener.requests += 1
        # Not by the loop's method: that one only adds a call and a name.
        cycle.task = task = asyncio.Task(cycle.run(self._application), loop=self.loop)
        self.listener.tasks.add(task)

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
            self._begin(self._queue.popleft())
        elif self._refusal is not None:
            self._answer(self._refusal, None)
        elif self._closing or self._phase == _DEAF:
            self._finish()
        else:
            self._since = self.listener.tick
            self._resume_reading()

    def closes_after(self, cycle: Cycle) -> bool:
        """Whether the connection ends with this cycle's response although the client would keep it."""
        return (self._closing or self._phase == _DEAF) and not self._queue and self._refusal is None

    def _finish(self) -> None:
        """No further request. What the client still sends is read for a moment, or it might never see the response."""
        self._active = None
        self._queue = None
        incoming = self._incoming
        if self._phase == _IDLE and (incoming is None or incoming.body_complete):
            self._phase = _DEAF
            self._transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        transport = self._transport
        self._become_deaf()
        self._refusal = None
        if transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
            self._since = self.listener.tick
            self._resume_reading()
        else:
            transport.close()

    def _become_deaf(self) -> None:
        self._phase = _DEAF
        self._since = self.listener.tick

    # --- refusals ---------------------------------------------------------------------------------------------------

    def _refuse(self, error: GatewayError) -> None:
        """Answer `error` in its turn, and read no further."""
        cycle = self._incoming
        if self._phase == _BODY and cycle is not None and not cycle.body_complete:
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

    # --- writing and ending -----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Send several pieces without joining them here."""
        self._transport.writelines(pieces)

    def abandon(self, cycle: Cycle) -> None:
        """Cut a response that cannot be finished, so that the client notices."""
        if cycle.is_done or self._transport.is_closing():
            return
        self._become_deaf()
        if cycle.scope["http_version"] == "1.0":
            self._transport.abort()  # a plain end of the connection would look like a complete body
        else:
            self._transport.close()

    def shutdown(self) -> None:
        """Close after the response in progress, or at once when there is none; a head being read is still answered."""
        self._closing = True
        if self._active is None and self._phase == _IDLE:
            self._phase = _DEAF
            self._transport.close()

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
        if phase == _HEAD:
            if age > listener.head_ticks and not self._read_paused:
                self._refuse(RequestTimeout("The request head did not arrive in time."))
        elif phase == _BODY:
            if age > listener.body_ticks and not self._read_paused and self._is_body_wanted():
                self._refuse(RequestTimeout("The request body did not arrive in time."))
        elif phase == _DEAF:
            if active is None and age > listener.linger_ticks:
                self._transport.abort()
        elif active is None:
            # Before the first request the head's time counts, from the accept.
            limit = listener.head_ticks if self._incoming is None else listener.idle_ticks
            if age > limit:
                self._phase = _DEAF
                self._transport.close()

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
