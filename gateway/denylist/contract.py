"""What a store is, whichever it is: the place that all gateways share and that backends write to.

Running, it keeps a replica current; it also serves the commands and the admin API, and routes that ask the store itself
on each request. Every call has the configured deadline. `gateway.denylist.store` opens the configured one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic
from typing import Final, Protocol

from gateway.denylist.grammar import Entry
from gateway.denylist.replica import Replica

_REST: Final = 20  # after a slice of a sweep, as a multiple of its length


class StoreError(Exception):
    """The store did not do what it was asked; the text is public: no address, no credential."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or did not answer in time: nothing is known about the outcome."""


class StoreRefused(StoreError):
    """The store answered that it will not: out of memory, no permission, read-only."""


class Store(Protocol):
    """A place for entries that several gateways share."""

    async def run(self) -> None:
        """Keep the replica current until cancelled; faults are retried, reported and counted, never raised."""

    async def add(self, entry: Entry) -> None:
        """Put an entry in, replacing one of the same key; returns once the store has it. Raises `StoreError`."""

    async def remove(self, key: str) -> bool:
        """Take an entry out (key without the prefix); False if there was none. Raises `StoreError`."""

    def entries(self, kind: str | None = None, issuer: str | None = None) -> AsyncIterator[Entry]:
        """All entries, or those of a kind or issuer, as the store has them, in no order. Raises `StoreError`."""

    async def lookup(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values the store itself has for these keys (without the prefix) now; None where there is no entry.

        Look-ups of one turn of the event loop share one round trip. Raises `StoreError`, at the latest after the
        timeout.
        """

    async def close(self) -> None:
        """Close what `run` does not own."""


async def sweep(replica: Replica, wall: Callable[[], float], interval_s: float = 30.0) -> None:
    """Free entries that have ended, every `interval_s`; part of each store's `run`.

    Redis reports expiry, mostly within a second; this is for what it misses, and for SQLite, which expires nothing.
    Nothing is in a hurry, so each slice is followed by a rest: requests do not notice a look through a million entries.
    """
    while True:
        await asyncio.sleep(interval_s)
        started = monotonic()
        for _ in replica.expire(wall()):
            await asyncio.sleep(_REST * (monotonic() - started))
            started = monotonic()
