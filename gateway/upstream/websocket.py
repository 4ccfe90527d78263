"""One WebSocket to an upstream: its handshake, and the connection afterwards.

    dial ──101──▶ `Leg`, for the relay
      └ any other answer: `HandshakeRefused`, passed on as the HTTP response it is

The connection is `websockets`' asyncio client: it pings, and bounds messages and what waits (a few frames). Text that
is not UTF-8, or a message too long, ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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

PING_S: Final = 20.0  # between pings to the upstream, and until an answer is missed
CLOSE_S: Final = 2.0  # for the upstream to answer a goodbye
_QUEUED_FRAMES: Final = 4
_WRITE_BYTES: Final = 64 * 1024

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

    async def leave(self, code: int, reason: str) -> None:
        """Say goodbye, and be closed afterwards, whatever the endpoint does."""
        if self.protocol.close_rcvd is not None and self.protocol.close_sent is not None:
            self.transport.close()  # everything is said; the endpoint would close the socket soon
            return
        try:
            # The library waits `CLOSE_S` for the answer; on an upstream that takes no bytes it would wait longer.
            async with asyncio.timeout(2 * CLOSE_S):
                await self.close(code, reason)
        except TimeoutError:
            pass
        finally:
            self.transport.abort()

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
