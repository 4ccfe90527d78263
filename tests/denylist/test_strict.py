"""Strict routes ask the store: its answer of this moment counts, and its silence is told apart from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from gateway.denylist.contract import StoreRefused, StoreUnavailable
from gateway.denylist.strict import StrictCheck
from tests.denylist.conftest import Follow
from tests.denylist.deployments import Site
from tests.denylist.scripted_store import ScriptedStore

pytestmark = pytest.mark.asyncio


def counts(check: StrictCheck) -> dict[str, float]:
    """Look-ups by outcome."""
    return {sample.labels["outcome"]: sample.value for sample in check.samples()}


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ({}, None),
        ({"token:main:t": b""}, "token"),
        ({"session:main:s": b"1"}, "session"),
        ({"subject:main:u": b"1000"}, "subject"),
        ({"subject:main:u": b"999"}, None),  # issued after it
        ({"subject:main:u": b"soon"}, "subject"),  # no moment: everything
        ({"client:main:c": b"1000.5"}, "client"),
        ({"key:main:k": b"1"}, "key"),
        ({"issuer:main": b"1000"}, "issuer"),
        ({"issuer:main": b"999.999"}, None),
        ({"token:other:t": b"1", "issuer:other": b"5000"}, None),
        ({"token:main:t": b"1", "session:main:s": b"1"}, "token"),
    ],
)
async def test_each_kind_of_entry_denies_as_in_the_replica(entries: dict[str, bytes], kind: str | None) -> None:
    """Presence for some kinds, `iat` against the value for the others."""
    check = StrictCheck(ScriptedStore(entries))
    assert await check.find("main", "t", "s", "u", "c", "k", 1000.0) == kind


async def test_a_token_without_iat_is_denied_by_any_moment() -> None:
    """When unsure, refuse."""
    check = StrictCheck(ScriptedStore({"subject:main:u": b"1"}))
    assert await check.find("main", None, None, "u", None, None, None) == "subject"


async def test_requests_of_one_loop_turn_share_one_round_trip() -> None:
    """A hundred requests that come together cost one, and keys that several need are read once."""
    store = ScriptedStore({"token:main:t7": b"1"})
    check = StrictCheck(store)
    found = await asyncio.gather(*(check.find("main", f"t{n}", None, "u", None, "k", 1.0) for n in range(100)))
    assert [n for n, kind in enumerate(found) if kind] == [7]
    assert len(store.trips) == 1
    assert len(store.trips[0]) == 103
    assert counts(check) == {"clear": 99, "denied": 1, "unanswered": 0}


async def test_silence_is_no_answer() -> None:
    """After the deadline the caller is told, and it is counted."""
    check = StrictCheck(ScriptedStore(silent=True))
    with pytest.raises(StoreUnavailable):
        await check.find("main", "t", None, None, None, None, 1.0)
    assert counts(check) == {"clear": 0, "denied": 0, "unanswered": 1}


async def test_a_refusal_is_no_answer_either() -> None:
    """A store that may not be read says nothing about the token."""

    class Forbidden(ScriptedStore):
        async def lookup(self, keys: Sequence[str]) -> list[bytes | None]:
            raise StoreRefused("no permission")

    check = StrictCheck(Forbidden())
    with pytest.raises(StoreRefused):
        await check.find("main", "t", None, None, None, None, 1.0)
    assert counts(check)["unanswered"] == 1


async def test_a_real_store_denies_from_the_moment_it_is_written(site: Site, follow: Follow) -> None:
    """Nothing is waited for between the write and the answer."""
    gateway = await follow(site.config())
    check = StrictCheck(gateway.store)
    for number in range(20):
        assert await check.find("main", f"t{number}", "s", "u", None, "k", time.time()) is None
        site.write(f"token:main:t{number}", ttl_s=60)
        assert await check.find("main", f"t{number}", "s", "u", None, "k", time.time()) == "token"
