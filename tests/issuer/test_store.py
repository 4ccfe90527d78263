"""The store: migrations give the tables, transactions exclude each other, failures are told apart."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from gateway.issuer.store import Database, StoreUnavailable
from gateway.issuer.store.tables import metadata, throttles

pytestmark = pytest.mark.asyncio


def _difference(connection: Connection) -> list[Any]:
    found: list[Any] = compare_metadata(
        MigrationContext.configure(connection, opts={"version_table": "issuer_version"}), metadata
    )
    return found


async def test_migrations_give_exactly_the_tables(database: Database) -> None:
    """What the migrations build and what the code expects are the same."""
    async with database.read() as connection:
        assert await connection.run_sync(_difference) == []


async def test_opening_again_changes_nothing(database: Database) -> None:
    """Every gateway and every worker opens the store at its start."""
    async with database.write() as connection:
        await connection.execute(insert(throttles).values(key="a", failures=1, last_at=0.0, blocked_until=0.0))
    await asyncio.gather(database.open(), database.open())
    async with database.read() as connection:
        assert (await connection.execute(select(throttles.c.failures))).scalar_one() == 1


async def test_writers_see_each_others_changes(database: Database) -> None:
    """Twenty read-and-add transactions at once lose nothing."""
    async with database.write() as connection:
        await connection.execute(insert(throttles).values(key="a", failures=0, last_at=0.0, blocked_until=0.0))

    async def add_one() -> None:
        async with database.write() as connection:
            failures = (await connection.execute(select(throttles.c.failures).with_for_update())).scalar_one()
            await connection.execute(update(throttles).values(failures=failures + 1))

    await asyncio.gather(*(add_one() for _ in range(20)))
    async with database.read() as connection:
        assert (await connection.execute(select(throttles.c.failures))).scalar_one() == 20


async def test_a_failed_block_leaves_nothing(database: Database) -> None:
    """An exception inside a transaction takes everything back."""

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(insert(throttles).values(key="a", failures=1, last_at=0.0, blocked_until=0.0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(select(throttles))).all() == []


async def test_a_store_that_cannot_be_opened_says_so_without_its_address(tmp_path: Path) -> None:
    """The reason is a kind of failure; paths and passwords stay out of it."""
    database = Database(f"sqlite://{tmp_path}/nowhere/issuer.db")
    with pytest.raises(StoreUnavailable) as raised:
        await database.open()
    assert "nowhere" not in str(raised.value)
    await database.close()


async def test_the_file_is_for_nobody_else(tmp_path: Path) -> None:
    """The embedded store and its side files hold keys that sign: only the gateway's user may read them."""
    database = Database(f"sqlite://{tmp_path}/issuer.db")
    await database.open()
    async with database.read() as connection:
        await connection.execute(select(throttles))
        files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["issuer.db", "issuer.db-shm", "issuer.db-wal"]
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"] * 3
    await database.close()


async def test_a_file_that_others_may_read_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be on purpose, so its mode is left as it is."""
    file = tmp_path / "issuer.db"
    file.touch(mode=0o644)
    file.chmod(0o644)
    database = Database(f"sqlite://{file}")
    await database.open()
    assert "open to other users of this machine" in caplog.text
    assert file.stat().st_mode & 0o777 == 0o644
    await database.close()


async def test_an_error_of_the_store_shows_no_values(database: Database) -> None:
    """What is logged of a statement that failed holds no hash, name or address."""
    row = {"failures": 1, "last_at": 0.0, "blocked_until": 0.0}

    async def fail() -> None:
        async with database.write() as connection:
            for _ in range(2):
                await connection.execute(insert(throttles).values(key="somebody's name", **row))

    with pytest.raises(IntegrityError) as raised:
        await fail()
    assert "somebody's name" not in str(raised.value).partition("DETAIL")[0]
    assert "hide_parameters" in str(raised.value)


_COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT count(*) FROM n"


async def test_a_write_that_is_broken_off_locks_nobody_out(store_url: str) -> None:
    """A client that hangs up while its statement runs leaves no lock behind, whenever its memory is collected."""
    here, there = Database(store_url), Database(store_url)
    await here.open()
    await there.open()
    busy = asyncio.Event()

    async def write() -> None:
        async with here.write() as connection:
            new = insert(throttles).values(key="a", failures=1, last_at=0.0, blocked_until=0.0).returning(throttles)
            await connection.execute(new)
            busy.set()
            await connection.execute(text(_COUNTING))

    gc.disable()
    try:
        for database in (here, there):
            busy.clear()
            writing = asyncio.create_task(write())
            await busy.wait()
            await asyncio.sleep(0.05)  # the store is at work now, in a thread or elsewhere: nothing to wait on
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            async with database.write() as connection:
                assert (await connection.execute(select(throttles))).all() == []
                await connection.execute(update(throttles).values(failures=2))
    finally:
        gc.enable()
        await here.close()
        await there.close()


async def test_a_process_that_comes_and_goes_takes_no_session_along(tmp_path: Path) -> None:
    """`gateway users` beside a running gateway: opening the store once more leaves the locks that are held on it."""
    path = tmp_path / "issuer.db"
    database, again = Database(f"sqlite://{path}"), Database(f"sqlite://{path}")
    row = {"failures": 1, "last_at": 0.0, "blocked_until": 0.0}
    await database.open()
    async with database.write() as connection:
        await connection.execute(insert(throttles).values(key="a", **row))
    await again.open()
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute(sys.argv[2]).fetchall()); c.close()"
    )
    for key in ("b", "c"):
        command = [sys.executable, "-c", script, str(path), "SELECT count(*) FROM throttles"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        async with database.write() as connection:
            await connection.execute(insert(throttles).values(key=key, **row))
    assert done.stdout == "[(2,)]\n"
    await database.close()
    await again.close()
