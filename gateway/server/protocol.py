"""Bytes to requests, under limits: the parser's callbacks, and what they refuse.

It keeps uvicorn's contract for an HTTP protocol (constructor, `shutdown`), and shares no code with uvicorn's own
httptools protocol: that one keeps an event, a flow object and a timer per request or connection, merges trailers into
the headers, and has no limits; what would be left after overriding all of that is the constructor.

What lies beyond parsing (requests in turn, time, the end) is in `gateway.server.connection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import httptools

from gateway.errors import BadRequest, GatewayError, HeaderTooLarge
from gateway.server.connection import BODY, DEAF, HEAD, IDLE, ClientConnection
from gateway.server.cycle import BUFFERED_BYTES, Application, Cycle
from gateway.server.handshake import Handshake, accept_key
from gateway.server.head import (
    REFUSED_METHODS,
    WATCHED,
    Framing,
    Header,
    check_method,
    head_size,
    read_framing,
    read_target,
)
from gateway.server.listener import Listener
from gateway.server.plain_head import PlainHead, PlainHeads
from gateway.server.websocket import Session
from gateway.strand import Strand

if TYPE_CHECKING:
    from uvicorn.server import ServerState

MAX_PIPELINED = 32  # heads that may wait behind an unfinished response; who sends more is answered these and closed

DIRECT_BYTES = 64 * 1024  # of a body that are still to come: from here on a new parser costs less than the copies

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class EdgeConfig(Protocol):
    """What the protocol needs of the uvicorn configuration it is made with."""

    loaded_app: Application
    listener: Listener


class _Unheard(Exception):
    """Another message on a connection that listens no more."""


class _QueueFull(Exception):
    """Too many heads wait behind an unfinished response."""


_PLAIN_HEADS = PlainHeads()
_NO_HOST = Framing(b"?", 0, False)  # equals no Host: `?` is not one


class HardenedProtocol(ClientConnection):
    """A client connection as the event loop makes it."""

    __slots__ = (
        "_body_left",
        "_fields",
        "_fresh",
        "_head_read",
        "_is_direct",
        "_parser",
        "_plain",
        "_replaying",
        "_silent",
        "_size",
        "_starting",
        "_watched",
    )

    def __init__(
        self,
        config: EdgeConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn calls it; `server_state` and `app_state` are not used."""
        super().__init__(config.listener, config.loaded_app, _loop or asyncio.get_running_loop())
        self._parser = httptools.HttpRequestParser(self)
        self._fields: list[Header] | None = None  # of the head being read
        self._watched: list[Header] = []
        self._plain = _NO_HOST  # for a head that has the last good Host and no body: nearly every one
        self._size = 0  # of the bytes being parsed
        self._fresh = True  # whether they began with the message being read
        self._head_read = 0  # bytes of an incomplete head before them
        self._silent = 0  # bytes since the last piece of a body: chunk extensions, trailers
        self._body_left = 0  # of a body of known length; else 0 or less
        self._is_direct = False  # the rest of the body goes past the parser
        self._replaying = False  # a head is fed a second time, to read the body behind an Upgrade
        self._starting: Strand | None = None  # of a request whose head has just been read

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        ClientConnection.connection_lost(self, exc)  # by name, so that it can be compiled
        self._let_go()

    def hand_over(self, *, max_message: int, idle_s: float) -> Session:
        """Give the transport to a WebSocket; the parser has read its last."""
        self._let_go()
        return super().hand_over(max_message=max_message, idle_s=idle_s)

    def _let_go(self) -> None:
        # The parser holds six methods of this object, which holds the parser: each connection would be a case for the
        # cyclic collector, which stops the loop.
        del self._parser

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and bound what it may keep before it calls back."""
        if self._phase == DEAF:
            return
        if self._is_direct or (self._body_left > DIRECT_BYTES and self._phase == BODY):
            self._read_directly(data)
            return
        self._size = size = len(data)
        if self._phase == IDLE and self._active is None and not self._closing and size <= self.listener.head_bytes:
            heads: PlainHeads = _PLAIN_HEADS
            head = heads.read(data)
            if head is not None and len(head.fields) <= self.listener.headers:
                self._take_plain(head)
                return
        self._fresh = True
        self._silent += size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._behind_offer(data[upgrade.args[0] :])
        except httptools.HttpParserError as exc:
            self._parse_failed(exc)
        if self._phase == HEAD:
            self._head_read += size if self._fresh else 0
            if self._head_read > self.listener.head_bytes:
                self._refuse(HeaderTooLarge())
        elif self._phase == BODY and self._silent > self.listener.head_bytes + size:
            self._refuse(HeaderTooLarge("The chunk extensions or trailers are too large."))
        if self._starting is not None:
            # Not in the parser's callback: before this returns, the request may be answered and the connection closed.
            strand, self._starting = self._starting, None
            strand.start()

    def _take_plain(self, head: PlainHead) -> None:
        """A whole request, without a body; the parser does not see it."""
        self._url = head.target
        self._head_read = self._silent = 0
        self._since = self.listener.tick
        path, _, query = head.target.partition(b"?")
        cycle = Cycle(self, self._scope(head.method, "1.1", path, query, head.fields), True, False)
        cycle.body_complete = True
        self._incoming = cycle
        self._body_left = 0
        self._discarding = -1
        self._begin(cycle).start()

    def _scope(self, method: str, version: str, path: bytes, query: bytes, fields: list[Header]) -> dict[str, Any]:
        text = path.decode("ascii")
        return {
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

    def _read_directly(self, data: bytes) -> None:
        """Hand on the rest of a long body of known length as it is; the parser would copy each piece of it.

        The parser does not know of it, so what follows the body is read by a new one.
        """
        self._is_direct = True
        left = self._body_left
        if len(data) < left:
            self.on_body(data)
            return
        self._is_direct = False
        self._parser = httptools.HttpRequestParser(self)
        self.on_body(data[:left])
        self.on_message_complete()
        if len(data) > left:
            self.data_received(data[left:])

    def unread_body(self, cycle: Cycle) -> int:
        """Bytes of this request's body that go past the parser; 0 if there are none."""
        return self._body_left if self._is_direct and cycle is self._incoming and self._phase == BODY else 0

    def body_poured(self, count: int) -> None:
        """Some of the body was read by somebody else."""
        self._body_left -= count

    def _parse_failed(self, exc: httptools.HttpParserError) -> None:
        cause = exc.__context__
        incoming = self._incoming
        if isinstance(cause, _Unheard):
            return
        if isinstance(cause, _QueueFull):
            self._become_deaf()
        elif isinstance(cause, GatewayError):
            self._refuse(cause)
        elif self._closing or (incoming is not None and incoming.body_complete and not incoming.keep_alive):
            self._become_deaf()  # data after `Connection: close` is nobody's
        else:
            self._refuse(BadRequest(cause=str(exc)))

    def _behind_offer(self, rest: bytes) -> None:
        """What follows a request that offered another protocol."""
        incoming = self._incoming
        if self._phase == DEAF:
            return
        if not isinstance(incoming, Handshake):
            self._ignore_upgrade(rest)
            return
        self._phase = IDLE
        self._since = self.listener.tick
        incoming.feed_end()
        incoming.early = rest
        self._pause_reading()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read on in HTTP/1.1 after a request that offered another protocol (RFC 9110 §7.8: a server may ignore that).

        The parser takes what follows for the other protocol, a body included. A new one is fed the same framing without
        the offer, so that neither a body nor the next request is lost or misread.
        """
        framing = [b"%b: %b\r\n" % field for field in self._watched if field[0] not in (b"expect", b"upgrade")]
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
        if self._phase == DEAF:
            raise _Unheard  # of the same bytes as the message that ended the connection
        if self._queue is not None and len(self._queue) >= MAX_PIPELINED:
            raise _QueueFull
        self._phase = HEAD
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
        fields = self._fields
        if fields is None:
            return  # a trailer must not be merged into the headers (RFC 9110 §6.5.1); a head fed again is known
        name = name.lower()
        field = (name, value.rstrip(b" \t"))
        if name in WATCHED:
            self._watched.append(field)
        fields.append(field)

    def on_headers_complete(self) -> None:
        """The head is complete: judge it, and hand it to the application."""
        fields, self._fields = self._fields, None
        if fields is None:
            return
        parser = self._parser
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        self._bound_head(method, fields)
        if version != "1.1" or method in REFUSED_METHODS:
            check_method(method, version)
        framing = self._framing(version)
        path, query = read_target(method, self._url, framing.host)
        scope = self._scope(method, version, path, query, fields)
        if framing.offers_websocket and self._is_handshake(method):
            cycle: Cycle = Handshake(self, scope, accept_key(fields))
        else:
            keep_alive = version == "1.1" and parser.should_keep_alive()
            cycle = Cycle(self, scope, keep_alive, framing.expects_continue)
        self._incoming = cycle
        self._phase = BODY
        # After the last request of a connection, the parser must see that nothing follows.
        self._body_left = framing.length if cycle.keep_alive else 0
        self._silent = 0
        self._discarding = -1
        if self._active is None:
            self._starting = self._begin(cycle)
        else:
            self._enqueue(cycle)

    def _is_handshake(self, method: str) -> bool:
        # The parser knows whether Connection nominates the offer (RFC 9110 §7.8); without that it is none.
        return self.listener.speaks_websocket and method == "GET" and bool(self._parser.should_upgrade())

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
        self._body_left -= len(body)
        cycle = self._incoming
        if cycle is None:
            return
        if self._discarding >= 0:
            self._discarding -= len(body)
            if self._discarding < 0:
                self._finish()
        elif cycle.feed(body) > BUFFERED_BYTES:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """The request is complete, trailers included."""
        self._fresh = False
        if self._phase != BODY or (self._parser.should_upgrade() and not self._replaying):
            return  # refused, or its body is read by `_ignore_upgrade`
        self._phase = IDLE
        self._since = self.listener.tick
        cycle = self._incoming
        if cycle is not None:
            cycle.feed_end()
            if self._discarding >= 0:
                self._discarding = -1
                self._next()
