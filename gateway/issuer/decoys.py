"""Hashes that stand in for accounts that do not exist, so that a name is compared as slowly as if it had one.

The configured cost changes now and then, and each account follows at its user's next log-in: until then old accounts
are quicker or slower to compare than new ones. So the decoys have the costs that the accounts have, in the same shares,
and a name has always the same one: who measures an unknown name sees what an old or a new account would show.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections import Counter

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.issuer.passwords import HashingPool
from gateway.issuer.store.tables import users

_SAMPLE = 1000  # accounts looked at; ids are random, so the first are as good as any
_SALT_BYTES, _DIGEST_BYTES = 16, 32


class Decoys:
    """The decoys of the moment; `observe` now and then, since accounts change."""

    def __init__(self, pool: HashingPool, key: bytes) -> None:
        """`key` is shared by the gateways of one store, so that a name has the same decoy at each."""
        self._pool = pool
        self._key = key
        self._made: dict[str, str] = {}  # cost → decoy
        self._shares: list[tuple[float, str]] = [(1.0, self._decoy(pool.cost))]  # up to here in [0, 1] → decoy

    async def observe(self, connection: AsyncConnection) -> None:
        """Look at which costs the accounts have."""
        query = select(users.c.password_hash).order_by(users.c.id).limit(_SAMPLE)
        found = (await connection.execute(query)).scalars()
        counts = Counter(text.rpartition("$")[0].rpartition("$")[0] for text in found) or Counter({self._pool.cost: 1})
        # The present cost last: as old accounts follow, names change over to it one by one, and never back.
        costs = sorted(counts, key=lambda cost: (cost == self._pool.cost, cost))
        total, passed = counts.total(), 0
        self._shares = []
        for cost in costs:
            passed += counts[cost]
            self._shares.append((passed / total, self._decoy(cost)))

    def of(self, name: str) -> str:
        """The decoy of a name as compared."""
        place = int.from_bytes(hmac.digest(self._key, name.encode("utf-8", "surrogatepass"), "sha256")[:6]) / 2**48
        return next(decoy for upto, decoy in self._shares if place < upto)

    def _decoy(self, cost: str) -> str:
        if cost not in self._made:
            # Nobody knows a password with this digest, nor whether there is one.
            self._made[cost] = f"{cost}${_b64(_SALT_BYTES)}${_b64(_DIGEST_BYTES)}"
        return self._made[cost]


def _b64(size: int) -> str:
    return base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()
