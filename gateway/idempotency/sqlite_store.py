"""Records in one SQLite file, for all gateways of one machine.

    records(name, fingerprint, owner, lease_ends, answer, ends)   moments in epoch seconds

One thread has the connection. Commits survive the end of any process; the last moments before a power cut may be lost
(WAL, synchronous=NORMAL), as with Redis: a write per request cannot wait for the disk twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.idempotency.contract import Claim, Found, StoreUnavailable
from gateway.private_file import make_private

T = TypeVar("T")

_MOST_WAITING: Final = 256  # calls that wait for the thread; a disk that hangs must not gather more
_PAGE: Final = 200  # records freed in one transaction
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS records (
    name TEXT PRIMARY KEY NOT NULL, fingerprint BLOB NOT NULL, owner BLOB NOT NULL,
    lease_ends REAL NOT NULL, answer BLOB, ends REAL NOT NULL
)
"""


class SqliteStore:
    """The store behind `sqlite://`. The file is opened by the first call."""

    def __init__(self, path: Path, prefix: str, timeout_s: float, *, wall: Callable[[], float] = time.time) -> None:
        """`wall` gives epoch seconds."""
        self.path = path
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._wall = wall
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._thread = ThreadPoolExecutor(1, "idempotency")
        self._waiting = 0

    async def begin(self, claim: Claim, lease_s: float, *, takes_over: bool) -> Found:
        """Claim the record, unless it is taken."""
        return await self._call(partial(self._begin, claim, lease_s, takes_over))

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Prolong the lease."""
        statement = "UPDATE records SET lease_ends = ? WHERE name = ? AND owner = ?"
        return await self._call(partial(self._change, statement, self._wall() + lease_s, *self._whose(claim)))

    async def settle(self, claim: Claim, answer: bytes) -> bool:
        """Keep the answer."""
        return await self._call(partial(self._settle, claim, answer))

    async def lapse(self, claim: Claim) -> None:
        """End the lease."""
        statement = "UPDATE records SET lease_ends = 0 WHERE name = ? AND owner = ?"
        await self._call(partial(self._change, statement, *self._whose(claim)))

    async def release(self, claim: Claim) -> None:
        """Forget the record."""
        statement = "DELETE FROM records WHERE name = ? AND owner = ?"
        await self._call(partial(self._change, statement, *self._whose(claim)))

    async def tidy(self) -> None:
        """Delete records that have ended, a page at a time."""
        statement = "DELETE FROM records WHERE name IN (SELECT name FROM records WHERE ends <= ? LIMIT ?)"
        is_more = True
        while is_more:
            is_more = await self._call(partial(self._change, statement, self._wall(), _PAGE))

    async def close(self) -> None:
        """Close the file and end the thread."""
        with contextlib.suppress(RuntimeError):  # closed before
            self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _begin(self, claim: Claim, lease_s: float, takes_over: bool) -> Found:
        now = self._wall()
        name, owner = self._whose(claim)
        with self._writing() as connection:
            row = connection.execute(
                "SELECT fingerprint, owner, lease_ends, answer FROM records WHERE name = ? AND ends > ?", (name, now)
            ).fetchone()
            if row is not None and row[1] != owner:
                if row[0] != claim.fingerprint:
                    return Found("reused")
                if row[3] is not None:
                    return Found("answered", row[3])
                if row[2] > now:
                    return Found("in_use")
                if not takes_over:
                    return Found("unknown")
            connection.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, NULL, ?)",
                (name, claim.fingerprint, owner, now + lease_s, now + claim.ttl_s),
            )
        return Found("claimed")

    def _settle(self, claim: Claim, answer: bytes) -> bool:
        now = self._wall()
        name, owner = self._whose(claim)
        with self._writing() as connection:
            row = connection.execute("SELECT owner FROM records WHERE name = ? AND ends > ?", (name, now)).fetchone()
            if row is not None and row[0] != owner:
                return False
            connection.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, 0, ?, ?)",
                (name, claim.fingerprint, owner, answer, now + claim.ttl_s),
            )
        return True

    def _change(self, statement: str, *values: str | bytes | float) -> bool:
        with self._writing() as connection:
            return connection.execute(statement, values).rowcount > 0

    def _whose(self, claim: Claim) -> tuple[str, bytes]:
        return self._prefix + claim.name, claim.owner

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self._current()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now."""
        if self._connection is None or self._inode != self._inode_now():
            self._close()
            # Answers hold what users read: a file made here is for this user alone, and so are its side files.
            make_private(self.path)
            self._inode = self._inode_now()
            self._connection = sqlite3.connect(
                self.path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_TABLE)
            self._connection.execute("CREATE INDEX IF NOT EXISTS records_by_end ON records (ends)")
        return self._connection

    def _inode_now(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- and to it ---------------------------------------------------------------------------------------------------

    async def _call(self, call: Callable[[], T]) -> T:
        if self._waiting >= _MOST_WAITING:
            raise StoreUnavailable("the store is not available: too many calls wait for it")
        self._waiting += 1
        try:
            work = self._thread.submit(call)
        except RuntimeError as fault:  # closed
            self._waiting -= 1
            raise StoreUnavailable("the store is closed") from fault
        loop = asyncio.get_running_loop()
        done = asyncio.wrap_future(work, loop=loop)
        done.add_done_callback(self._done)
        try:
            # SQLite waits for a lock as long as the timeout; a disk that hangs is given up after twice that.
            async with asyncio.timeout(2 * self._timeout_s):
                return await asyncio.shield(done)
        except TimeoutError as late:
            raise StoreUnavailable("the store did not answer in time") from late
        except (sqlite3.Error, OSError) as fault:
            raise StoreUnavailable(f"the store is not available: {_reason(fault)}") from fault

    def _done(self, done: asyncio.Future[T]) -> None:
        self._waiting -= 1
        if not done.cancelled():
            done.exception()  # looked at, in case the caller has gone


def _reason(fault: Exception) -> str:
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return str(getattr(fault, "sqlite_errorname", None) or type(fault).__name__)
