"""Lines to a file or a pipe, from a thread of their own, so that neither can hold up anything else.

Owned by one `AccessLog`: the event loop gives a batch when the thread is idle, the thread writes it. A regular file is
opened for appending and opened again when it was moved away, so that log rotation needs no signal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
from collections.abc import Iterator, Sequence

logger = logging.getLogger("gateway.access_log")

ATOMIC_BYTES = select.PIPE_BUF  # what several processes may write to one pipe without mixing (POSIX write(2))
_STREAMS = {"stdout": 1, "stderr": 2}


class LineWriter:
    """One destination. `give` and `is_idle` belong to the event loop, `run` to the thread."""

    def __init__(self, destination: str) -> None:
        """`destination` is `stdout`, `stderr` or a file's path."""
        self._path = None if destination in _STREAMS else destination
        self._fd = _STREAMS.get(destination, -1)
        self._batches: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._broken = False  # the last write failed; said once, not for every batch
        self.lost = 0  # lines that could not be written

    @property
    def is_idle(self) -> bool:
        """Whether the last batch is done with."""
        return self._idle.is_set()

    def give(self, lines: Sequence[str]) -> None:
        """Hand a batch to the thread; only while it is idle, so that at most one batch is under way."""
        self._idle.clear()
        self._batches.put(lines)

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the batch under way, then let the thread end when it can."""
        self._idle.wait(timeout)
        self._batches.put(None)

    def run(self) -> None:
        """Write batches until closed. Never raises: what cannot be written is counted."""
        while (lines := self._batches.get()) is not None:
            try:
                self._write(lines)
            finally:
                self._idle.set()
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)

    def _write(self, lines: Sequence[str]) -> None:
        written = 0
        try:
            self._follow_rotation()
            for count, block in self._blocks(lines):
                self._write_all(block)
                written += count
        except OSError as exc:
            self.lost += len(lines) - written
            if not self._broken:
                logger.error("access log lines are being lost: %s", exc)
            self._broken = True
        else:
            self._broken = False

    def _follow_rotation(self) -> None:
        if self._path is None:
            return
        with contextlib.suppress(FileNotFoundError):
            if self._fd >= 0 and os.path.samestat(os.fstat(self._fd), os.stat(self._path)):
                return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _blocks(self, lines: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """The lines as (count, bytes): all at once for a file, in atomic pieces for a pipe that workers share."""
        if self._path is not None:
            yield len(lines), "".join(lines).encode("ascii")
            return
        block: list[str] = []
        size = 0
        for line in lines:
            if block and size + len(line) > ATOMIC_BYTES:
                yield len(block), "".join(block).encode("ascii")
                block, size = [], 0
            block.append(line)
            size += len(line)
        if block:
            yield len(block), "".join(block).encode("ascii")

    def _write_all(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                # Somebody made the shared stream non-blocking: wait here, in the thread.
                select.select((), (self._fd,), ())
