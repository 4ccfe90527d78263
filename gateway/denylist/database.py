"""The SQLite file of the embedded store: its tables and the few statements on them. Blocking; used from one thread.

Keys go in and out without the prefix; in the file they stand with it, as in Redis.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.denylist.group import Known
from gateway.private_file import make_private

T = TypeVar("T")

_POLL_S: Final = 0.01
_REPORT_S: Final = 0.2
_KEPT_CHANGES: Final = 100_000
_MOST_VARIABLES: Final = 500

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL DEFAULT '1', expires_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_end ON entries (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS changes (sequence INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS history (only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS entry_inserted AFTER INSERT ON entries
    BEGIN INSERT INTO changes (key) VALUES (NEW.key); END;
CREATE TRIGGER IF NOT EXISTS entry_updated AFTER UPDATE ON entries
    BEGIN INSERT INTO changes (key) VALUES (NEW.key); END;
CREATE TRIGGER IF NOT EXISTS entry_renamed AFTER UPDATE OF key ON entries WHEN OLD.key <> NEW.key
    BEGIN INSERT INTO changes (key) VALUES (OLD.key); END;
CREATE TRIGGER IF NOT EXISTS entry_deleted AFTER DELETE ON entries
    BEGIN INSERT INTO changes (key) VALUES (OLD.key); END;
"""


class Change(Enum):
    """What a wait ended with."""

    NONE = 0
    COMMITTED = 1
    REPLACED = 2


class Database:
    """One connection to the file. `asked_at` is when it was last asked whether anything changed (monotonic seconds)."""

    def __init__(self, path: Path, prefix: str, timeout_s: float) -> None:
        self.asked_at = float("-inf")
        self._path = path
        self._prefix = prefix
        self._after_prefix = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        self._timeout_s = timeout_s
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._version = -1

    def open(self) -> None:
        """Open the file, making it and its tables if need be. Raises sqlite3.Error or OSError."""
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        make_private(self._path)  # SQLite gives its side files the same mode
        self._inode = self._inode_now()
        self._connection = connection = sqlite3.connect(
            self._path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with self._writing():
            for statement in _statements(_TABLES):
                connection.execute(statement)
            connection.execute("INSERT OR IGNORE INTO history VALUES (1, ?)", (uuid.uuid4().hex,))
        self._version = self._data_version()

    def close(self) -> None:
        """Close the file; an opened one can be opened again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def current(self, call: Callable[[], T]) -> T:
        """The result of a call that uses this database; opened first, unless it is the file now at its path."""
        if self._connection is None or self._inode != self._inode_now():
            self.open()
        return call()

    # --- changes -----------------------------------------------------------------------------------------------------

    def wait_for_change(self, stop: threading.Event, monotonic: Callable[[], float]) -> Change:
        """Wait until another connection commits, the file is replaced, `stop` is set, or 0.2 s have gone."""
        until = monotonic() + _REPORT_S
        while True:
            self.asked_at = monotonic()
            version = self._data_version()
            if version != self._version:
                self._version = version
                return Change.COMMITTED
            if self.asked_at >= until or stop.wait(_POLL_S):
                return Change.NONE if self._inode == self._inode_now() else Change.REPLACED

    def history(self) -> str:
        """The file's identity."""
        return str(self._fetch("SELECT id FROM history")[0][0])

    def sequence(self) -> int:
        """The sequence of the newest change."""
        rows = self._fetch("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
        return int(rows[0][0]) if rows else 0

    def changes_after(self, sequence: int, most: int) -> tuple[int, list[tuple[str, Known | None]]] | None:
        """The next changes with the rows they concern now (None: deleted), and the sequence of the last one.

        None if older changes than asked for have been dropped, so that some may be missing.
        """
        rows = self._fetch(
            "SELECT c.sequence, c.key, e.value, e.expires_at, e.key IS NULL "
            "FROM changes c LEFT JOIN entries e ON e.key = c.key WHERE c.sequence > ? ORDER BY c.sequence LIMIT ?",
            sequence,
            most,
        )
        if not rows:
            return None if self.sequence() > sequence else (sequence, [])
        if rows[0][0] != sequence + 1:
            return None
        found: dict[str, Known | None] = {}
        for _, whole, value, expires_at, is_gone in rows:
            if isinstance(whole, str) and whole.startswith(self._prefix):
                found[whole[len(self._prefix) :]] = None if is_gone else self._known(whole, value, expires_at)
        return int(rows[-1][0]), list(found.items())

    def keys_changed_after(self, sequence: int) -> set[str]:
        """Keys with a change after this sequence."""
        rows = self._fetch("SELECT DISTINCT key FROM changes WHERE sequence > ?", sequence)
        return {str(whole)[len(self._prefix) :] for (whole,) in rows}

    # --- rows --------------------------------------------------------------------------------------------------------

    def page(self, after: str, most: int) -> list[Known]:
        """The next rows under the prefix in the order of their keys, ended ones too."""
        rows = self._fetch(
            "SELECT key, value, expires_at FROM entries WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
            self._prefix + after,
            self._after_prefix,
            most,
        )
        return [self._known(*row) for row in rows]

    def values(self, keys: Sequence[str], now: float) -> dict[str, str]:
        """The values of those keys that have an entry."""
        values: dict[str, str] = {}
        for start in range(0, len(keys), _MOST_VARIABLES):
            part = [self._prefix + key for key in keys[start : start + _MOST_VARIABLES]]
            marks = ",".join("?" * len(part))
            rows = self._fetch(
                f"SELECT key, value, expires_at FROM entries WHERE key IN ({marks}) "  # noqa: S608 - marks alone
                "AND (expires_at IS NULL OR expires_at > ?)",
                *part,
                now,
            )
            values.update((known.key, known.value) for known in (self._known(*row) for row in rows))
        return values

    def insert(self, known: Known) -> None:
        """Put a row in, replacing one of the same key."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET value = excluded.value, expires_at = excluded.expires_at",
                (self._prefix + known.key, known.value, known.expires_at),
            )

    def insert_missing(self, entries: Sequence[Known]) -> None:
        """Put rows in where there are none."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?)",
                [(self._prefix + known.key, known.value, known.expires_at) for known in entries],
            )

    def delete(self, key: str, now: float) -> bool:
        """Delete a row; False if there was none, or one that had ended."""
        with self._writing() as connection:
            rows = connection.execute(
                "DELETE FROM entries WHERE key = ? RETURNING expires_at", (self._prefix + key,)
            ).fetchall()
        return any(expires_at is None or expires_at > now for (expires_at,) in rows)

    def delete_ended(self, now: float, most: int) -> bool:
        """Delete some rows that have ended, and changes nobody should need any more; True if there may be more."""
        ended = self._fetch(
            "SELECT key FROM entries WHERE expires_at IS NOT NULL AND expires_at <= ? LIMIT ?", now, most
        )
        if ended:
            with self._writing() as connection:
                connection.executemany("DELETE FROM entries WHERE key = ? AND expires_at <= ?", [
                    (key, now) for (key,) in ended
                ])  # fmt: skip
        if self._fetch("SELECT 1 FROM changes WHERE sequence <= ? LIMIT 1", self.sequence() - 2 * _KEPT_CHANGES):
            with self._writing() as connection:
                connection.execute("DELETE FROM changes WHERE sequence <= ?", (self.sequence() - _KEPT_CHANGES,))
        return len(ended) == most

    # --- the connection ----------------------------------------------------------------------------------------------

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("not open")
        return self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _fetch(self, statement: str, *parameters: str | float) -> list[tuple[Any, ...]]:
        return self._open_connection().execute(statement, parameters).fetchall()

    def _data_version(self) -> int:
        version: int = self._open_connection().execute("PRAGMA data_version").fetchone()[0]
        return version

    def _inode_now(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _known(self, whole: object, value: object, expires_at: object) -> Known:
        # SQLite keeps what it is given: a moment that is no number ends never.
        end = float(expires_at) if isinstance(expires_at, int | float) else None
        text = value if isinstance(value, str) else "?"
        return Known(str(whole)[len(self._prefix) :], text, end)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, whole triggers included; `executescript` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
