"""One WebSocket to an upstream, and the relay between it and the client's: messages both ways, and every end told on.

    dial ──101──▶ Relay: client ⇄ upstream ──▶ the first end decides what the other side is told
      └ any other answer: `HandshakeRefused`, passed on as the HTTP response it is

    who ends it                                   the client sees          the upstream sees
    the client, with a code                       its own code             the same
    the client, without a word (1006)             -                        1001
    the upstream, with a code                     the same                 its own code
    the upstream, without a word, or by a fault   1014 with our code       -, or 1009 for a message too big
    the gateway: token revoked, expired           1008 with our code       the same
    the gateway: it stops                         1012 going_away          1001

The upstream's leg is `websockets`' asyncio client: it pings, and bounds messages and what waits (a few frames). Each
side is read only as fast as the other takes it. Text that is not UTF-8, or a message too long, ends both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, TooManyFragments, WebSocketException
from websockets.http11 import Request
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from gateway.errors import BadResponse, ConnectFailed, UpstreamTimeout
from gateway.fields import Header
from gateway.telemetry.exchange import Exchange
from gateway.upstream.endpoints import Upstream
from gateway.upstream.headers import response_headers

Message = dict[str, Any]  # ASGI messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PING_S: Final = 20.0  # between pings to the upstream, and until an answer is missed
CLOSE_S: Final = 2.0  # for the upstream to answer a goodbye
_QUEUED_FRAMES: Final = 4
_WRITE_BYTES: Final = 64 * 1024

_NO_STATUS: Final = 1005
_ABNORMAL: Final = 1006
_GOING_AWAY: Final = 1001
_POLICY: Final = 1008
_SERVICE_RESTART: Final = 1012
_BAD_GATEWAY: Final = 1014
_INTERNAL_ERROR: Final = 1011

_HANDSHAKE_FIELDS: Final = frozenset(
    (
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    )
)
_quiet = logging.getLogger("gateway.upstream.websocket")
_quiet.setLevel(logging.WARNING)  # the library would log each connection, and on DEBUG each frame


class HandshakeRefused(Exception):
    """The upstream answered the handshake with an ordinary response; nothing was sent to the client yet."""

    def __init__(self, status: int, headers: list[Header], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers  # fit for the client
        self.body = body


@dataclass(frozen=True, slots=True)
class UpstreamHandshake:
    """What to ask of the upstream, and the limits of what follows."""

    target: bytes  # the raw path and query, byte for byte as matched
    host: bytes  # the client's authority; an upstream may be configured to see its endpoint's instead
    headers: Sequence[Header]  # from RequestHeaders.build: neither Host nor anything of the handshake
    subprotocols: Sequence[str]  # offered to the upstream, in order
    request_id: bytes
    max_message: int  # bytes, either way
    head_timeout_s: float


class End(NamedTuple):
    """How a WebSocket ends: what the client is told, what the upstream is told, and the error's code for the record."""

    client_code: int
    client_reason: str
    upstream_code: int
    upstream_reason: str
    code: str = ""
    cause: str = ""


class _Opening(ClientProtocol):
    """The library's half of the handshake, with our head: it would write Host, and read a URL, in its own way."""

    def __init__(self, handshake: UpstreamHandshake) -> None:
        super().__init__(
            WebSocketURI(False, "", 0, "", ""),
            subprotocols=[Subprotocol(name) for name in handshake.subprotocols] or None,
            max_size=handshake.max_message,
            logger=_quiet,
        )
        self._handshake = handshake
        self.host = handshake.host

    def connect(self) -> Request:
        """The request: the library's handshake fields, our Host, the fields of the route."""
        handshake = self._handshake
        headers = Headers({"Host": self.host.decode("latin-1")})
        for name, value in super().connect().headers.raw_items():
            if name != "Host":
                headers[name] = value
        for field, content in handshake.headers:
            if field not in _HANDSHAKE_FIELDS:
                headers[field.decode("latin-1")] = content.decode("latin-1")
        return Request(handshake.target.decode("ascii"), headers)


class Leg(ClientConnection):
    """The upstream's side. The library's connection, but that its end is heard when it is said.

    The library waits until the endpoint has closed the socket as well, for as long as that takes.
    """

    def __init__(self, opening: _Opening) -> None:
        super().__init__(
            opening,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=CLOSE_S,
            max_queue=(_QUEUED_FRAMES, 1),
            write_limit=_WRITE_BYTES,
        )
        self.opening = opening

    def data_received(self, data: bytes) -> None:
        """Bytes from the endpoint; after its last word no message comes any more."""
        super().data_received(data)
        if self.protocol.close_expected():
            self.recv_messages.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        # Its generator and the library's object hold each other: thousands would wait for a full garbage collection,
        # which stops the loop.
        self.protocol.parser.close()

    async def message(self) -> str | bytes:
        """The next message; `EOFError` after the last."""
        try:
            return await self.recv_messages.get()
        except UnicodeDecodeError as exc:
            self._fail(1007, "the text is not UTF-8")
            raise EOFError from exc
        except TooManyFragments as exc:
            self._fail(1009, "too many fragments")
            raise EOFError from exc

    def _fail(self, code: int, reason: str) -> None:
        self.protocol.fail(code, reason)
        self.send_data()


async def dial(handshake: UpstreamHandshake, upstream: Upstream, exchange: Exchange) -> Leg:
    """An open WebSocket to `upstream`; facts go into `exchange`.

    Raises `HandshakeRefused`, or the leaves of `UpstreamFault`. Cancellation closes the connection.
    """
    exchange.upstream = upstream.name
    endpoint, leg = await upstream.open(lambda: Leg(_Opening(handshake)))
    exchange.endpoint = endpoint.name
    if upstream.sends_own_host:
        leg.opening.host = endpoint.authority
    opened = False
    try:
        async with asyncio.timeout(handshake.head_timeout_s):
            await leg.handshake(None, None)
        leg.start_keepalive()
        opened = True
    except InvalidStatus as refused:
        response = refused.response
        raise HandshakeRefused(
            response.status_code,
            _fit(response.headers, response.status_code, handshake.request_id),
            bytes(response.body or b""),
        ) from refused
    except TimeoutError as error:
        endpoint.pool.timed_out += 1
        raise UpstreamTimeout(cause=f"{endpoint.name}: no answer to the handshake in time") from error
    except (ConnectionClosed, OSError) as error:
        raise ConnectFailed(cause=f"{endpoint.name}: closed without an answer to the handshake") from error
    except WebSocketException as error:
        if isinstance(error.__cause__, EOFError):
            raise ConnectFailed(cause=f"{endpoint.name}: closed without an answer to the handshake") from error
        endpoint.pool.malformed += 1
        raise BadResponse(cause=f"{endpoint.name}: {type(error).__name__} in the handshake") from error
    finally:
        if not opened:
            leg.transport.abort()
    return leg


def accepted_headers(leg: Leg, request_id: bytes) -> list[Header]:
    """The fields of the upstream's 101 that go on to the client."""
    assert leg.response is not None
    return _fit(leg.response.headers, 101, request_id)


def _fit(headers: Headers, status: int, request_id: bytes) -> list[Header]:
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.raw_items()]
    kept = response_headers(fields, status, request_id)
    # The library has read the whole body, and taken its framing off.
    return [pair for pair in kept if pair[0] not in _HANDSHAKE_FIELDS and pair[0] != b"content-length"]


class Relay:
    """An accepted WebSocket and its upstream leg. `end` may be called from outside, at any time."""

    __slots__ = ("_exchange", "_leg", "_receive", "_send", "_told")

    def __init__(self, leg: Leg, receive: Receive, send: Send, exchange: Exchange) -> None:
        self._leg = leg
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._told: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    @property
    def kind(self) -> Literal["websocket"]:
        """What kind of connection this is."""
        return "websocket"

    def end(self, code: str) -> None:
        """End both sides: `code` is an error's (`token_revoked`, `token_expired`), or `going_away`."""
        if not self._told.done():
            if code == "going_away":
                self._told.set_result(End(_SERVICE_RESTART, code, _GOING_AWAY, "", code))
            else:
                self._told.set_result(End(_POLICY, code, _POLICY, code, code))

    async def run(self) -> None:
        """Carry messages until one side, or `end`, ends it; both sides are closed afterwards, whatever happens."""
        pumps = [asyncio.ensure_future(self._from_client()), asyncio.ensure_future(self._from_upstream())]
        end = End(_SERVICE_RESTART, "going_away", _GOING_AWAY, "", "going_away")  # if this task is cancelled
        try:
            await asyncio.wait([*pumps, self._told], return_when=asyncio.FIRST_COMPLETED)
            # A revocation counts before whatever happened in the same turn.
            end = await next(done for done in (self._told, *pumps) if done.done())
        finally:
            for pump in pumps:
                pump.cancel()
            await self._close(end)
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _close(self, end: End) -> None:
        exchange = self._exchange
        exchange.close_code = end.client_code
        exchange.code = end.code
        exchange.cause = end.cause
        await self._send({"type": "websocket.close", "code": end.client_code, "reason": end.client_reason})
        leg = self._leg
        if leg.protocol.close_rcvd is not None and leg.protocol.close_sent is not None:
            leg.transport.close()  # everything is said; the endpoint would close the socket soon
            return
        try:
            # The library waits `CLOSE_S` for the answer; on an upstream that takes no bytes it would wait longer.
            async with asyncio.timeout(2 * CLOSE_S):
                await leg.close(end.upstream_code, end.upstream_reason)
        except TimeoutError:
            pass
        finally:
            leg.transport.abort()

    async def _from_client(self) -> End:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return _told_by_client(message.get("code", _NO_STATUS), message.get("reason") or "")
            text = message.get("text")
            data = message["bytes"] if text is None else text
            self._exchange.bytes_in += len(data)
            try:
                await self._leg.send(data)
            except ConnectionClosed:
                return _told_by_upstream(self._leg)

    async def _from_upstream(self) -> End:
        while True:
            try:
                data = await self._leg.message()
            except EOFError:
                return _told_by_upstream(self._leg)
            self._exchange.bytes_out += len(data)
            kind = "text" if isinstance(data, str) else "bytes"
            await self._send({"type": "websocket.send", kind: data})


def _told_by_client(code: int, reason: str) -> End:
    if code == _ABNORMAL:
        return End(code, "", _GOING_AWAY, "", "client_gone")
    if code == _SERVICE_RESTART and reason == "going_away":  # said by our own server, which is stopping
        return End(code, reason, _GOING_AWAY, "", reason)
    return End(code, reason, 1000 if code == _NO_STATUS else code, reason)


def _told_by_upstream(leg: Leg) -> End:
    """What the client is told of an upstream that ended it: its own word, or ours for a fault of its."""
    received, sent = leg.protocol.close_rcvd, leg.protocol.close_sent
    if received is not None and (sent is None or leg.protocol.close_rcvd_then_sent):
        return End(received.code, received.reason, received.code, "")
    # Nothing was received, or our side of the leg spoke first: about what it had received.
    code = BadResponse.code
    if sent is None:
        code = ConnectFailed.code
    elif sent.code == _INTERNAL_ERROR:  # the library's word for a ping without an answer
        code = UpstreamTimeout.code
    cause = "the upstream's connection was lost" if sent is None else f"closed by us with {sent.code}"
    return End(_BAD_GATEWAY, code, _GOING_AWAY, "", code, cause)
