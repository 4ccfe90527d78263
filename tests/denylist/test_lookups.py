"""Look-ups of one turn of the event loop share one round trip."""

import asyncio

import pytest

from gateway.denylist.contract import StoreRefused, StoreUnavailable
from gateway.denylist.lookups import Lookups

pytestmark = pytest.mark.asyncio


async def test_look_ups_of_one_turn_are_one_question() -> None:
    """Each key is asked for once, and every caller gets its own values in its own order."""
    asked: list[list[str]] = []

    async def read(keys: list[str]) -> dict[str, bytes | None]:
        asked.append(keys)
        return {key: None if key == "absent" else key.encode() for key in keys}

    lookups = Lookups(read, 1.0)
    answers = await asyncio.gather(lookups.ask(["a", "b"]), lookups.ask(["absent", "a"]), lookups.ask([]))
    assert answers[0] == [b"a", b"b"]
    assert answers[1] == [None, b"a"]
    assert answers[2] == []
    assert asked == [["a", "b", "absent"]]
    assert await lookups.ask(["a"]) == [b"a"]
    assert len(asked) == 2


async def test_every_caller_learns_of_a_failure() -> None:
    """Each gets an error of its own, of the same kind."""

    async def read(keys: list[str]) -> dict[str, bytes | None]:
        raise StoreRefused("no")

    lookups = Lookups(read, 1.0)
    failures = await asyncio.gather(lookups.ask(["a"]), lookups.ask(["b"]), return_exceptions=True)
    assert [type(failure) for failure in failures] == [StoreRefused, StoreRefused]
    assert failures[0] is not failures[1]


async def test_a_store_that_does_not_answer_is_unavailable_after_the_timeout() -> None:
    """The deadline belongs to the caller."""

    async def read(keys: list[str]) -> dict[str, bytes | None]:
        await asyncio.Event().wait()
        return {}

    with pytest.raises(StoreUnavailable, match="in time"):
        await Lookups(read, 0.01).ask(["a"])
