"""A store in memory whose faults are told to it, for what stands above stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gateway.denylist.contract import StoreUnavailable
from gateway.denylist.grammar import Entry, parse_key
from gateway.denylist.lookups import Lookups


class ScriptedStore:
    """A store whose answers are written down; it notes each round trip."""

    def __init__(self, values: dict[str, bytes] | None = None, *, silent: bool = False) -> None:
        self.values = values or {}
        self.lives: dict[str, float | None] = {}  # seconds, as written
        self.silent = silent
        self.broken = False  # takes nothing
        self.trips: list[list[str]] = []
        self._lookups = Lookups(self._read, 0.05)

    async def _read(self, keys: list[str]) -> dict[str, bytes | None]:
        self.trips.append(keys)
        if self.broken:
            raise StoreUnavailable("the store is not available")
        if self.silent:
            await asyncio.Event().wait()
        return {key: self.values.get(key) for key in keys}

    async def lookup(self, keys: Sequence[str]) -> list[bytes | None]:
        """As any store."""
        return await self._lookups.ask(keys)

    async def run(self) -> None:
        """Nothing beside."""

    async def add(self, entry: Entry) -> None:
        """Takes it, unless it is broken."""
        if self.broken:
            raise StoreUnavailable("the store is not available")
        self.values[entry.key] = entry.value.encode()
        self.lives[entry.key] = entry.ttl_s

    async def remove(self, key: str) -> bool:
        """Gives it up, unless it is broken."""
        if self.broken:
            raise StoreUnavailable("the store is not available")
        return self.values.pop(key, None) is not None

    async def entries(self, kind: str | None = None, issuer: str | None = None) -> AsyncIterator[Entry]:
        """All it has, of the kind and issuer."""
        if self.broken:
            raise StoreUnavailable("the store is not available")
        for key, value in self.values.items():
            parsed = parse_key(key)
            if parsed is not None and kind in (None, parsed[0]) and issuer in (None, parsed[1]):
                yield Entry(*parsed, value.decode(), self.lives.get(key))

    async def close(self) -> None:
        """Nothing to close."""
