"""Back-off for those who guess: per account name, known or not, and per address, shared by every gateway of the store.

An attempt counts as failed before the password is looked at, so that parallel guesses cannot pass together; success
takes it back. After the free failures each further one blocks for 1, 2, 4 … seconds, up to the longest. A block of an
account never touches its sessions: whoever is signed in stays so.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import Throttle as Config
from gateway.errors import RateLimited
from gateway.issuer.store import Database
from gateway.issuer.store.tables import throttles


def account_key(name: str) -> str:
    """The key of an account name as compared; a hash, because anything can be typed."""
    return "account:" + hashlib.sha256(name.encode()).hexdigest()


def address_key(address: str) -> str:
    """The key of an address: one IPv4 address, or the /64 that a single IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "address:unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"


def block_s(failures: int, free: int, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row."""
    return 0.0 if failures <= free else min(2.0 ** min(failures - free - 1, 30), longest_s)


class Throttle:
    """Counts attempts in the issuer's store."""

    def __init__(self, database: Database, config: Config) -> None:
        self._database = database
        self._config = config
        self.refused = 0

    async def enter(self, account: str | None, address: str, now: float) -> None:
        """Count an attempt on this account name from this address. RateLimited while either is blocked."""
        free = {} if account is None else {account_key(account): self._config.account}
        free[address_key(address)] = self._config.address
        async with self._database.write() as connection:
            waits = [await self._count(connection, key, free[key], now) for key in sorted(free)]
        if max(waits) > 0:
            self.refused += 1
            error = RateLimited("Too many attempts; wait before the next one.")
            error.retry_after_s = math.ceil(max(waits))
            raise error

    async def _count(self, connection: AsyncConnection, key: str, free: int, now: float) -> float:
        await self._database.lock(connection, key)
        row = (await connection.execute(select(throttles).where(throttles.c.key == key))).one_or_none()
        if row is not None and now < row.blocked_until:
            return float(row.blocked_until - now)
        is_fresh = row is None or now - row.last_at > self._config.forget
        failures = 1 if row is None or is_fresh else row.failures + 1
        values = {
            "failures": failures,
            "last_at": now,
            "blocked_until": now + block_s(failures, free, self._config.longest),
        }
        if row is None:
            await connection.execute(insert(throttles).values(key=key, **values))
        else:
            await connection.execute(update(throttles).where(throttles.c.key == key).values(**values))
        return 0.0

    async def succeed(self, connection: AsyncConnection, account: str, address: str) -> None:
        """Take the attempt back: the account starts anew, the address has one failure less."""
        await connection.execute(delete(throttles).where(throttles.c.key == account_key(account)))
        of_address = throttles.c.key == address_key(address)
        await connection.execute(
            update(throttles)
            .where(of_address, throttles.c.failures > 0)
            .values(failures=throttles.c.failures - 1, blocked_until=0.0)
        )

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget what is too old to count."""
        old = now - self._config.forget
        await connection.execute(delete(throttles).where(throttles.c.last_at < old, throttles.c.blocked_until < now))
