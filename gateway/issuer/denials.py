"""What must be refused from now on: written with the change that caused it, kept until the denylist has it.

A session that ends in the store is denied in the same transaction; the entry leaves for the denylist right after the
commit, and again every second while the denylist cannot be reached. So a logout during an outage of Redis reaches the
gateways when Redis is back, and one that was interrupted by a crash at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.denylist.contract import StoreError
from gateway.denylist.grammar import Entry, make_entry
from gateway.issuer.store import Database, StoreUnavailable
from gateway.issuer.store.tables import denials
from gateway.telemetry.sample import Sample

logger = logging.getLogger("gateway.issuer")

_DEADLINE_S = 2.0  # of one entry
_AGAIN_S = 1.0
_BATCH = 500


class Denylist(Protocol):
    """The part of the denylist's store that is needed here."""

    async def add(self, entry: Entry) -> None:
        """Put an entry in; raises `StoreError`."""


class Denials:
    """Entries on their way to the denylist."""

    def __init__(
        self,
        database: Database,
        denylist: Denylist | None,
        issuer: str,
        lifetime_s: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`issuer` is the name in the denylist's keys; `lifetime_s`: as long as an access token may live anywhere."""
        self._database = database
        self._denylist = denylist
        self._issuer = issuer
        self._lifetime_s = lifetime_s
        self._wall = wall
        self._is_failing = False
        self.delivered = 0
        self.failed = 0
        self.pending = 0

    async def record(
        self, connection: AsyncConnection, kind: Literal["session", "token"], idents: Iterable[str], now: float
    ) -> None:
        """Deny these from the commit of this transaction on; `deliver` afterwards."""
        if self._denylist is None:
            return
        for ident in idents:
            where = (denials.c.kind == kind, denials.c.ident == ident)
            await connection.execute(delete(denials).where(*where))
            await connection.execute(
                insert(denials).values(kind=kind, ident=ident, denied_at=now, expires_at=now + self._lifetime_s)
            )

    async def deliver(self) -> None:
        """Hand over what is pending; what cannot be handed over now stays pending. Never raises for the denylist."""
        if self._denylist is None:
            return
        async with self._database.read() as connection:
            rows = (await connection.execute(select(denials).limit(_BATCH))).all()
        self.pending = len(rows)
        for row in rows:
            if not await self._hand_over(row):
                return
            async with self._database.write() as connection:
                where = (denials.c.kind == row.kind, denials.c.ident == row.ident)
                await connection.execute(delete(denials).where(*where))
            self.pending -= 1

    async def _hand_over(self, row: Row[tuple[str, str, float, float]]) -> bool:
        assert self._denylist is not None
        remaining_s = row.expires_at - self._wall()
        if remaining_s <= 0:
            return True  # every token it was about has expired
        entry = make_entry(row.kind, self._issuer, row.ident, now=row.denied_at, ttl_s=remaining_s)
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._denylist.add(entry)
        except (StoreError, TimeoutError) as exc:
            self.failed += 1
            if not self._is_failing:  # an outage is one line
                logger.warning("the denylist does not take revocations; they are kept: %s", str(exc) or "no answer")
            self._is_failing = True
            return False
        self._is_failing = False
        self.delivered += 1
        return True

    async def run(self) -> None:
        """Delivers what was left over, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.deliver()
            await asyncio.sleep(_AGAIN_S)

    def samples(self) -> Iterable[Sample]:
        """How many revocations left for the denylist, and how many wait."""
        yield Sample("gateway_issuer_denials_total", {"outcome": "delivered"}, self.delivered)
        yield Sample("gateway_issuer_denials_total", {"outcome": "failed"}, self.failed)
        yield Sample("gateway_issuer_denials_pending", {}, self.pending)
