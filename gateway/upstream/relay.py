"""The relay between a client's WebSocket and its upstream's: messages both ways, and every end told on.

    client ⇄ `Relay` ⇄ upstream ──▶ the first end decides what the other side is told

    who ends it                                   the client sees          the upstream sees
    the client, with a code                       its own code             the same
    the client, without a word (1006)             -                        1001
    the upstream, with a code                     the same                 its own code
    the upstream, without a word, or by a fault   1014 with our code       -, or 1009 for a message too big
    the gateway: token revoked, expired           1008 with our code       the same
    the gateway: it stops                         1012 going_away          1001

Each side is read only as fast as the other takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, NamedTuple

from websockets.exceptions import ConnectionClosed

from gateway.errors import BadResponse, ConnectFailed, UpstreamTimeout
from gateway.telemetry.exchange import Exchange
from gateway.upstream.websocket import Leg

Message = dict[str, Any]  # ASGI messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NO_STATUS: Final = 1005
_ABNORMAL: Final = 1006
_GOING_AWAY: Final = 1001
_POLICY: Final = 1008
_SERVICE_RESTART: Final = 1012
_BAD_GATEWAY: Final = 1014
_INTERNAL_ERROR: Final = 1011


class End(NamedTuple):
    """How a WebSocket ends: what the client is told, what the upstream is told, and the error's code for the record."""

    client_code: int
    client_reason: str
    upstream_code: int
    upstream_reason: str
    code: str = ""
    cause: str = ""


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
        await self._leg.leave(end.upstream_code, end.upstream_reason)

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
