"""The opening handshake of a WebSocket (RFC 6455 §4.2): what a head must say, and its answer.

    head ──HardenedProtocol: the same limits and checks as any request──▶ Handshake ──accept──▶ 101, a `Session`
                                                                              └──HTTP response──▶ refused, then closed

To the application it is an ASGI `websocket` scope with the `websocket.http.response` extension; besides what ASGI says,
the scope has a `method`, and `websocket.accept` may carry `max_message` (bytes) and `idle_s` (seconds).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest, GatewayError, UpgradeRequired
from gateway.server.cycle import Application, Cycle, Message, render_fields
from gateway.server.head import Header
from gateway.server.websocket import INTERNAL_ERROR, SERVICE_RESTART, Session

if TYPE_CHECKING:
    from gateway.server.connection import ClientConnection

logger = logging.getLogger("gateway.server")

MAX_MESSAGE: Final = 2**20
IDLE_S: Final = 3600.0

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_WRITTEN_HERE: Final = frozenset(
    (b"connection", b"upgrade", b"content-length", b"transfer-encoding", b"sec-websocket-accept")
)


def accept_key(fields: Sequence[Header]) -> bytes:
    """The `Sec-WebSocket-Accept` that answers a head; BadRequest or UpgradeRequired for one that cannot be answered."""
    keys = [value for name, value in fields if name == b"sec-websocket-key"]
    versions = [value for name, value in fields if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        raise UpgradeRequired
    try:
        is_nonce = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        is_nonce = False
    if not is_nonce:
        raise BadRequest("Sec-WebSocket-Key is not one nonce of 16 bytes in base64.")
    return base64.b64encode(hashlib.sha1(keys[0] + _GUID).digest())  # noqa: S324 - RFC 6455 §4.2.2 says SHA-1


def subprotocols(fields: Sequence[Header]) -> list[str]:
    """What the client offers, in its order."""
    members = [
        member.strip() for name, value in fields if name == b"sec-websocket-protocol" for member in value.split(b",")
    ]
    return [member.decode("latin-1") for member in members if member]


class Handshake(Cycle):
    """One upgrade request in progress: a cycle until it is accepted, and the way to its session afterwards."""

    __slots__ = ("_accept", "_announced", "early", "session")

    def __init__(self, connection: ClientConnection, scope: Message, accept: bytes) -> None:
        """`scope` is that of a request; it becomes a websocket's."""
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = subprotocols(scope["headers"])
        scope["extensions"] = {"websocket.http.response": {}}
        # Refused, the connection closes: what came behind the head would be the other protocol's.
        super().__init__(connection, scope, keep_alive=False, expects_continue=False)
        self._accept = accept
        self._announced = False
        self.early = b""  # frames that came with the head
        self.session: Session | None = None

    async def run(self, application: Application) -> None:
        """Call the application; afterwards the WebSocket is closed, if it was opened."""
        try:
            await super().run(application)
        except asyncio.CancelledError:
            if self.session is not None:
                self.session.close(SERVICE_RESTART, "going_away")
            raise
        finally:
            if self.session is not None:
                self.session.close(INTERNAL_ERROR)

    def _fail(self, error: GatewayError) -> None:
        if self.session is None:
            super()._fail(error)
        elif not self.disconnected:
            logger.error("the application failed on an open WebSocket", exc_info=True)

    async def receive(self) -> Message:
        """`websocket.connect`, then messages."""
        if not self._announced:
            self._announced = True
            return {"type": "websocket.connect"}
        if self.session is None:
            raise RuntimeError("a WebSocket is accepted or refused before its first message is asked for")
        return await self.session.receive()

    async def send(self, message: Message) -> None:
        """Take the acceptance, a refusal, or a message."""
        kind: str = message["type"]
        if self.session is not None:
            await self.session.send(message)
        elif kind == "websocket.accept":
            self._switch(message)
        elif kind == "websocket.close":
            await super().send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await super().send({"type": "http.response.body"})
        else:
            await super().send({**message, "type": kind.removeprefix("websocket.")})

    def _switch(self, message: Message) -> None:
        """Answer 101 and hand the connection over. RuntimeError for what the client did not offer."""
        if self.disconnected:
            return
        chosen = message.get("subprotocol")
        if chosen is not None and chosen not in self.scope["subprotocols"]:
            raise RuntimeError("a subprotocol was chosen that the client does not offer")
        fields = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in _WRITTEN_HERE]
        if chosen is not None:
            fields.append((b"sec-websocket-protocol", chosen.encode("latin-1")))
        rendered = render_fields(fields)
        self._connection.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n%b\r\n" % (self._accept, rendered)
        )
        self.mark_done()
        self.session = self._connection.hand_over(
            max_message=message.get("max_message", MAX_MESSAGE), idle_s=message.get("idle_s", IDLE_S)
        )
        self.session.data_received(self.early)
        self.early = b""
