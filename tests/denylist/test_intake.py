"""What comes in is stored, never narrows a denial, and is on record."""

from __future__ import annotations

import logging

import pytest

from gateway.denylist.contract import StoreError
from gateway.denylist.grammar import Entry, make_entry
from gateway.denylist.intake import Intake, Word, denial_up_to, moment_value
from tests.denylist.scripted_store import ScriptedStore

pytestmark = pytest.mark.asyncio

NOW = 1_800_000_000.0
WORD = Word("admin_api", "ops", 'lost phone\nof "ada"')


@pytest.mark.parametrize(
    ("present", "cutoff", "after"),
    [
        (None, NOW - 10, b"1799999990"),
        (b"1799999980", NOW - 10, b"1799999990"),
        # a wider denial stays, and lives on as long as the new one
        (b"1799999995", NOW - 10, b"1799999995"),
        (b"1799999995.5", NOW - 10, b"1799999995.500"),
    ],
)
async def test_a_denial_by_time_only_moves_forward(present: bytes | None, cutoff: float, after: bytes) -> None:
    """Messages may overtake each other."""
    store = ScriptedStore({} if present is None else {"subject:main:ada": present})
    await Intake(store, lambda: NOW).put([denial_up_to("subject", "main", "ada", cutoff, 60)], WORD)
    assert store.values == {"subject:main:ada": after}
    assert store.lives == {"subject:main:ada": 60}


@pytest.mark.parametrize("present", [b"1800000001", b"", b"for ever"])
async def test_a_denial_of_the_future_is_not_touched(present: bytes) -> None:
    """Somebody wanted it so, for as long as they said."""
    store = ScriptedStore({"client:main:app": present})
    await Intake(store, lambda: NOW).put([denial_up_to("client", "main", "app", NOW, 60)], WORD)
    assert (store.values, store.lives) == ({"client:main:app": present}, {})


async def test_entries_are_stored_in_order_and_recorded_in_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """Who, why and what; the log says when. Line breaks of a reason stay inside the line."""
    store = ScriptedStore()
    intake = Intake(store, lambda: NOW)
    with caplog.at_level(logging.INFO, "gateway.audit"):
        await intake.put([make_entry("token", "main", "a", now=NOW, ttl_s=5), Entry("key", "main", "k")], WORD)
        assert await intake.take_out("token:main:a", WORD)
        assert not await intake.take_out("token:main:a", WORD)
    assert list(store.values) == ["key:main:k"]
    said = '"source": "admin_api", "who": "ops", "why": "lost phone\\nof \\"ada\\""'
    assert [record.getMessage() for record in caplog.records] == [
        f'revoked {{"key": "token:main:a", {said}, "ttl_s": 5}}',
        f'revoked {{"key": "key:main:k", {said}}}',
        f'removed {{"key": "token:main:a", {said}}}',
    ]


async def test_what_was_not_stored_is_not_on_record(caplog: pytest.LogCaptureFixture) -> None:
    """The caller is told."""
    store = ScriptedStore()
    store.broken = True
    intake = Intake(store, lambda: NOW)
    with caplog.at_level(logging.INFO, "gateway.audit"):
        for entry in (make_entry("token", "main", "a", now=NOW), make_entry("subject", "main", "a", now=NOW)):
            with pytest.raises(StoreError):
                await intake.put([entry], WORD)
        with pytest.raises(StoreError):
            await intake.take_out("token:main:a", WORD)
    assert caplog.records == []


async def test_a_value_with_a_point_is_a_writers_own_stamp() -> None:
    """Whole seconds are written without one, because they measure no way from writer to gateway."""
    assert moment_value(5.0) == "5"
    assert moment_value(5.25) == "5.250"
