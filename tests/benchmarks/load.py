"""Run the load against one proxy and give what it saw: wrk for short requests, our own `clients` for everything else.

wrk sends the next of the tokens with every request (``wrk.lua``) and measures latency closed-loop: its p50 and p99 say
how long a request takes when 32 are always waiting. Latency at a fixed rate comes from `clients.rate`, because wrk has
no fixed rate and h2load cannot change a header from one request to the next.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Cores, last_line

CONNECTIONS = 32
TARGET = "/api/orders/42?expand=items"
_SCRIPT = Path(__file__).with_name("wrk.lua")
_GRACE_S = 30.0


class LoadFailed(Exception):
    """The load did not get the answers it must get; the figures of that round mean nothing."""


@dataclass(frozen=True)
class Answered:
    """What wrk saw in one round."""

    requests: int
    duration_s: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Slice:
    """Consecutive tokens of a file; `once` stops the load when each has been sent, otherwise they are sent in turn."""

    file: Path
    first: int
    count: int
    once: bool = False


@dataclass(frozen=True)
class Load:
    """Drives load from the load's cores at a proxy's port."""

    programs: Programs
    cores: Cores

    def ask(self, port: int, tokens: Slice, for_s: int) -> Answered:
        """Send requests over 32 connections for some seconds. Raises `LoadFailed` unless every answer was a 200."""
        command = [
            *(str(self.programs.path("wrk")), "--threads", "1", "--connections", str(CONNECTIONS), "--timeout", "10"),
            *("--duration", f"{for_s}s", "--latency", "--script", str(_SCRIPT), f"http://127.0.0.1:{port}{TARGET}"),
            *("--", str(tokens.file), str(tokens.first), str(tokens.count), "once" if tokens.once else "again"),
        ]
        answer = self._run(command, for_s)
        if answer["bad"] or answer["broken"] or not answer["requests"]:
            raise LoadFailed(f"of {answer['requests']} requests {answer['bad']} refused, {answer['broken']} broken")
        return Answered(
            int(answer["requests"]), answer["duration_us"] / 1e6, float(answer["p50_us"]), float(answer["p99_us"])
        )

    def client(self, name: str, port: int, within_s: float, **options: object) -> dict[str, float]:
        """Run one of `clients` in a process of its own and give the figures it prints."""
        arguments = json.dumps({"port": port, **options})
        return self._run([sys.executable, "-m", "tests.benchmarks.clients", name, arguments], within_s)

    def _run(self, command: list[str], within_s: float) -> dict[str, float]:
        cores = ",".join(map(str, sorted(self.cores.load)))
        name, pinned = Path(command[0]).name, ["taskset", "--cpu-list", cores, *command]
        try:
            done = subprocess.run(pinned, timeout=within_s + _GRACE_S, check=False, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"{name} was not done after {within_s + _GRACE_S:g} s") from None
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not lines:
            raise LoadFailed(f"{name} ended with {done.returncode}: {last_line(done.stderr or done.stdout)}")
        answer: dict[str, float] = json.loads(lines[-1])
        return answer
