"""One WebSocket with a client, after its handshake (RFC 6455): frames to ASGI messages and back, bounded and timed.

Built on the sans-I/O half of `websockets`, as uvicorn's own implementation is; that one keeps a queue without a bound,
takes any number of fragments, has three timers per connection and writes the query, which may hold a token, to the log.

    OPEN ──close sent or received, a broken frame──▶ CLOSING ──the client closes, or LINGER──▶ gone
      │ no sign of life for two pings: 1011   │ what still arrives is thrown away
      └ no message for the idle time: 1001    ▼

What is kept of a client: one message being put together (`max_message`), complete messages that nobody has asked for
(`QUEUED_BYTES`; beyond, the socket is not read), and one read of the socket that waits to be parsed. No extension is
negotiated: a compressed message of a kilobyte may stand for a megabyte, and each connection would keep a window.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Any, Final

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from gateway.server.listener import Listener

Message = dict[str, Any]  # ASGI messages are open mappings

QUEUED_BYTES: Final = 64 * 1024
QUEUED_MESSAGES: Final = 64
SLICE_BYTES: Final = 16 * 1024  # parsed at a time, so that a read full of tiny messages does not become objects at once
MAX_FRAGMENTS: Final = 4096  # of one message
PING_S: Final = 20.0  # without a sign of life until a ping is sent, and again until its answer is missed
MAX_REASON_BYTES: Final = 123  # RFC 6455 §5.5

NO_STATUS: Final = 1005  # a close frame without a code; never sent as a number
ABNORMAL: Final = 1006  # no close frame; never sent
GOING_AWAY: Final = 1001
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012

_quiet = logging.getLogger("gateway.server.websocket")
_quiet.setLevel(logging.WARNING)  # the library would log each connection, and on DEBUG each frame


class Session(asyncio.Protocol):
    """A WebSocket whose handshake is done. Takes the transport over; known to its `Listener` while open."""

    __slots__ = (
        "_closed",
        "_conn",
        "_fragments",
        "_heard",
        "_idle_ticks",
        "_is_text",
        "_listener",
        "_loop",
        "_messages",
        "_moved",
        "_offset",
        "_owes_pong",
        "_pending",
        "_ping_ticks",
        "_pinged",
        "_queued_bytes",
        "_read_paused",
        "_since",
        "_stalled",
        "_transport",
        "_waiter",
        "_writable",
        "_write_paused",
    )

    def __init__(
        self, listener: Listener, transport: asyncio.Transport, *, max_message: int, idle_s: float, read_paused: bool
    ) -> None:
        """`max_message` in bytes; `idle_s`: the longest time without a message, either way."""
        self._listener = listener
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._conn = ServerProtocol(state=OPEN, max_size=max_message, logger=_quiet)
        self._messages: deque[Message] = deque()
        self._queued_bytes = 0
        self._pending: bytes | bytearray = b""  # received and not parsed, from `_offset` on
        self._offset = 0
        self._fragments: list[bytes] = []
        self._is_text = False
        self._closed: tuple[int, str] | None = None  # how it ended, for whoever asks for the next message
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._read_paused = read_paused
        self._write_paused = False
        self._owes_pong = False  # a client that sends pings and reads no pongs is not read either
        tick = listener.tick
        self._heard = tick  # the last sign of life
        self._moved = tick  # the last message, either way
        self._pinged = False
        self._since = -1  # when the close was sent; -1 while open
        self._stalled = -1
        self._ping_ticks = math.ceil(PING_S / listener.interval_s)
        self._idle_ticks = math.ceil(idle_s / listener.interval_s)
        listener.connections.add(self)

    # --- the application's side --------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message; `websocket.disconnect` with code and reason after the last."""
        while not self._messages:
            if self._closed is not None:
                return {"type": "websocket.disconnect", "code": self._closed[0], "reason": self._closed[1]}
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._queued_bytes -= len(message.get("text") or message.get("bytes") or b"")
        self._parse()
        return message

    async def send(self, message: Message) -> None:
        """Take `websocket.send` or `websocket.close`; waits while the client does not read. Dropped after the end."""
        if message["type"] == "websocket.close":
            self.close(message.get("code", 1000), message.get("reason") or "")
            return
        if message["type"] != "websocket.send":
            raise RuntimeError(f"unexpected {message['type']}")
        if self._write_paused:
            if self._writable is None or self._writable.done():
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)
        if self._closed is not None:
            return
        text = message.get("text")
        if text is not None:
            self._conn.send_text(text.encode())
        else:
            self._conn.send_binary(message["bytes"])
        self._moved = self._listener.tick
        self._flush()

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye; the client has a moment to answer. `NO_STATUS` sends no code. Does nothing the second time."""
        if self._closed is not None:
            return
        if code == NO_STATUS:
            self._conn.send_close()
        else:
            self._conn.send_close(code, _bounded(reason))
        self._end(code, reason)
        self._flush()

    def shutdown(self) -> None:
        """Called when the process stops: this connection would not end by itself."""
        self.close(SERVICE_RESTART, "going_away")

    # --- the client's side -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard = self._listener.tick
        self._pinged = False
        if self._offset < len(self._pending):
            self._pending = bytearray(self._pending[self._offset :])
            self._pending += data
        else:
            self._pending = data
        self._offset = 0
        self._parse()

    def _parse(self) -> None:
        """Parse what is here as far as the queue has room; the socket is read while it has."""
        size = len(self._pending)
        while self._offset < size and self._has_room():
            piece = self._pending[self._offset : self._offset + SLICE_BYTES]
            self._offset += len(piece)
            self._conn.receive_data(piece)
            for event in self._conn.events_received():
                if isinstance(event, Frame):
                    self._take(event)
            fault = self._conn.parser_exc
            if fault is not None and self._closed is None:
                sent = self._conn.close_sent
                self._end(*((sent.code, sent.reason) if sent is not None else (ABNORMAL, "")))
            self._flush()
        if self._offset >= size:
            self._pending, self._offset = b"", 0
        self._adjust_reading()

    def _has_room(self) -> bool:
        if self._closed is not None:
            return True  # everything is thrown away
        return self._queued_bytes < QUEUED_BYTES and len(self._messages) < QUEUED_MESSAGES

    def _adjust_reading(self) -> None:
        paused = self._offset < len(self._pending) or not self._has_room() or self._owes_pong
        if paused is self._read_paused or self._transport.is_closing():
            return
        self._read_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._heard = self._listener.tick  # nothing could be heard meanwhile
            self._transport.resume_reading()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = self._conn.close_rcvd
            assert received is not None
            self._end(received.code, received.reason)
        elif frame.opcode is Opcode.PING:
            self._owes_pong = self._write_paused
        elif frame.opcode is not Opcode.PONG and self._closed is None:
            if frame.opcode is not Opcode.CONT:
                self._is_text = frame.opcode is Opcode.TEXT
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                self._complete()
            elif len(self._fragments) > MAX_FRAGMENTS:
                self._fail(TOO_BIG, "too many fragments")

    def _complete(self) -> None:
        fragments, self._fragments = self._fragments, []
        data = fragments[0] if len(fragments) == 1 else b"".join(fragments)
        message: Message = {"type": "websocket.receive"}
        if self._is_text:
            try:
                message["text"] = data.decode()
            except UnicodeDecodeError:
                self._fail(INVALID_DATA, "the text is not UTF-8")
                return
        else:
            message["bytes"] = data
        self._queued_bytes += len(data)
        self._moved = self._listener.tick
        self._messages.append(message)
        self._wake()

    def _fail(self, code: int, reason: str) -> None:
        self._conn.fail(code, reason)
        self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        """Note how it ended; the first end counts."""
        if self._closed is None:
            self._closed = (int(code), reason)
            self._fragments = []
            self._since = self._listener.tick
            self._owes_pong = False
            self._wake()
            self._release_writer()
            self._loop.call_soon(self._parse)  # throw away what waits, and read on for the client's answer

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _release_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _flush(self) -> None:
        for piece in self._conn.data_to_send():
            if piece:
                self._transport.write(piece)
            elif self._transport.can_write_eof():
                # Half-closed, and read for a moment: to close with bytes unread could destroy the close frame on its
                # way to the client.
                self._transport.write_eof()
            else:
                self._transport.close()

    # --- transport ---------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads slower than the application writes."""
        self._write_paused = True
        self._stalled = -1

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        self._release_writer()
        if self._owes_pong:
            self._owes_pong = False
            self._adjust_reading()

    def eof_received(self) -> None:
        """The client sends no more; with that the connection closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, with or without a goodbye."""
        self._listener.connections.discard(self)
        self._end(ABNORMAL, "")
        # Its generator and the library's object hold each other: thousands would wait for a full garbage collection,
        # which stops the loop.
        self._pending = b""
        self._offset = 0
        self._conn.parser.close()

    def check_time(self, tick: int) -> None:
        """Called by the sweep: end what has lasted too long, and ask for a sign of life."""
        listener = self._listener
        if self._since >= 0:
            if tick - self._since > listener.linger_ticks:
                self._transport.abort()
        elif self._write_paused:
            size = self._transport.get_write_buffer_size()
            if size != self._stalled:
                self._stalled = size
                self._heard = tick
            elif tick - self._heard > listener.idle_ticks:
                self._transport.abort()
        elif tick - self._moved > self._idle_ticks:
            self.close(GOING_AWAY, "idle")
        elif not self._read_paused and tick - self._heard > self._ping_ticks:
            self._heard = tick
            if self._pinged:
                self._fail(INTERNAL_ERROR, "no answer to a ping")
            else:
                self._pinged = True
                self._conn.send_ping(b"")
            self._flush()


def _bounded(reason: str) -> str:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
