"""A long body from one socket to another without passing through this process.

    source ──splice──▶ pipe ──splice──▶ sink

Of a body of known length only the bytes are counted here, so the kernel may move them by itself (splice(2)): what came
out of one connection goes into the other without being copied, let alone twice. Everything else about the body stays
where it was. Whoever opens a conduit leaves the end of the body to the ordinary way, and when anything looks unusual
(the source has ended, a call fails) the conduit says that it is done, and the ordinary way finds out what it is.

The sockets stay their transports': while a conduit is open the source's is paused and the sink's has nothing to write.
Readiness is watched by duplicates of the descriptors, because a loop lets nobody else watch those of its transports.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

LONG_BYTES: Final = 1024 * 1024  # of a body still to come: below, opening a conduit costs more than it saves
TAIL_BYTES: Final = 64 * 1024  # of a body's end, which always goes the ordinary way
MAX_OPEN: Final = 256  # at once; each holds four descriptors and a pipe, what is beyond goes the ordinary way
HELD_BYTES: Final = 1024 * 1024  # in the pipe, at the most: in kernel memory that came with the source's packets
PATIENCE_S: Final = 0.005  # for a pipe full to come together
_TURN_BYTES: Final = 2 * 1024 * 1024  # moved in one turn of the loop, at the most

_SET_PIPE_SIZE: Final = 1031  # F_SETPIPE_SZ, fcntl(2)
_NO_WAITING: Final = 3  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK, splice(2)


def open_conduit(source: Transport, sink: Transport, length: int, loop: AbstractEventLoop) -> Conduit | None:
    """A conduit for `length` bytes, at the least `LONG_BYTES`; None where there can be none just now.

    That is: with TLS on either side, without Linux, while the sink has bytes to write that would be overtaken, and when
    enough conduits are open.
    """
    if sys.platform != "linux" or length < LONG_BYTES or Conduit.opened >= MAX_OPEN or not is_plain(source):
        return None
    if not is_plain(sink) or sink.get_write_buffer_size() or sink.is_closing() or source.is_closing():
        return None
    try:
        return Conduit(source, sink, length, loop)
    except OSError:
        return None


def is_plain(transport: Transport) -> bool:
    """Whether what the transport writes is what goes over its socket."""
    return transport.get_extra_info("sslcontext") is None and transport.get_extra_info("socket") is not None


def _duplicate(transport: Transport, undo: contextlib.ExitStack) -> socket.socket:
    duplicate = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    undo.callback(duplicate.close)
    return duplicate


def _splice(source: int, sink: int, most: int) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "splice is Linux's")
    return os.splice(source, sink, most, flags=_NO_WAITING)


class Conduit:
    """An open way for some bytes. Owned by the request that opened it, which closes it whatever happens."""

    __slots__ = (
        "_entry",
        "_exit",
        "_has_come",
        "_loop",
        "_patience",
        "_sink",
        "_sink_socket",
        "_sink_transport",
        "_source",
        "_source_socket",
        "_source_transport",
        "_wanted",
        "given",
        "held",
        "left",
        "taken",
    )

    opened: ClassVar[int] = 0  # now, in this process

    def __init__(self, source: Transport, sink: Transport, length: int, loop: AbstractEventLoop) -> None:
        """Up to `length` bytes. OSError when there are no descriptors left."""
        self._loop = loop
        self._source_transport = source
        self._sink_transport = sink
        self.left = length  # still to be taken from the source
        self.taken = 0  # from the source
        self.given = 0  # to the sink
        self.held = 0  # in the pipe
        self._has_come = False  # anything, at the last look
        self._wanted = 1  # bytes, before the source counts as readable
        self._patience: TimerHandle | None = None
        with contextlib.ExitStack() as undo:
            self._source_socket = _duplicate(source, undo)
            self._sink_socket = _duplicate(sink, undo)
            self._exit, self._entry = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            undo.pop_all()
        self._source = self._source_socket.fileno()
        self._sink = self._sink_socket.fileno()
        with contextlib.suppress(OSError):  # a user's share of pipes' memory is used up: then a small one
            fcntl.fcntl(self._entry, _SET_PIPE_SIZE, HELD_BYTES)
        source.pause_reading()
        Conduit.opened += 1

    def move(self) -> int:
        """Move what can be moved without waiting, at most a few MiB, and tell how many bytes the sink took.

        Afterwards the sink is full if any are `held`; otherwise the source is empty, or nothing is `left`.
        """
        given, taken = self.given, self.taken
        while self.given - given < _TURN_BYTES:
            if self.left and self.held < HELD_BYTES:
                self._take()
            if not self.held or not self._give():
                break
        self._has_come = self.taken > taken
        return self.given - given

    def _take(self) -> None:
        try:
            count = _splice(self._source, self._entry, min(self.left, HELD_BYTES - self.held))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self.taken += count
            self.held += count
            self.left -= count
        else:
            self.left = 0  # it has ended, or cannot be spliced: nothing was taken, so its transport will see the same

    def _give(self) -> bool:
        """Whether the sink took anything."""
        try:
            count = _splice(self._exit, self._sink, self.held)
        except BlockingIOError:
            return False
        except OSError:
            # What is in the pipe is lost, so nothing may follow it.
            self._sink_transport.abort()
            self.left = self.held = 0
            return False
        self.given += count
        self.held -= count
        return count > 0

    def watch_source(self, call: Callable[[], object]) -> None:
        """Call when there is something to take, until `unwatch_source`.

        While bytes keep coming that is a pipe full, or what has come after a moment: who sends and who receives work
        longer at a stretch then. After a silence it is the first byte.
        """
        self._want(min(self.left, HELD_BYTES) if self._has_come else 1)
        if self._wanted > 1:
            self._patience = self._loop.call_later(PATIENCE_S, call)
        self._loop.add_reader(self._source, call)

    def _want(self, count: int) -> None:
        if count != self._wanted:
            with contextlib.suppress(OSError):
                self._source_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
                self._wanted = count

    def unwatch_source(self) -> None:
        """No more."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._loop.remove_reader(self._source)

    def watch_sink(self, call: Callable[[], object]) -> None:
        """Call when something can be given, until `unwatch_sink`."""
        self._loop.add_writer(self._sink, call)

    def unwatch_sink(self) -> None:
        """No more."""
        self._loop.remove_writer(self._sink)

    def close(self) -> None:
        """Give the source back to its transport. What is still held is lost."""
        Conduit.opened -= 1
        self._want(1)
        self._source_socket.close()
        self._sink_socket.close()
        os.close(self._entry)
        os.close(self._exit)
        if not self._source_transport.is_closing():
            self._source_transport.resume_reading()


class Pouring(Protocol):
    """What `receive` and `send` belong to, if that is a server whose connections a conduit can be led to."""

    async def conduit_from(self, source: Transport, length: int) -> Conduit | None:
        """A conduit to the client for most of the next `length` bytes of the response; None if that cannot be."""

    def poured_in(self, conduit: Conduit) -> None:
        """This conduit is closed; what it gave was a part of the response's body."""

    async def until_taken(self, conduit: Conduit) -> None:
        """Wait until the client can take more."""

    def conduit_to(self, sink: Transport) -> Conduit | None:
        """A conduit from the client for most of what is to come of the request's body; None if that cannot be."""

    def poured_out(self, conduit: Conduit) -> None:
        """This conduit is closed; what it took was a part of the request's body."""

    async def until_readable(self, conduit: Conduit) -> bool:
        """Wait until the client has sent more; False if it has nothing more to say."""


def pouring(call: Callable[..., object]) -> Pouring | None:
    """The server whose method this is; None when somebody stands between, who wants to see what passes."""
    owner: Pouring | None = getattr(call, "__self__", None)
    return owner if hasattr(owner, "conduit_from") else None
