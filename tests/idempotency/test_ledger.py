"""Claims of one worker: leases renewed in time, and a store that is away told later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.idempotency.contract import Claim, StoreUnavailable
from gateway.idempotency.ledger import Ledger
from gateway.idempotency.sqlite_store import SqliteStore

pytestmark = pytest.mark.asyncio


class PickyStore(SqliteStore):
    """A store that refuses some answers, and tells of what it is asked."""

    refuses: bytes = b""
    tells: asyncio.Event

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        self.tells.set()
        return await super().renew(claim, lease_s)

    async def settle(self, claim: Claim, answer: bytes) -> bool:
        if answer and answer in self.refuses:
            raise StoreUnavailable("refused")
        kept = await super().settle(claim, answer)
        self.tells.set()
        return kept


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[PickyStore]:
    """An empty one."""
    made = PickyStore(tmp_path / "answers.db", "", 2.0)
    made.tells = asyncio.Event()
    yield made
    await made.close()


async def test_a_lease_is_renewed_while_its_request_is_in_flight(store: PickyStore, tmp_path: Path) -> None:
    """Another worker sees it in use after three leases; when the worker is gone, its outcome is unknown."""
    ledger, other = Ledger(store, 0.15), Ledger(SqliteStore(tmp_path / "answers.db", "", 2.0), 0.15)
    claim = ledger.draw_up("a", b"f", 60)
    await ledger.begin(claim, takes_over=False)
    running = asyncio.create_task(ledger.run())
    for _ in range(9):
        store.tells.clear()
        await store.tells.wait()
    assert (await other.begin(other.draw_up("a", b"f", 60), takes_over=False)).state == "in_use"
    running.cancel()
    await asyncio.sleep(0.2)  # the lease itself
    assert (await other.begin(other.draw_up("a", b"f", 60), takes_over=False)).state == "unknown"
    await other.close(0)


async def test_one_worker_knows_its_own_claims(store: PickyStore) -> None:
    """Whatever has become of the lease in the store: the request is in flight here."""
    ledger = Ledger(store, 0.001)
    claim = ledger.draw_up("a", b"f", 60)
    await ledger.begin(claim, takes_over=True)
    await asyncio.sleep(0.01)  # beyond the lease
    assert (await ledger.begin(ledger.draw_up("a", b"f", 60), takes_over=True)).state == "in_use"
    assert (await ledger.begin(ledger.draw_up("a", b"g", 60), takes_over=True)).state == "reused"
    await ledger.release(claim)
    assert (await ledger.begin(ledger.draw_up("a", b"g", 60), takes_over=True)).state == "claimed"


async def test_one_answer_that_is_refused_holds_up_no_other(store: PickyStore) -> None:
    """It is tried again after the others, and is kept once the store takes it."""
    store.refuses = b"twofoldrefusal"
    ledger = Ledger(store, 1.0)
    names = [b"two", b"fold", b"refusal", b"good"]
    claims = [ledger.draw_up(name.decode(), b"f", 60) for name in names]
    for claim in claims:
        await ledger.begin(claim, takes_over=True)
    store.refuses += b"good"
    for claim, name in zip(claims, names, strict=True):
        await ledger.keep(claim, name, is_whole=True)
    store.refuses = b"twofoldrefusal"
    running = asyncio.create_task(ledger.run())
    store.tells.clear()
    await asyncio.wait_for(store.tells.wait(), 10)
    assert (await ledger.begin(ledger.draw_up("good", b"f", 60), takes_over=True)).answer == b"good"
    running.cancel()
    assert _owed(ledger) == 3
    store.refuses = b""
    await ledger.close(0)
    assert _owed(ledger) == 0


def _owed(ledger: Ledger) -> float:
    return next(sample.value for sample in ledger.samples() if sample.name == "gateway_idempotency_owed")
