"""The claims of one worker: begun, kept alive while their requests are in flight, and settled, if need be later.

    begin ──▶ held (the lease renewed every third of it) ──┬─ keep     ──▶ the answer is in the store
                                                           ├─ release  ──▶ the record is forgotten
                                                           └─ give_up  ──▶ nobody knows; the lease ends

What the store could not be told at that moment is *owed*: told again every second, and before the same record is asked
about, so that an outage of the store does not lose an answer that the upstream has given. Nothing owed is waited for.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Literal

from gateway.errors import IdempotencyUnavailable
from gateway.idempotency.contract import Claim, Found, Store, StoreUnavailable
from gateway.telemetry.sample import Sample

Outcome = Literal["forwarded", "replayed", "in_use", "reused", "unknown", "missing", "unavailable"]
OUTCOMES: Final[tuple[Outcome, ...]] = (
    "forwarded",
    "replayed",
    "in_use",
    "reused",
    "unknown",
    "missing",
    "unavailable",
)
Kept = Literal["whole", "head", "released", "unknown", "overtaken"]
KEPT: Final[tuple[Kept, ...]] = ("whole", "head", "released", "unknown", "overtaken")

ROOM_BYTES: Final = 128 * 2**20  # of bodies, either way, that one worker has in hand
_OWED_MOST: Final = 1000
_OWED_FOR_S: Final = 600.0
_TIDY_S: Final = 30.0
_TURN_S: Final = 1.0

_log = logging.getLogger("gateway.idempotency")


class Room:
    """Bytes that may be in hand at once."""

    __slots__ = ("_left",)

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Whether so many bytes may be taken in hand; give them back."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """They are not in hand any more."""
        self._left += size


@dataclass(frozen=True, slots=True)
class _Debt:
    """What the store has yet to be told about a claim."""

    claim: Claim
    what: Literal["settle", "release", "lapse"]
    since: float  # monotonic
    answer: bytes = field(default=b"", repr=False)


class Ledger:
    """The claims of one worker, and its numbers. Owned by its event loop; `run` it."""

    def __init__(self, store: Store, lease_s: float) -> None:
        """`lease_s`: how long a record stays claimed when nobody renews it any more."""
        self.room = Room()
        self._store = store
        self._lease_s = lease_s
        self._held: dict[str, Claim] = {}  # by the record's name
        self._owed: dict[Claim, _Debt] = {}  # oldest attempt first
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_down = False
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self._kept = dict.fromkeys(KEPT, 0)
        self._outlived = 0

    def count(self, outcome: Outcome) -> None:
        """Count what became of a request."""
        self._counts[outcome] += 1

    def count_outlived(self) -> None:
        """Count a request whose client left, and which went on."""
        self._outlived += 1

    # --- claims ------------------------------------------------------------------------------------------------------

    def draw_up(self, name: str, fingerprint: bytes, ttl_s: float) -> Claim:
        """A claim to a record, for one carrier of the request; `begin` it."""
        return Claim(name, fingerprint, secrets.token_bytes(16), ttl_s)

    async def begin(self, claim: Claim, *, takes_over: bool) -> Found:
        """What the store says of the claim; `claimed`: it is held from now on, until it is kept, released or given up.

        Raises `IdempotencyUnavailable`.
        """
        held = self._held.get(claim.name)
        if held is not None:  # known here, whatever an outage has done to its lease
            return Found("in_use" if held.fingerprint == claim.fingerprint else "reused")
        found: Found | None = None
        is_asked = False
        try:
            for debt in [debt for debt in self._owed.values() if debt.claim.name == claim.name]:
                await self._pay(debt)
            is_asked = True
            found = await self._store.begin(claim, self._lease_s, takes_over=takes_over)
        except StoreUnavailable as fault:
            self._note(fault)
            self.count("unavailable")
            raise IdempotencyUnavailable(cause=str(fault)) from fault
        finally:
            if is_asked and found is None:
                # It may have been claimed, but nothing will be forwarded: no answer came, or the client has gone.
                self._owe(_Debt(claim, "release", monotonic()))
        self._note(None)
        if found.state == "claimed":
            self._held[claim.name] = claim
        return found

    async def keep(self, claim: Claim, answer: bytes, *, is_whole: bool) -> None:
        """Store the answer; if that cannot be done now, it is owed."""
        self._kept["whole" if is_whole else "head"] += 1
        await self._settle(_Debt(claim, "settle", monotonic(), answer))

    async def release(self, claim: Claim) -> None:
        """The request was not handled: the next one is forwarded."""
        self._kept["released"] += 1
        await self._settle(_Debt(claim, "release", monotonic()))

    async def give_up(self, claim: Claim) -> None:
        """Nobody knows whether the request was handled."""
        self._kept["unknown"] += 1
        await self._settle(_Debt(claim, "lapse", monotonic()))

    def forsake(self, claim: Claim) -> None:
        """Hold the claim no longer: without more, its lease runs out by itself."""
        if self._held.get(claim.name) is claim:
            del self._held[claim.name]

    async def _settle(self, debt: _Debt) -> None:
        self.forsake(debt.claim)
        self._owe(debt)
        try:
            await self._pay(debt)
        except StoreUnavailable as fault:
            self._note(fault)

    # --- what is owed ------------------------------------------------------------------------------------------------

    def _owe(self, debt: _Debt) -> None:
        if len(self._owed) >= _OWED_MOST or not self.room.take(len(debt.answer)):
            _log.warning("idempotency: an outcome is lost: too many wait for the store")
            return
        self._owed[debt.claim] = debt

    async def _pay(self, debt: _Debt) -> None:
        """Tell the store. Raises `StoreUnavailable`."""
        claim = debt.claim
        if debt.what == "settle":
            if not await self._store.settle(claim, debt.answer):
                self._kept["overtaken"] += 1
        elif debt.what == "release":
            await self._store.release(claim)
        else:
            await self._store.lapse(claim)
        self._note(None)
        self._forget(debt)

    def _forget(self, debt: _Debt) -> None:
        if self._owed.pop(debt.claim, None) is not None:
            self.room.give(len(debt.answer))

    def _note(self, fault: StoreUnavailable | None) -> None:
        """Say once that the store is away, and once that it is back."""
        if (fault is not None) == self._is_down:
            return
        self._is_down = fault is not None
        if fault is not None:
            _log.warning("idempotency: %s", fault)
        else:
            _log.info("idempotency: the store is available again")

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew leases, pay what is owed, free what has ended; until cancelled."""
        turn_s = min(_TURN_S, self._lease_s / 3)
        next_renewal = monotonic()
        next_tidying = next_renewal + _TIDY_S
        while True:
            await asyncio.sleep(turn_s)
            now = monotonic()
            if now >= next_renewal:
                next_renewal = now + self._lease_s / 3 - turn_s
                await self._renew()
            await self._pay_some(now)
            if now >= next_tidying:
                next_tidying = now + _TIDY_S
                try:
                    await self._store.tidy()
                except StoreUnavailable as fault:
                    self._note(fault)

    async def _renew(self) -> None:
        renewals = (self._store.renew(claim, self._lease_s) for claim in self._held.values())
        for result in await asyncio.gather(*renewals, return_exceptions=True):
            if isinstance(result, StoreUnavailable):
                self._note(result)
            elif isinstance(result, BaseException):
                raise result

    async def _pay_some(self, now: float) -> None:
        """Pay until the store refuses twice; what it refuses goes to the end of the row."""
        refusals = 0
        for debt in list(self._owed.values()):
            if now - debt.since > _OWED_FOR_S:
                self._forget(debt)
                continue
            try:
                await self._pay(debt)
            except StoreUnavailable as fault:
                self._note(fault)
                if self._owed.pop(debt.claim, None) is not None:
                    self._owed[debt.claim] = debt
                refusals += 1
                if refusals == 2:
                    return

    def start(self, work: Coroutine[None, None, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        """Do something that goes on when the client leaves; it is in `among` until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        for tasks in (self._tasks, among):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return task

    async def close(self, grace_s: float) -> None:
        """Let requests in flight end within `grace_s` seconds, pay what is owed if it can be paid, and close."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for debt in list(self._owed.values()):
                await self._pay(debt)
        except StoreUnavailable as fault:
            _log.warning("idempotency: %d outcomes are lost: %s", len(self._owed), fault)
        await self._store.close()

    def samples(self) -> Iterable[Sample]:
        """Requests and answers by what became of them, claims in flight, and what the store has yet to be told."""
        for outcome, count in self._counts.items():
            yield Sample("gateway_idempotency_requests_total", {"outcome": outcome}, count)
        for kept, count in self._kept.items():
            yield Sample("gateway_idempotency_answers_total", {"kept": kept}, count)
        yield Sample("gateway_idempotency_outlived_total", {}, self._outlived)
        yield Sample("gateway_idempotency_in_flight", {}, len(self._held))
        yield Sample("gateway_idempotency_owed", {}, len(self._owed))
