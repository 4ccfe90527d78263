"""Back-off for those who guess: per account name, known or not, and per address, shared by every gateway.

An attempt counts as failed before the password is looked at, so that parallel guesses cannot pass together; success
takes it back. After the free failures each further one blocks for 1, 2, 4 … seconds, up to the longest. An attempt that
is refused is not made and does not count. A block of an account never touches its sessions: whoever is signed in stays
so.

The counts are kept in the denylist's Redis if there is one, else in the issuer's store. While Redis does not answer,
the store counts: from zero, so a guesser gets the free failures once more per outage, and nobody is locked out by it.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import Throttle as Config
from gateway.errors import RateLimited
from gateway.issuer.store import Database
from gateway.issuer.throttle_store import StoreCounts
from gateway.telemetry.sample import Sample

logger = logging.getLogger("gateway.issuer")


class CountsUnavailable(Exception):
    """The counts cannot be reached; the text is fit for a log."""


class Counts(Protocol):
    """Where the failures are counted, by key."""

    async def enter(self, keys: Sequence[str], free: Sequence[int], now: float) -> float:
        """Seconds to wait; 0.0: nobody has to, and the attempt counts on every key. Raises CountsUnavailable."""

    async def take_back(self, keys: Sequence[str], anew: Sequence[bool]) -> None:
        """One failure less for each key, or none at all (`anew`), and no block. Raises CountsUnavailable."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that was let in: its keys (an account's first, if it has one), and who has counted it."""

    keys: tuple[str, ...]
    counts: Counts
    has_account: bool


class Throttle:
    """Counts attempts, shared if that is possible."""

    def __init__(self, database: Database, config: Config, key: bytes, shared: Counts | None = None) -> None:
        """`key` hides names and addresses from those who read the counts; all gateways of one store have the same."""
        self._config = config
        self._key = key
        self._own = StoreCounts(database, config)
        self._shared = shared
        self._is_failing = False
        self.refused = 0
        self.fallbacks = 0

    async def enter(self, account: str | None, address: str, now: float) -> Attempt:
        """Count an attempt on this account name from this address. RateLimited while either is blocked."""
        keys, free = [self._hidden("address", network_of(address))], [self._config.address]
        if account is not None:
            keys.insert(0, self._hidden("account", account))
            free.insert(0, self._config.account)
        counts, wait_s = await self._count(keys, free, now)
        if wait_s > 0:
            self.refused += 1
            error = RateLimited("Too many attempts; wait before the next one.")
            error.retry_after_s = math.ceil(wait_s)
            raise error
        return Attempt(tuple(keys), counts, account is not None)

    async def _count(self, keys: Sequence[str], free: Sequence[int], now: float) -> tuple[Counts, float]:
        if self._shared is not None:
            try:
                wait_s = await self._shared.enter(keys, free, now)
            except CountsUnavailable as fault:
                self.fallbacks += 1
                if not self._is_failing:  # an outage is one line
                    logger.warning("attempts are counted in the issuer's store: %s", fault)
                self._is_failing = True
            else:
                self._is_failing = False
                return self._shared, wait_s
        return self._own, await self._own.enter(keys, free, now)

    async def succeed(self, attempt: Attempt) -> None:
        """Take the attempt back: the account starts anew, the address has one failure less."""
        await self._take_back(attempt, anew=attempt.has_account)

    async def take_back(self, attempt: Attempt) -> None:
        """The attempt was none: one failure less for both."""
        await self._take_back(attempt, anew=False)

    async def _take_back(self, attempt: Attempt, *, anew: bool) -> None:
        try:
            await attempt.counts.take_back(attempt.keys, [anew, *(False for _ in attempt.keys[1:])])
        except CountsUnavailable:
            return  # a failure too many is forgotten like any other

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget what is too old to count."""
        await self._own.sweep(connection, now)

    def _hidden(self, kind: str, name: str) -> str:
        octets = f"{kind}:{name}".encode("utf-8", "surrogatepass")
        return f"{kind}:{hmac.digest(self._key, octets, 'sha256').hex()}"

    def samples(self) -> Iterable[Sample]:
        """How many were refused, and how often Redis was missed."""
        yield Sample("gateway_issuer_throttled_total", {}, self.refused)
        yield Sample("gateway_issuer_throttle_fallbacks_total", {}, self.fallbacks)


def network_of(address: str) -> str:
    """Who shares an address for our purpose: one IPv4 address, or the /64 that a single IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        # A listener on :: sees IPv4 clients as ::ffff:a.b.c.d, which are not one customer.
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped is not None else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
