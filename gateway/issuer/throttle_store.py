"""Failures counted in the issuer's store: by themselves, or while Redis is missed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import Throttle as Config
from gateway.issuer.store import Database
from gateway.issuer.store.tables import throttles


def block_s(failures: int, free: int, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row."""
    return 0.0 if failures <= free else min(2.0 ** min(failures - free - 1, 30), longest_s)


class StoreCounts:
    """Counts in the table `throttles`."""

    def __init__(self, database: Database, config: Config) -> None:
        self._database = database
        self._config = config

    async def enter(self, keys: Sequence[str], free: Sequence[int], now: float) -> float:
        """Seconds to wait; 0.0: nobody has to, and the attempt counts on every key."""
        async with self._database.write() as connection:
            for key in sorted(keys):
                await self._database.lock(connection, key)
            found = await connection.execute(select(throttles).where(throttles.c.key.in_(keys)))
            rows = {row.key: row for row in found}
            wait_s = max((row.blocked_until - now for row in rows.values()), default=0.0)
            if wait_s > 0:
                return float(wait_s)
            for key, allowed in zip(keys, free, strict=True):
                row = rows.get(key)
                is_fresh = row is None or now - row.last_at > self._config.forget
                failures = 1 if row is None or is_fresh else row.failures + 1
                until = now + block_s(failures, allowed, self._config.longest)
                values = {"failures": failures, "last_at": now, "blocked_until": until}
                if row is None:
                    await connection.execute(insert(throttles).values(key=key, **values))
                else:
                    await connection.execute(update(throttles).where(throttles.c.key == key).values(**values))
        return 0.0

    async def take_back(self, keys: Sequence[str], anew: Sequence[bool]) -> None:
        """One failure less for each key, or none at all (`anew`), and no block."""
        async with self._database.write() as connection:
            for key, is_anew in sorted(zip(keys, anew, strict=True)):
                if is_anew:
                    await connection.execute(delete(throttles).where(throttles.c.key == key))
                    continue
                less = {"failures": throttles.c.failures - 1, "blocked_until": 0.0}
                where = (throttles.c.key == key, throttles.c.failures > 0)
                await connection.execute(update(throttles).where(*where).values(**less))

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget what is too old to count."""
        old = now - self._config.forget
        await connection.execute(delete(throttles).where(throttles.c.last_at < old, throttles.c.blocked_until < now))
