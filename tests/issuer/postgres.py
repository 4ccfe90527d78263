"""A throwaway PostgreSQL server: started once per test process where its programs are installed.

`tools/prepare postgres` installs them where it can. Debian keeps a server's programs off the PATH, so they are looked
for in its folders too.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.ports import release_port, reserve_port

_USERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root
_PROGRAMS = ("initdb", "postgres", "psql")


def find_programs() -> dict[str, str] | None:
    """The paths of the programs, all of one installation, the newest where there are several; None if there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    for path in (None, *map(str, folders)):
        found = {name: shutil.which(name, path=path) for name in _PROGRAMS}
        if all(found.values()):
            return {name: program for name, program in found.items() if program is not None}
    return None


def why_not() -> str | None:
    """The reason for which no server can be started here; None if it can."""
    if find_programs() is None:
        return "no PostgreSQL programs (initdb, postgres, psql); tools/prepare postgres installs them, or says how"
    if os.geteuid() == 0 and (shutil.which("setpriv") is None or _unprivileged() is None):
        return "PostgreSQL does not run as root, and there is no other user to run it as"
    return None


def _unprivileged() -> pwd.struct_passwd | None:
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


class PostgresServer:
    """One server on loopback, without durability, with a fresh database for whoever asks."""

    def __init__(self) -> None:
        programs = find_programs()
        assert programs is not None, why_not()
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
        self._data = self._folder / "data"
        self._data.mkdir()
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = _unprivileged()
            assert user is not None
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            for path in (self._folder, self._data):
                os.chown(path, user.pw_uid, user.pw_gid)
        self.port = reserve_port()
        self._databases = 0
        init = [programs["initdb"], "-D", str(self._data), "-U", "gateway", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*self._as, *init], check=True, capture_output=True, timeout=60, cwd=self._folder)
        options = [
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-k",
            str(self._folder),
            "-F",
            "-c",
            "log_min_messages=fatal",
        ]
        self._process = subprocess.Popen(
            [*self._as, programs["postgres"], "-D", str(self._data), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while subprocess.run(self._psql("SELECT 1"), capture_output=True, timeout=10).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.1)

    def _psql(self, statement: str) -> list[str]:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "gateway", "-d", "postgres"]
        return [self._programs["psql"], "-X", *address, "-c", statement]

    def fresh(self) -> str:
        """The address of a new, empty database."""
        self._databases += 1
        name = f"issuer{self._databases}"
        subprocess.run(self._psql(f"CREATE DATABASE {name}"), check=True, capture_output=True, timeout=30)
        return f"postgresql+asyncpg://gateway@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        """Stop the server and remove its data."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        release_port(self.port)
        shutil.rmtree(self._folder, ignore_errors=True)
