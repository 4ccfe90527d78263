"""The embedded store's file: who may read it."""

from __future__ import annotations

from pathlib import Path

from gateway.denylist.database import Database


def test_the_file_is_for_nobody_else(tmp_path: Path) -> None:
    """Entries name users and sessions, and whoever could write one would deny or let in whom they like."""
    database = Database(tmp_path / "denylist.db", "gateway:deny:", 1.0)
    database.open()
    found = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert found == dict.fromkeys(("denylist.db", "denylist.db-shm", "denylist.db-wal"), "0o600")
    database.close()
