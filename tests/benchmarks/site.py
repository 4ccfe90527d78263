"""The layout of a run: which core is whose, which ports are taken, which processes have to be stopped again."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STOP_WITHIN_S = 10.0


@dataclass(frozen=True)
class Cores:
    """One core for the proxy that is measured; the rest for load, upstream and Redis."""

    proxy: frozenset[int]
    load: frozenset[int]


def divide_cores() -> Cores:
    """The last core we may use goes to the proxies, all others to the load; with one core a comparison means little."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise SystemExit("the benchmark needs two cores: one for the proxy, one for load and upstream")
    return Cores(proxy=frozenset(mine[-1:]), load=frozenset(mine[:-1]))


def raise_file_limit() -> int:
    """Lift this process's limit of open files, which its children inherit, to the hard limit; returns the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(port: int, process: Process, within_s: float = 30.0) -> None:
    """Return when the port accepts a connection. Raises `StartFailed` when the process ends or time is up."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            raise StartFailed(f"{process.name} ended with {process.popen.returncode}: {process.last_words()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise StartFailed(f"{process.name} does not listen on {port} after {within_s:g} s: {process.last_words()}")


class StartFailed(Exception):
    """A process did not come up, or came up and does not do its work; the text says how."""


@dataclass(frozen=True)
class Process:
    """A process started for the run, in a session of its own, its output in a file."""

    name: str
    popen: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        """The id of the root of its process tree."""
        return self.popen.pid

    def last_words(self) -> str:
        """The last line that it printed, for an error message; where it has ended, that line says why."""
        return last_line(self.output.read_text(errors="replace")) if self.output.exists() else ""

    def stop(self) -> None:
        """End the process and everything in its session; by force when it does not go within ten seconds."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(_STOP_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(_STOP_WITHIN_S)


def last_line(text: str) -> str:
    """The last line that is not blank, cut to a length that fits a report."""
    lines = text.strip().splitlines()
    return lines[-1].strip()[:300] if lines else "no message"


class Site:
    """A directory, a division of cores and the processes running there, all gone when the `with` block ends."""

    def __init__(self, cores: Cores, directory: Path) -> None:
        self.cores = cores
        self.directory = directory
        self._processes: list[Process] = []

    def start(
        self, name: str, command: Sequence[str | Path], on: frozenset[int], extra_env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a command pinned to the given cores from its first instruction on, threads and children included."""
        output = self.directory / f"{name}.out"
        pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(on))), *map(str, command)]
        with output.open("wb") as sink:
            popen = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(extra_env or {})},
                start_new_session=True,
            )
        process = Process(name, popen, output)
        self._processes.append(process)
        return process

    def stop(self, process: Process) -> None:
        """Stop one process before the site itself ends."""
        process.stop()
        self._processes.remove(process)

    def close(self) -> None:
        """Stop everything, the latest first."""
        while self._processes:
            self._processes.pop().stop()


@contextlib.contextmanager
def open_site(cores: Cores) -> Iterator[Site]:
    """A site in a fresh temporary directory; leaving the block stops its processes and removes its files."""
    directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    site = Site(cores, directory)
    try:
        yield site
    finally:
        site.close()
        shutil.rmtree(directory, ignore_errors=True)
