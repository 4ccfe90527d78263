"""A coroutine driven without the detours of a task: what every request runs on.

An `asyncio.Task` takes its first step on the loop's next turn, and each wake-up of it is two more turns: the future's
and its own. For a request that waits exactly once, for the upstream's answer, these turns and the bookkeeping around
them cost a tenth of the whole. A `Strand` keeps everything a task promises (its own context, cancellation,
`asyncio.timeout` and task groups inside it, exceptions that are never lost) and leaves out the detours:

    start ──▶ step ──awaits a future──▶ suspended ──future done──▶ step ──▶ … ──▶ ended
                │                                                   ▲
                └──awaits a Bell──▶ parked ──ring()─────────────────┘   at once, inside the call of `ring`

A step is taken at once only if nothing else of ours is being stepped; otherwise it waits for the loop's next turn. So a
strand never runs inside another or inside a task, and no chain of strands that wake one another goes deeper than one.

The loop learns of a strand by the functions that asyncio documents for implementations of tasks ("Extending asyncio").
It is not registered among `asyncio.all_tasks()`: whoever starts strands keeps them in a set, as the listener does.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, CancelledError
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    PlainProtocol = asyncio.Protocol
else:
    # What a protocol of ours descends from. Event loops ask for its methods, never for its ancestry, and a compiled
    # class can only descend from compiled ones.
    PlainProtocol = object

_PARKED: Final = object()  # what a strand gets from its coroutine when a bell will resume it


class _Stepping:
    """Which strand is being stepped: what `current_task` would say, if it is a strand, at a tenth of its cost."""

    __slots__ = ("strand",)

    def __init__(self) -> None:
        self.strand: Strand | None = None


_STEPPING: Final = _Stepping()


class Strand:
    """One coroutine in progress. Known to the set it was given from `start` to its end."""

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_cancelling",
        "_context",
        "_coroutine",
        "_ended",
        "_is_parked",
        "_loop",
        "_must_cancel",
        "_strands",
    )

    def __init__(self, work: Coroutine[Any, Any, None], loop: AbstractEventLoop, strands: set[Strand]) -> None:
        """`work` runs in a copy of the present context. Nothing happens before `start`."""
        self._coroutine: Coroutine[Any, Any, None] | None = work
        self._loop = loop
        self._strands = strands
        self._context = copy_context()
        self._awaited: asyncio.Future[Any] | None = None
        self._is_parked = False
        self._must_cancel = False
        self._cancelling = 0
        self._ended: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Take the first step, at once if it may be."""
        self._strands.add(self)
        self._context.run(self._step)

    def start_soon(self) -> None:
        """Take the first step on the loop's next turn: for callers in the middle of something."""
        self._strands.add(self)
        self._loop.call_soon(self._step, context=self._context)

    def resume(self) -> None:
        """Go on after a `Bell`; does nothing unless parked."""
        if self._is_parked:
            self._is_parked = False
            self._context.run(self._step)

    def _step(self, _future: object = None) -> None:
        work, loop = self._coroutine, self._loop
        if work is None:
            return
        try:
            _enter_task(loop, self)  # type: ignore[arg-type]  # as much of a task as asyncio asks for
        except RuntimeError:  # another one is being stepped
            loop.call_soon(self._step, context=self._context)
            return
        stepping: _Stepping = _STEPPING
        stepping.strand = self
        self._awaited = None
        try:
            if self._must_cancel:
                self._must_cancel = False
                self._wait_for(work.throw(CancelledError()))
            else:
                # A future that failed, or was cancelled, says so itself when its await goes on.
                awaited = work.send(None)
                if awaited is _PARKED and not self._must_cancel:
                    self._is_parked = True
                else:
                    self._wait_for(awaited)
        except (StopIteration, CancelledError):
            self._end()
        except BaseException as exc:
            self._end()
            if not isinstance(exc, Exception):
                raise  # the interpreter is to stop
            loop.call_exception_handler({"message": "a strand failed", "exception": exc})
        finally:
            stepping.strand = None
            _leave_task(loop, self)  # type: ignore[arg-type]  # as above

    def _wait_for(self, awaited: Any) -> None:
        """Arrange for the next step; `awaited` is what the coroutine's innermost await has yielded."""
        if awaited is None or (awaited is _PARKED and self._must_cancel):
            self._loop.call_soon(self._step, context=self._context)
        elif awaited is _PARKED:
            self._is_parked = True
        elif getattr(awaited, "_asyncio_future_blocking", None):
            awaited._asyncio_future_blocking = False
            awaited.add_done_callback(self._step, context=self._context)
            self._awaited = awaited
            if self._must_cancel and awaited.cancel():
                self._must_cancel = False
        else:
            raise RuntimeError(f"a strand can await futures and bells, not {awaited!r}")

    def _end(self) -> None:
        self._coroutine = None
        self._strands.discard(self)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # --- what asyncio, and whoever started it, ask of a task ----------------------------------------------------------

    def cancel(self, msg: object = None) -> bool:
        """Raise `CancelledError` at the await it stands at, on the loop's next turn; False if it has ended."""
        if self._coroutine is None:
            return False
        self._cancelling += 1
        if self._awaited is not None and self._awaited.cancel(msg):
            return True
        self._must_cancel = True
        if self._is_parked:
            self._is_parked = False
            self._loop.call_soon(self._step, context=self._context)
        return True

    def cancelling(self) -> int:
        """How many cancellations are not taken back."""
        return self._cancelling

    def uncancel(self) -> int:
        """Take one cancellation back; how many are left."""
        if self._cancelling:
            self._cancelling -= 1
            if not self._cancelling:
                self._must_cancel = False
        return self._cancelling

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._coroutine is None

    def __await__(self) -> Generator[Any, None, None]:
        """Wait for the end, whichever it is."""
        if self._coroutine is not None:
            if self._ended is None or self._ended.done():
                self._ended = self._loop.create_future()
            yield from self._ended


class Bell:
    """What one strand or task waits for until it is rung. Rung without anybody waiting, it does nothing."""

    __slots__ = ("_future", "_loop", "_strand")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._strand: Strand | None = None
        self._future: asyncio.Future[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits."""
        return self._strand is not None or self._future is not None

    def wait(self) -> Bell:
        """Wait for the next `ring`: what it gives is to be awaited. One at a time."""
        return self

    # Instead of a coroutine, or of `types.coroutine`, whose wrapper asks abstract base classes each time.
    def __await__(self) -> Generator[Any, Any, None]:
        stepping: _Stepping = _STEPPING
        waiting = stepping.strand
        try:
            # Two loops in two threads may take each other's place there; the one whose loop it is not waits as a task.
            if waiting is not None and waiting._loop is self._loop:
                self._strand = waiting
                yield _PARKED
            else:
                self._future = self._loop.create_future()
                yield from self._future
        finally:
            self._strand = self._future = None

    def ring(self) -> None:
        """Let who waits go on; a strand goes on before this returns, so let it be the last thing a caller does."""
        if self._strand is not None:
            self._strand.resume()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)
