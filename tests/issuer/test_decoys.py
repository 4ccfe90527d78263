"""Decoys: the costs of the accounts, in their shares, one for each name."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.issuer.accounts import read_registration
from gateway.issuer.decoys import Decoys
from tests.issuer.desk import PASSWORD, Clock, Desk

pytestmark = pytest.mark.asyncio

NAMES = [f"nobody{number}" for number in range(200)]
OLD, NEW = "m=64,t=1,p=1", "m=128,t=2,p=1"
DEARER: dict[str, Any] = {"time_cost": 2, "memory": "128KiB"}


def costs_of(decoys: Decoys) -> list[str]:
    """The cost that each unknown name shows."""
    return [decoys.of(name).split("$")[3] for name in NAMES]


async def test_without_accounts_names_cost_what_a_new_one_would(sqlite_url: str) -> None:
    """And a decoy is a hash like any other, that no password has."""
    async with Desk(sqlite_url) as desk:
        assert set(costs_of(desk.issuer.decoys)) == {OLD}
        decoy = desk.issuer.decoys.of("nobody")
        assert decoy.startswith("$argon2id$v=19$m=64,t=1,p=1$")
        assert not desk.issuer.pool.needs_rehash(decoy)
        assert await desk.issuer.pool.verify(decoy, PASSWORD) is False


async def test_a_changed_cost_does_not_tell_old_accounts_from_unknown_names(sqlite_url: str) -> None:
    """Unknown names follow to the new cost in the share in which accounts do, one by one, and never back."""
    clock = Clock()
    async with Desk(sqlite_url, clock=clock) as desk:
        for number in range(4):
            await desk.issuer.accounts.add(read_registration(f"user{number}", None, PASSWORD))
    async with Desk(sqlite_url, clock=clock, passwords=DEARER) as desk:
        shares, before = [], [OLD] * len(NAMES)
        for number in range(4):
            await desk.issuer.sweep()
            after = costs_of(desk.issuer.decoys)
            assert all(now == NEW for now, was in zip(after, before, strict=True) if was == NEW)
            shares.append(after.count(NEW) / len(NAMES))
            before = after
            await desk.login(f"user{number}")  # hashed anew
        await desk.issuer.sweep()
        assert shares == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.12)
        assert set(costs_of(desk.issuer.decoys)) == {NEW}


async def test_every_gateway_shows_the_same_cost_for_a_name(sqlite_url: str) -> None:
    """Who asks two of them learns nothing from a difference."""
    async with Desk(sqlite_url) as desk:
        await desk.issuer.accounts.add(read_registration("old", None, PASSWORD))
    async with Desk(sqlite_url, passwords=DEARER) as one:
        await one.issuer.accounts.add(read_registration("new", None, PASSWORD))
        await one.issuer.sweep()
        async with Desk(sqlite_url, passwords=DEARER) as two:
            assert costs_of(one.issuer.decoys) == costs_of(two.issuer.decoys)
            assert len(set(costs_of(two.issuer.decoys))) == 2
