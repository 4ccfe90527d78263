"""Files for one user alone: made before SQLite would make them with the mode that the umask leaves."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read; one that exists is left alone. Raises OSError.

    It is not even opened: closing any descriptor of a file takes away all locks that the process has on it, and SQLite
    would then let another process delete the log that this one still writes to ("How To Corrupt An SQLite Database
    File", §2.2).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
