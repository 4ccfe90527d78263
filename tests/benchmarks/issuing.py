"""``python -m tests.benchmarks.issuing``: what a crowd that registers and logs in costs everybody else, judged.

A gateway with its issuer and the default cost of a password hash, on one core. Proxied requests come at a fixed rate,
whether or not those before them were answered, and a request counts from the moment at which it was due. Quiet rounds
alternate with rounds in which 50 people register and log in at the same time; the medians of the rounds' p99 are
compared, so that what else the machine does counts for both.

Ends with 1 if the p99 does not keep within 1.5 times, or a proxied request fails. Takes about two minutes and two
cores; every process it starts it also ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from tests.benchmarks import upstream
from tests.benchmarks.crowd import post
from tests.benchmarks.measure import cpu_s, median, percentile
from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Cores, divide_cores, open_site
from tests.benchmarks.watched import Figure, Watched
from tests.e2e.load import Client

PEOPLE: Final = 50
PER_S: Final = 200
ROUND_S: Final = 5.0
SETTLE_S: Final = 1.0
LIMIT: Final = 1.5


def config_text(store: Path, upstream_port: int) -> str:
    """A gateway with an issuer that asks nobody to wait because of the address they share."""
    return f"""\
server: {{listen: "127.0.0.1:{{port}}"}}
admin: {{listen: "127.0.0.1:{{admin}}"}}
denylist: {{store: "sqlite://{store}/denylist.db"}}
issuer:
  url: http://127.0.0.1:{{port}}/auth
  store: sqlite://{store}/issuer.db
  registration: open
  throttle: {{account: 1000000, address: 1000000}}
identity: {{headers: {{x-user-id: sub}}}}
upstreams: {{app: {{endpoints: ["http://127.0.0.1:{upstream_port}"]}}}}
routes:
  - {{name: api, path: /api/**, upstream: app}}
"""


@dataclass
class OpenLoad:
    """Requests at a fixed rate; how long each took from its moment on, and what was not answered 200."""

    gateway: Watched
    token: str
    taken_s: list[float] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    _free: list[Client] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Requests for so long, and their answers."""
        started, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while sent < seconds * PER_S:
                due = started + sent / PER_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(self._ask(due))
                sent += 1

    async def _ask(self, due: float) -> None:
        client = self._free.pop() if self._free else await Client.connect(self.gateway)
        answer = await client.get("/api/orders", self.token)
        self.taken_s.append(time.monotonic() - due)
        if answer.status != 200:
            self.failures[answer.status] += 1
        self._free.append(client)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._free:
            await client.close()


@dataclass
class Round:
    """What the load met in one round, and what the crowd did meanwhile; times in milliseconds."""

    median_ms: float
    p99_ms: float
    longest_ms: float
    cpu: float  # cores that the gateway used, hashing included
    failures: int
    crowd: dict[str, Any] = field(default_factory=dict)


async def measure(gateway: Watched, token: str, people: int) -> Round:
    """One round, with so many people at the door."""
    load, crowd = OpenLoad(gateway, token), None
    if people:
        crowd = await asyncio.create_subprocess_exec(
            *("nice", "-n", "10", sys.executable, "-m", "tests.benchmarks.crowd", str(gateway.port), str(people)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    said: dict[str, Any] = {}
    try:
        await load.run(SETTLE_S)
        load.taken_s.clear()
        before, started = cpu_s(gateway.pid), time.monotonic()
        await load.run(ROUND_S)
        cpu = (cpu_s(gateway.pid) - before) / (time.monotonic() - started)
    finally:
        await load.close()
        if crowd is not None:
            out, _ = await asyncio.wait_for(crowd.communicate(b""), 30)
            said = json.loads(out)
    taken = sorted(load.taken_s)
    middle, p99, longest = (percentile(taken, share) * 1000 for share in (0.5, 0.99, 1.0))
    return Round(middle, p99, longest, cpu, load.failures.total(), said)


async def run(rounds: int, cores: Cores) -> int:
    """Measure, print, judge."""
    programs = Programs()
    quiet: list[Round] = []
    busy: list[Round] = []
    with open_site(cores) as site, tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        _, upstream_port = upstream.start_fixed(site, programs)
        gateway = Watched(Path(folder), config_text(Path(folder), upstream_port), cores.proxy)
        try:
            await gateway.start()
            answer = await post(
                gateway.port, "/auth/register", {"username": "steady", "password": "correct horse battery"}
            )
            token: str = json.loads(answer.body)["access_token"]
            await OpenLoad(gateway, token).run(2.0)
            for _ in range(rounds):
                for people, found in ((0, quiet), (PEOPLE, busy)):
                    found.append(await measure(gateway, token, people))
                    show(people, found[-1])
                await asyncio.sleep(2)  # until the last hashes are done
        finally:
            await gateway.stop()
    figures = judge(quiet, busy)
    print("\n".join(map(str, figures)))
    return 0 if all(figure.holds for figure in figures) else 1


def show(people: int, found: Round) -> None:
    """One line per round."""
    print(
        f"{people:>3} people: median {found.median_ms:6.2f} ms  p99 {found.p99_ms:6.2f} ms  longest "
        f"{found.longest_ms:7.2f} ms  cores {found.cpu:.2f}  {json.dumps(found.crowd) if found.crowd else ''}",
        flush=True,
    )


def judge(quiet: list[Round], busy: list[Round]) -> list[Figure]:
    """The medians of the rounds, and how they compare."""
    without, beside = (median([found.p99_ms for found in rounds]) for rounds in (quiet, busy))
    served = [found.crowd["served"] / (ROUND_S + SETTLE_S) for found in busy]
    return [
        Figure(f"median of proxied requests, {PER_S} a second, nobody at the door", _median_of(quiet), "ms"),
        Figure(f"median of proxied requests beside {PEOPLE} parallel log-ins", _median_of(busy), "ms"),
        Figure("p99 of proxied requests, nobody at the door", without, "ms"),
        Figure(f"p99 of proxied requests beside {PEOPLE} parallel log-ins", beside, "ms"),
        Figure("… as a multiple", beside / without, "", LIMIT),
        Figure("registrations and log-ins served per second", median(served), "/s"),
        Figure("proxied requests that failed", sum(found.failures for found in [*quiet, *busy]), "", 1),
    ]


def _median_of(rounds: list[Round]) -> float:
    return median([found.median_ms for found in rounds])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a crowd that logs in costs everybody else.")
    parser.add_argument("--rounds", type=int, default=7)
    cores = divide_cores()
    os.sched_setaffinity(0, cores.load)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run(parser.parse_args().rounds, cores)))
