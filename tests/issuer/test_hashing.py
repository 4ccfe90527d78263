"""Hashes are computed in processes of their own, which come and go without a log-in being lost or a password shown."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from argon2 import PasswordHasher, extract_parameters

from gateway.config.issuance import Passwords
from gateway.errors import Overloaded
from gateway.issuer.passwords import HashingPool

pytestmark = pytest.mark.asyncio

COST: dict[str, Any] = {"time_cost": 2, "memory": "8MiB", "threads": 1}  # enough for a process


def children() -> set[int]:
    """The processes that this one has started."""
    found: set[int] = set()
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found |= {int(pid) for pid in (thread / "children").read_text().split()}
    return found


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[HashingPool]:
    """One process, not started yet."""
    pool = HashingPool(Passwords.model_validate(COST))
    yield pool
    pool.close()


async def hashing_process(pool: HashingPool) -> int:
    """The process that works for the pool."""
    before = children()
    await pool.hash("correct horse battery")
    [pid] = children() - before
    return pid


async def test_a_hash_is_as_configured_and_recognised(pool: HashingPool) -> None:
    """Argon2id of the configured cost, whatever characters the password has; a text that is no hash fits nothing."""
    for password in ("correct horse battery", "pässwörd 🔑\n\"'\\", "a" * 256):
        text = await pool.hash(password)
        found = extract_parameters(text)
        assert (found.type.name, found.time_cost, found.memory_cost, found.parallelism) == ("ID", 2, 8192, 1)
        assert await pool.verify(text, password) is True
        assert await pool.verify(text, password + "x") is False
    assert await pool.verify("$argon2id$broken", "correct horse battery") is False


async def test_a_process_works_at_low_priority_and_ends_with_the_pool() -> None:
    """Proxied requests come first; nothing is left behind, not even in the middle of a hash."""
    pool = HashingPool(Passwords.model_validate({**COST, "time_cost": 100, "memory": "64MiB"}))
    before = children()
    hashing = asyncio.create_task(pool.hash("correct horse battery"))
    while not (started := children() - before):
        await asyncio.sleep(0.01)  # another process: nothing to wait on
    [pid] = started
    while os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0):
        await asyncio.sleep(0.01)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + 15, 19)
    assert "correct" not in Path(f"/proc/{pid}/cmdline").read_text()
    pool.close()
    with pytest.raises(Overloaded):
        await hashing
    assert pid not in children()


async def test_a_process_that_dies_is_replaced(pool: HashingPool) -> None:
    """Killed between two hashes, or in the middle of one: the log-in is answered all the same."""
    first = await hashing_process(pool)
    os.kill(first, signal.SIGKILL)
    slow = PasswordHasher(60, 8192, 1).hash("correct horse battery")
    second = await hashing_process(pool)
    assert second != first
    checking = asyncio.create_task(pool.verify(slow, "correct horse battery"))
    await asyncio.sleep(0.1)  # it is at work, in another process: nothing to wait on
    os.kill(second, signal.SIGKILL)
    assert await checking is True


async def test_what_ends_the_gateway_does_not_end_its_hashes_at_once(pool: HashingPool) -> None:
    """Ctrl-C goes to every process of a terminal; the log-ins that have begun are finished first."""
    pid = await hashing_process(pool)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    await pool.hash("correct horse battery")
    assert pid in children()
