"""The embedded store: one SQLite file for all gateways and backends of one machine.

    entries(key, value, expires_at)   whole keys, as in Redis; `expires_at` in epoch seconds, NULL: never
    changes(sequence, key)            which keys changed, in order; kept by triggers, so any writer may use plain SQL
    history(id)                       the file's identity: another one means that entries may have been lost

A thread asks `PRAGMA data_version` a hundred times a second: a few microseconds each, and it moves with every commit
of any other connection. Then the new rows of `changes` say what to read again. As with Redis, a key that is absent when
its change is read was deleted; one that a *load* misses was deleted if the history is the known one, and else is
written back.
Writes are durable when they return (WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.config.schema import Denylist
from gateway.denylist.contract import StoreError, StoreRefused, StoreUnavailable, sweep
from gateway.denylist.database import Change, Database
from gateway.denylist.grammar import Entry, parse_key
from gateway.denylist.group import Known
from gateway.denylist.history import Coverage, History
from gateway.denylist.lookups import Lookups
from gateway.denylist.replica import Replica
from gateway.denylist.snapshot import Snapshot
from gateway.redis.slots import ALL_SLOTS

T = TypeVar("T")

_RETRY_S: Final = 0.5
_TIDY_S: Final = 30.0
_PAGE: Final = 1000
_log = logging.getLogger("gateway.denylist")


class SqliteStore:
    """The store behind `sqlite://`. Two threads: one waits for changes, one serves commands."""

    def __init__(
        self,
        config: Denylist,
        replica: Replica,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replica = replica
        self._status = replica.status
        self._prefix = config.prefix
        self._timeout_s = config.timeout
        self._wall = wall
        self._monotonic = monotonic
        path = Path(config.store.removeprefix("sqlite://"))
        self._reader = Database(path, config.prefix, config.timeout)
        self._writer = Database(path, config.prefix, config.timeout)
        self._watching = ThreadPoolExecutor(1, "denylist-watch")
        self._commands = ThreadPoolExecutor(1, "denylist-commands")
        self._lookups = Lookups(self._values, config.timeout)
        self._coverage = Coverage()
        self._snapshot = Snapshot.of(config, replica, self._coverage, wall, monotonic)
        self._mark = 0

    # --- keeping the replica current ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the replica current until cancelled."""
        if self._snapshot is not None:
            await self._snapshot.restore()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sweep(self._replica, self._wall))
                tasks.create_task(self._keep_tidy())
                if self._snapshot is not None:
                    tasks.create_task(self._snapshot.run())
                await self._keep_current()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the file and end both threads."""
        for pool, database in ((self._watching, self._reader), (self._commands, self._writer)):
            with contextlib.suppress(RuntimeError):  # closed before
                pool.submit(database.close)
            pool.shutdown(wait=False)

    async def _keep_current(self) -> None:
        while True:
            try:
                await self._follow()
            except (sqlite3.Error, OSError, StoreError) as fault:
                self._status.count("connection_losses")
                reason = _reason(fault)
                if self._status.report("connection", f"the store's file cannot be read: {reason}"):
                    _log.warning("denylist: the store's file cannot be read: %s", reason)
                await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        """Load the file, then take in its changes; returns when another file stands in its place."""
        await self._watch_thread(self._reader.open)
        self._status.count("connects")
        sequence = await self._load()
        while True:
            change = await self._wait_for_change()
            if change is Change.REPLACED:
                return
            # Before the rows are read: what is committed meanwhile is seen by the next round.
            contact = self._reader.asked_at
            if change is Change.COMMITTED:
                newer = await self._apply_changes(sequence)
                if newer is None:
                    return
                sequence = newer
            self._replica.touch(contact)

    async def _wait_for_change(self) -> Change:
        stop = threading.Event()
        try:
            return await self._watch_thread(lambda: self._reader.wait_for_change(stop, self._monotonic))
        finally:
            stop.set()  # on cancellation the thread returns within a poll

    async def _apply_changes(self, sequence: int) -> int | None:
        """Take in what changed after `sequence`; the new sequence, or None if the list does not reach back so far."""
        heard = self._monotonic()
        while True:
            changes = await self._watch_thread(partial(self._reader.changes_after, sequence, _PAGE))
            if changes is None:
                return None
            newer, rows = changes
            now = self._wall()
            for key, row in rows:
                if row is None or (row.expires_at is not None and row.expires_at <= now):
                    self._replica.remove(key)
                else:
                    self._replica.put(key, row.value, row.expires_at, self._mark)
                    self._status.observe_stamp(row.value, now)
                self._status.applied.observe(self._monotonic() - heard)
            self._status.count("changes", len(rows))
            if newer == sequence:
                return newer
            sequence = newer

    async def _load(self) -> int:
        """Read everything; the sequence of changes from which to go on."""
        started = self._monotonic()
        history = History(await self._watch_thread(self._reader.history), "")
        sequence = await self._watch_thread(self._reader.sequence)
        self._mark = self._replica.next_mark()
        after = ""
        while rows := await self._watch_thread(partial(self._reader.page, after, _PAGE)):
            now = self._wall()
            for row in rows:
                if row.expires_at is None or row.expires_at > now:
                    self._replica.put(row.key, row.value, row.expires_at, self._mark)
            after = rows[-1].key
        if await self._settle(history, sequence):
            self._coverage.settle(ALL_SLOTS, history)
        self._status.count("loads")
        self._status.mode = "polling"
        self._replica.loaded = True
        self._replica.touch(started)
        if self._status.report("connection", None):
            _log.info("denylist: the store's file is read again, %d entries", len(self._replica))
        return sequence

    async def _settle(self, history: History, sequence: int) -> bool:
        """Decide about entries that the load did not see; False if some could not be written back."""
        touched = await self._watch_thread(lambda: self._reader.keys_changed_after(sequence))
        refused: str | None = None
        for keys in self._replica.unmarked(self._mark):
            await asyncio.sleep(0)
            unseen = [key for key in keys if key not in touched]
            for batch in _batches(unseen):
                lost = self._sort_out(batch, history)
                if not lost:
                    continue
                try:
                    await self._command(partial(self._writer.insert_missing, lost))
                    self._status.count("written_back", len(lost))
                except StoreError as fault:
                    refused = str(fault)
                    self._status.count("write_back_failures", len(lost))
        sentence = None if refused is None else "the store lost entries and refuses to take them back"
        if self._status.report("write_back", sentence) and sentence:
            _log.warning("denylist: %s", sentence)
        return refused is None

    def _sort_out(self, keys: list[str], history: History) -> list[Known]:
        now = self._wall()
        lost: list[Known] = []
        for key in keys:
            known = self._replica.known(key)
            if known is None:
                continue
            if self._coverage.of(self._prefix + key) == history or (known.expires_at or now + 1) <= now:
                self._replica.remove(key)
            else:
                self._replica.mark(key, self._mark)
                lost.append(known)
        return lost

    async def _keep_tidy(self) -> None:
        """Delete what has ended; each worker does, and finds little to do."""
        while True:
            await asyncio.sleep(_TIDY_S)
            try:
                is_more = True
                while is_more:
                    is_more = await self._command(partial(self._writer.delete_ended, self._wall(), _PAGE))
            except StoreError as fault:
                _log.info("denylist: ended entries were not deleted: %s", fault)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def add(self, entry: Entry) -> None:
        """Put an entry in; returns once it is on disk. Raises `StoreError`."""
        expires_at = None if entry.ttl_s is None else self._wall() + entry.ttl_s
        known = Known(entry.key, entry.value, expires_at)
        await self._command(lambda: self._writer.insert(known))

    async def remove(self, key: str) -> bool:
        """Take an entry out; False if there was none. Raises `StoreError`."""
        return await self._command(lambda: self._writer.delete(key, self._wall()))

    async def entries(self, kind: str | None = None, issuer: str | None = None) -> AsyncIterator[Entry]:
        """All entries, or those of a kind or issuer, sorted by key. Raises `StoreError`."""
        after = ""
        while rows := await self._command(partial(self._writer.page, after, _PAGE)):
            now = self._wall()
            for row in rows:
                parsed = parse_key(row.key)
                if parsed is None or kind not in (None, parsed[0]) or issuer not in (None, parsed[1]):
                    continue
                ttl_s = None if row.expires_at is None else row.expires_at - now
                if ttl_s is None or ttl_s > 0:
                    yield Entry(*parsed, row.value, ttl_s)
            after = rows[-1].key

    async def lookup(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values the file has for these keys now; shares its query with the look-ups of the same loop turn."""
        return await self._lookups.ask(keys)

    async def _values(self, keys: list[str]) -> dict[str, bytes | None]:
        rows = await self._command(lambda: self._writer.values(keys, self._wall()))
        return {key: rows[key].encode("utf-8", "surrogateescape") if key in rows else None for key in keys}

    # --- threads -----------------------------------------------------------------------------------------------------

    async def _watch_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._watching, call)

    async def _command(self, call: Callable[[], T]) -> T:
        """The result of a call on the writer's connection, opened or opened anew if need be."""
        loop = asyncio.get_running_loop()
        try:
            # SQLite waits for a lock as long as the timeout; a disk that hangs is given up after twice that.
            async with asyncio.timeout(2 * self._timeout_s + 0.5):
                return await loop.run_in_executor(self._commands, lambda: self._writer.current(call))
        except TimeoutError as late:
            raise StoreUnavailable("the store did not answer in time") from late
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL):
                raise StoreRefused(f"the store refuses: {_reason(fault)}") from fault
            raise StoreUnavailable(f"the store is not available: {_reason(fault)}") from fault
        except (sqlite3.Error, OSError, RuntimeError) as fault:
            raise StoreUnavailable(f"the store is not available: {_reason(fault)}") from fault


def _reason(fault: BaseException) -> str:
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    name = getattr(fault, "sqlite_errorname", None)
    return str(name or type(fault).__name__)


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _PAGE):
        yield keys[start : start + _PAGE]
