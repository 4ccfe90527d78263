"""The gateway's side of a hashing process: asks, waits with a deadline, starts another one where one has died.

Why not in a thread: even though argon2 lets other threads run, its thread needs Python's lock before and after. At low
priority it may be held up while it has that lock, by another hash on the same core, and the event loop with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from gateway.errors import Overloaded

logger = logging.getLogger("gateway.issuer")

_DEADLINE_S = 60.0
_SCRIPT = Path(__file__).with_name("hashing.py")


class HashingProcess:
    """One process, started with the first question; one thread asks at a time. Owned by whoever calls `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def ask(self, question: dict[str, Any]) -> Any:
        """The answer. Raises Overloaded if two processes in a row do not give one."""
        line = json.dumps(question).encode() + b"\n"
        for _ in range(2):
            process = self._running()
            answer = _converse(process, line)
            if answer:
                return json.loads(answer)
            self._end(process)
        raise Overloaded("Passwords cannot be checked at the moment; try again later.", cause="no hashing process")

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise Overloaded("The gateway is being stopped.")
            if self._process is None:
                # -P: the modules beside the script stand in nobody's way.
                command = [sys.executable, "-P", str(_SCRIPT)]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ours
            return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        with self._lock:
            if self._process is process:
                self._process = None
                _close_pipes(process)
            if not self._is_closed:
                logger.warning("a hashing process ended with %s; another one takes its place", process.returncode)

    def close(self) -> None:
        """End the process, also in the middle of a hash; nothing can be asked afterwards."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                _close_pipes(self._process)


def _converse(process: subprocess.Popen[bytes], line: bytes) -> bytes:
    """One answer; b"" if it does not come."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        return process.stdout.readline() if poll.poll(_DEADLINE_S * 1000) else b""
    except (OSError, ValueError):  # it has died, or was closed meanwhile
        return b""


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # what was not flushed has nowhere to go
            pipe.close()
