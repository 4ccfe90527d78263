"""What a turn of the event loop has to say to other processes, said at its end.

A turn handles everything that has arrived meanwhile, often dozens of messages. Whoever an answer goes to is asleep by
then, and is woken by it. If answers go out one by one, with a token to verify between two of them, their receiver falls
asleep in between and is woken for each; and to wake a process on another processor costs as much as half of what a
request costs here. Answers that leave together wake it once.

    write ──▶ held ──the turn ends, or enough is held──▶ the transport
      └── long, or more than is worth holding: at once, after what is held

Bytes of one transport never overtake one another, as long as nobody writes past its `Outgoing`.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Transport
from typing import Final

HELD_BYTES: Final = 16 * 1024  # of one transport: what is more is worth a system call of its own
HELD_WRITES: Final = 32  # of one outbox: a turn may be long, and the first of them has waited for all of it


class Outbox:
    """Those transports of one owner that have something to send when the turn ends. Owned by one event loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Outgoing] = []

    def add(self, outgoing: Outgoing, loop: AbstractEventLoop) -> None:
        """Let what `outgoing` holds out soon; not to be added again before that."""
        waiting: list[Outgoing] = self._waiting
        if not waiting:
            loop.call_soon(self.empty)
        waiting.append(outgoing)
        if len(waiting) >= HELD_WRITES:
            self.empty()

    def empty(self) -> None:
        """Let everything out."""
        waiting: list[Outgoing] = self._waiting
        self._waiting = []
        outgoing: Outgoing
        for outgoing in waiting:
            try:
                outgoing.let_out()
            except Exception as exc:  # whatever a transport does, the others have answers waiting
                outgoing._loop.call_exception_handler({"message": "a transport took no bytes", "exception": exc})


class Outgoing:
    """The way to one transport. Owner: the protocol whose transport it is."""

    __slots__ = ("_held", "_loop", "_outbox", "_transport")

    def __init__(self, transport: Transport, outbox: Outbox, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._outbox: Outbox = outbox
        self._loop = loop
        self._held: bytes = b""

    def write(self, data: bytes) -> None:
        """Send bytes, at the latest when the turn ends; a transport that is closed by then takes none."""
        held: bytes = self._held
        if len(held) + len(data) > HELD_BYTES:
            self.let_out()
            self._transport.write(data)
        elif held:
            self._held = held + data
        elif data:
            self._held = data
            outbox: Outbox = self._outbox
            outbox.add(self, self._loop)

    def let_out(self) -> None:
        """Give what is held to the transport: before anything else is done with it."""
        held: bytes = self._held
        if held:
            self._held = b""
            if not self._transport.is_closing():
                self._transport.write(held)
