"""Notices that the YAML file has changed, however it is replaced: edited in place, renamed over, or a symlink swapped.

    read ──same──▶ wait a second (or a poke) ──▶ read
      └──differs──▶ read again until two readings agree ──▶ on_change() ──▶ wait …

The content decides, not the times: a ConfigMap's swapped symlink keeps old times, and an editor may save the same text.
Two equal readings come before a change is believed: a file that is still being written may be valid by accident.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

_log = logging.getLogger("gateway.config")
_READINGS = 20  # at most, before a file that never rests is taken as it is


class ConfigWatch:
    """Calls `on_change` when the file's content differs from what it was; owner of nothing but its last digest."""

    def __init__(
        self,
        path: Path,
        on_change: Callable[[], Awaitable[None]],
        *,
        interval_s: float = 1.0,
        settle_s: float = 0.05,
    ) -> None:
        """`interval_s` between two looks; `settle_s` between the two readings that must agree."""
        self._path = path
        self._on_change = on_change
        self._interval_s = interval_s
        self._settle_s = settle_s
        self._poked = asyncio.Event()
        # Now, not when `run` begins: a change between the first load and then must not be missed.
        self._seen = _digest(path)

    def poke(self) -> None:
        """Load again at once, changed or not: what the file refers to may have changed (SIGHUP)."""
        self._poked.set()

    async def run(self) -> None:
        """Watches until cancelled. A failing `on_change` is logged, and the next change is reported again."""
        while True:
            was_poked = await self._wait()
            found = await asyncio.to_thread(_digest, self._path)
            if found == self._seen and not was_poked:
                continue
            self._seen = await self._settled(found)
            try:
                await self._on_change()
            except Exception:  # a watch that ends would make every later change unnoticed
                _log.exception("the changed configuration could not be applied")

    async def _wait(self) -> bool:
        """A look is due; True if somebody asked for it."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._poked.wait()
        except TimeoutError:
            return False
        self._poked.clear()
        return True

    async def _settled(self, found: bytes) -> bytes:
        for _ in range(_READINGS):
            await asyncio.sleep(self._settle_s)
            again = await asyncio.to_thread(_digest, self._path)
            if again == found:
                break
            found = again
        return found


def _digest(path: Path) -> bytes:
    """What the file says now; empty while it is missing (between unlink and rename) or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
