"""What every store of answers keeps to, whichever it is, between two gateways that share it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.idempotency.contract import Store
from tests.idempotency.conftest import claim_to

pytestmark = pytest.mark.asyncio

Pair = tuple[Store, Store]
ANSWER = bytes(range(256)) * 40  # any bytes


async def test_a_record_is_claimed_once(stores: Pair, name: str) -> None:
    """Of twenty at once one has it; the others are told that it is in use."""
    claims = [claim_to(name) for _ in range(20)]
    found = await asyncio.gather(
        *(stores[number % 2].begin(claim, 30, takes_over=True) for number, claim in enumerate(claims))
    )
    assert sorted(one.state for one in found) == ["claimed"] + ["in_use"] * 19


async def test_who_asks_again_has_it_still(stores: Pair, name: str) -> None:
    """The same owner's second attempt, after an answer that was lost, finds its claim."""
    claim = claim_to(name)
    for _ in range(2):
        assert (await stores[0].begin(claim, 30, takes_over=False)).state == "claimed"


async def test_an_answer_is_found_by_everybody(stores: Pair, name: str) -> None:
    """To the byte; and another request under the same key is told so, before the answer and after."""
    claim, other = claim_to(name), claim_to(name, b"g" * 32)
    await stores[0].begin(claim, 30, takes_over=True)
    assert (await stores[1].begin(other, 30, takes_over=True)).state == "reused"
    assert await stores[0].settle(claim, ANSWER)
    found = await stores[1].begin(claim_to(name), 30, takes_over=True)
    assert (found.state, found.answer) == ("answered", ANSWER)
    assert (await stores[1].begin(other, 30, takes_over=True)).state == "reused"


async def test_an_empty_answer_is_an_answer(stores: Pair, name: str) -> None:
    """No bytes are not the same as no answer."""
    claim = claim_to(name)
    await stores[0].begin(claim, 30, takes_over=True)
    await stores[0].settle(claim, b"")
    assert (await stores[1].begin(claim_to(name), 30, takes_over=True)).state == "answered"


async def test_a_released_record_is_free(stores: Pair, name: str) -> None:
    """For another request too; and only its owner can release it."""
    claim, later = claim_to(name), claim_to(name, b"g" * 32)
    await stores[0].begin(claim, 30, takes_over=True)
    await stores[1].release(later)
    assert (await stores[1].begin(later, 30, takes_over=True)).state == "reused"
    await stores[0].release(claim)
    assert (await stores[1].begin(later, 30, takes_over=True)).state == "claimed"


async def test_a_lease_ends_and_is_renewed(stores: Pair, name: str) -> None:
    """Afterwards the outcome is unknown: taken over, or not; who was overtaken changes nothing."""
    first, second, third = (claim_to(name) for _ in range(3))
    await stores[0].begin(first, 30, takes_over=True)
    assert await stores[0].renew(first, 0.001)
    await asyncio.sleep(0.02)  # the store's clock, which nobody else winds
    assert (await stores[1].begin(second, 30, takes_over=False)).state == "unknown"
    assert await stores[0].renew(first, 30)
    assert (await stores[1].begin(second, 30, takes_over=True)).state == "in_use"
    await stores[0].lapse(first)
    assert (await stores[1].begin(second, 30, takes_over=False)).state == "unknown"
    assert (await stores[1].begin(second, 30, takes_over=True)).state == "claimed"
    assert not await stores[0].renew(first, 30)
    assert not await stores[0].settle(first, b"late")
    await stores[0].release(first)
    await stores[0].lapse(first)
    assert (await stores[1].begin(third, 30, takes_over=True)).state == "in_use"


async def test_a_record_that_was_lost_is_kept_all_the_same(stores: Pair, name: str) -> None:
    """A store that forgot the claim (flushed, evicted) takes the answer."""
    claim = claim_to(name)
    assert await stores[0].settle(claim, ANSWER)
    assert (await stores[1].begin(claim_to(name), 30, takes_over=True)).answer == ANSWER


async def test_a_record_ends(stores: Pair, name: str) -> None:
    """After its time it is as if it had never been, answered or not."""
    claim = claim_to(name, ttl_s=0.03)
    await stores[0].begin(claim, 30, takes_over=True)
    await stores[0].settle(claim, ANSWER)
    await asyncio.sleep(0.05)  # the store's clock
    assert (await stores[1].begin(claim_to(name, b"g" * 32), 30, takes_over=True)).state == "claimed"
    await stores[0].tidy()
    assert (await stores[1].begin(claim_to(name, b"g" * 32), 30, takes_over=True)).state == "in_use"
