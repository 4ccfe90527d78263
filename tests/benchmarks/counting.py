"""Count what one warm request executes in the gateway, and compare that with the stored baseline.

The baseline (``baseline.json``) has one entry for each Python version, because each compiles to other instructions;
``--store-baseline`` writes it. Timings say how fast a machine is today; these counts say what the code does.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks import load, peers, proving, store, tokens, upstream
from tests.benchmarks.peers import gateway
from tests.benchmarks.peers.peer import Command, Setting
from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Cores, StartFailed, open_site

BASELINE = Path(__file__).with_name("baseline.json")
# Beyond this a difference is reported as a regression; background work moves the counts by less.
TOLERANCE = 1.03
_REQUESTS = 400
# The background works by the clock, so it weighs more on a slow machine: the window with the least of it counts.
_WINDOWS = 4
_TOKENS = 20
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Counted:
    """Counts per request: bytecode instructions, calls, and the instructions by module, the largest first."""

    instructions: float
    calls: float
    by_module: tuple[tuple[str, float], ...]

    def compared(self) -> Iterator[tuple[str, float, float | None]]:
        """Each count with its name and the baseline for this Python, None when there is none."""
        stored = _stored().get(_PYTHON, {})
        yield "bytecode instructions", self.instructions, stored.get("instructions")
        yield "calls, Python and C", self.calls, stored.get("calls")

    def has_regressed(self) -> bool:
        """Whether a count lies more than three percent above the baseline."""
        return any(before is not None and now > before * TOLERANCE for _, now, before in self.compared())

    def store(self) -> None:
        """Make these counts the baseline for this Python."""
        stored = _stored()
        stored[_PYTHON] = {"instructions": round(self.instructions, 1), "calls": round(self.calls, 1)}
        BASELINE.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n")


def count(programs: Programs, cores: Cores) -> Counted:
    """Run the gateway with a counter inside and give the counts. Raises `StartFailed` or `Missing`."""
    with open_site(cores) as site:
        file = site.directory / "counts.json"
        _, upstream_port = upstream.start_fixed(site, programs)
        backing = proving.Backing(programs, "ES256", upstream_port, store.start(site, programs))

        def prepare(setting: Setting) -> Command:
            return [sys.executable, "-m", "tests.benchmarks.counted", file, *gateway.arguments(setting)]

        running = proving.start(site, replace(peers.GATEWAY, prepare=prepare), backing)
        with tokens.token_file("ES256", "warm", tokens.WARM_TOKENS).open() as lines:
            sent = [line.strip() for _, line in zip(range(_TOKENS), lines, strict=False)]
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        _ask(connection, sent, _TOKENS * 2)
        windows = [_count_window(connection, sent, running.pid, file) for _ in range(_WINDOWS)]
        connection.close()
        return min(windows, key=lambda counted: counted.instructions)


def _count_window(connection: http.client.HTTPConnection, sent: list[str], pid: int, file: Path) -> Counted:
    """Counts of some hundred requests in a row, with whatever the background did meanwhile."""
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.1)
    _ask(connection, sent, _REQUESTS)
    os.kill(pid, signal.SIGUSR1)
    return _read(file)


def _ask(connection: http.client.HTTPConnection, sent: list[str], times: int) -> None:
    for number in range(times):
        connection.request("GET", load.TARGET, headers={"authorization": f"Bearer {sent[number % len(sent)]}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise StartFailed(f"the counted gateway answers with {answer.status}")


def _read(file: Path) -> Counted:
    deadline = time.monotonic() + 5
    while not file.exists():
        if time.monotonic() > deadline:
            raise StartFailed("the counted gateway wrote no counts")
        time.sleep(0.02)
    counts = json.loads(file.read_text())
    modules: dict[str, int] = {name: number for name, number in counts["instructions"].items() if name != "tests"}
    by_module = sorted(((name, number / _REQUESTS) for name, number in modules.items()), key=lambda pair: -pair[1])
    return Counted(sum(modules.values()) / _REQUESTS, counts["calls"] / _REQUESTS, tuple(by_module[:20]))


def _stored() -> dict[str, dict[str, float]]:
    if not BASELINE.exists():
        return {}
    stored: dict[str, dict[str, float]] = json.loads(BASELINE.read_text())
    return stored
