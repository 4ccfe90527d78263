"""The embedded store's file: who may read it, and that nobody takes away what is written into it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.denylist.database import Database
from gateway.denylist.group import Known


def listed(path: Path) -> list[str]:
    """The keys that another process sees, which then closes the file."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "print(*(row[0] for row in c.execute('SELECT key FROM entries ORDER BY key'))); c.close()"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_file_is_for_nobody_else(tmp_path: Path) -> None:
    """Entries name users and sessions, and whoever could write one would deny or let in whom they like."""
    database = Database(tmp_path / "denylist.db", "gateway:deny:", 1.0)
    database.open()
    found = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert found == dict.fromkeys(("denylist.db", "denylist.db-shm", "denylist.db-wal"), "0o600")
    database.close()


def test_a_process_that_comes_and_goes_takes_no_entry_along(tmp_path: Path) -> None:
    """A second connection of the gateway leaves the locks of the first, so nobody else thinks to be the last one."""
    path = tmp_path / "denylist.db"
    first, second = Database(path, "p:", 1.0), Database(path, "p:", 1.0)
    first.open()
    second.open()
    first.insert(Known("token:main:a", "1", None))
    assert listed(path) == ["p:token:main:a"]
    first.insert(Known("token:main:b", "1", None))
    second.insert(Known("token:main:c", "1", None))
    assert listed(path) == ["p:token:main:a", "p:token:main:b", "p:token:main:c"]
    first.close()
    second.close()
