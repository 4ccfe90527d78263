"""``python -m tests.benchmarks.denylist``: what the denylist promises at size and in speed, measured and judged.

- *At size*: a gateway that serves all along is given a million entries, by presence and then by moment; then 10,000
  more a second. Counted are the seconds until it denies them, its memory, and how long its loop was held up.
- *Propagation*: two gateways with two workers each, all under load. From the moment the SET is sent to Redis until the
  first refusal has arrived at a client of each worker, which asks every other millisecond. Of four rounds the quietest
  is judged: what else the machine does only ever adds.
- *Live connections*: ten thousand WebSockets and event streams through one gateway, some of them speaking; one user's
  end. See `live_connections`.

Ends with 1 if a figure does not hold. Takes about three minutes and two cores; every process it starts it also ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import timeit
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop

from gateway.denylist.replica import Replica
from tests.benchmarks import upstream
from tests.benchmarks.live_connections import live_connections
from tests.benchmarks.measure import busy_s, cpu_s, percentile
from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Cores, divide_cores, free_port, open_site, raise_file_limit, wait_until_listening
from tests.benchmarks.watched import Figure, Stage, Stalls, Watched
from tests.e2e.load import Client, SteadyLoad, client_of_each_worker
from tests.edge import TestIssuer

ENTRIES: Final = 1_000_000
BURST_PER_S: Final = 10_000
BURST_S: Final = 3.0
ROUNDS: Final = 4
REVOCATIONS: Final = 100
_DEADLINE_S: Final = 300.0
_POLL_S: Final = 0.002

# A million ids of 36 characters, unlike each other in the moment and in the end: nothing for the replica to share.
_FILL = """
math.randomseed(tonumber(ARGV[1]))
local hex = function(length) return string.sub(redis.sha1hex(math.random()), 1, length) end
for number = 1, tonumber(ARGV[2]) do
  local id = hex(8) .. '-' .. hex(4) .. '-' .. hex(4) .. '-' .. hex(4) .. '-' .. hex(12)
  local moment = string.format('%.3f', tonumber(ARGV[4]) - math.random() * 86400)
  redis.call('SET', 'gateway:deny:' .. ARGV[3] .. ':main:' .. id, moment, 'PX', math.random(3600000, 86400000))
end
"""


# --- at size ---------------------------------------------------------------------------------------------------------


async def at_size(stage: Stage, kind: str) -> list[Figure]:
    """A million entries of one kind for a gateway that serves, and a burst on top."""
    fill(stage, kind)
    gateway = Watched(stage.folder, stage.config(1, stage.folder / f"snapshot-{kind}"), stage.site.cores.proxy)
    token = stage.issuer.token(exp=int(time.time()) + 3600)
    count = f'gateway_denylist_entries{{kind="{kind}"}}'
    try:
        await gateway.start()
        async with SteadyLoad(gateway, "/api/orders", lambda: token, pause_s=0.008) as load:
            await asyncio.sleep(2)
            before_mib, stalls = gateway.resident_mib(), Stalls(gateway)
            await stalls.start()
            core, [worker] = stage.site.cores.proxy, gateway.worker_pids()
            cpu, busy = cpu_s(worker), busy_s(core)
            with stage.redis() as client:
                client.swapdb(0, 1)
                started = time.monotonic()
                client.client_kill_filter(_type="normal", skipme=True)
            loaded = await gateway.until(lambda values: values.get(count, 0) >= ENTRIES)
            cpu, busy = cpu_s(worker) - cpu, busy_s(core) - busy
            figures = [
                Figure(f"{kind}: loading {ENTRIES:,} entries while serving", loaded - started, "s", 10),
                Figure("… CPU that the worker used meanwhile", cpu, "s"),
                Figure("… CPU of its core that other programs took meanwhile", max(0.0, busy - cpu), "s"),
                Figure(f"{kind}: added memory of the worker", gateway.resident_mib() - before_mib, "MiB", 150),
                Figure(f"{kind}: loop stall meanwhile, at most", await stalls.longest_ms(), "ms"),
            ]
            await stalls.start()
            await gateway.until(lambda values: values["gateway_denylist_snapshots_written_total"] > 0)
            figures.append(Figure(f"{kind}: loop stall while its snapshot is written", await stalls.longest_ms(), "ms"))
            figures += await burst(stage, gateway, stalls, kind)
            figures.append(Figure(f"{kind}: requests that were not answered 200", len(load.failures), "", 1))
    finally:
        await gateway.stop()
    return figures


def fill(stage: Stage, kind: str) -> None:
    """A million entries into database 1; database 0 is empty."""
    with stage.redis(1) as client:
        client.flushall()
        for batch in range(ENTRIES // 20_000):
            client.eval(_FILL, 0, str(batch), "20000", kind, str(time.time()))
        held = client.dbsize()
        # Ids are drawn at random, so that a few may have come twice.
        client.eval(_FILL, 0, "-1", str(ENTRIES - held), kind, str(time.time()))


async def burst(stage: Stage, gateway: Watched, stalls: Stalls, kind: str) -> list[Figure]:
    """10,000 revocations a second, and how far behind the gateway was when the last one was written."""
    await stalls.start()
    expected = (await gateway.metrics()).get('gateway_denylist_entries{kind="session"}', 0) + BURST_PER_S * BURST_S
    revoking = [sys.executable, "-m", "tests.benchmarks.revoking", str(stage.redis_port), str(BURST_PER_S)]
    process = stage.site.start("revoking", [*revoking, str(BURST_S)], stage.site.cores.load)
    while process.popen.poll() is None:
        await asyncio.sleep(0.01)
    written = time.monotonic()
    caught_up = await gateway.until(lambda values: values['gateway_denylist_entries{kind="session"}'] >= expected)
    stage.site.stop(process)
    return [
        Figure(f"{kind}: loop stall at {BURST_PER_S:,} revocations/s, at most", await stalls.longest_ms(), "ms", 20.1),
        Figure(f"{kind}: behind the last of {BURST_PER_S * BURST_S:,.0f} by less than", caught_up - written, "s"),
    ]


def check() -> list[Figure]:
    """One look at a full replica: for a token that nothing denies, and for one whose subject is denied already."""
    replica, now, drawn = Replica(), time.time(), random.Random(1)
    ids = [str(uuid.UUID(int=drawn.getrandbits(128))) for _ in range(ENTRIES)]
    for number, ident in enumerate(ids):
        kind = ("token", "subject")[number % 2]
        replica.put(f"{kind}:main:{ident}", f"{now:.3f}", now + drawn.uniform(3600, 86400))
    asked = drawn.sample(ids[1::2], 1000)

    def seconds(subjects: list[str]) -> float:
        def ask() -> None:
            for ident in subjects:
                replica.find("main", ident, "session", ident, "client", "key", now, now)

        return min(timeit.repeat(ask, number=20, repeat=15)) / 20 / len(subjects)

    absent = [str(uuid.UUID(int=drawn.getrandbits(128))) for _ in asked]
    return [
        Figure("check of a token that nothing denies, five names", seconds(absent) * 1e6, "µs", 1),
        Figure("check of a token whose subject is denied", seconds(asked) * 1e6, "µs", 1),
    ]


# --- propagation -----------------------------------------------------------------------------------------------------


async def propagation(stage: Stage) -> tuple[list[Figure], list[str]]:
    """Rounds of 100 revocations, each seen by four workers; and what the gateways themselves say about the way."""
    with stage.redis() as client:
        client.flushall()
    everywhere = stage.site.cores.proxy | stage.site.cores.load
    gateways = [Watched(stage.folder, stage.config(2), everywhere) for _ in range(2)]
    token = stage.issuer.token(exp=int(time.time()) + 3600)
    rounds: list[list[float]] = []
    try:
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        fleet = [client for gateway in gateways for client in (await client_of_each_worker(gateway)).values()]
        async with (
            SteadyLoad(gateways[0], "/api/orders", lambda: token, pause_s=0.008) as first,
            SteadyLoad(gateways[1], "/api/orders", lambda: token, pause_s=0.008) as second,
        ):
            started = time.monotonic()
            for _ in range(ROUNDS):
                seen = [await revoke_once(stage, fleet) for _ in range(REVOCATIONS)]
                rounds.append(sorted(delay for delays in seen for delay in delays))
            per_s = (first.answers.total() + second.answers.total()) / (time.monotonic() - started)
        await asyncio.sleep(1.2)  # until the workers have told each other
        histogram = await exported(gateways)
    finally:
        await asyncio.gather(*(gateway.stop() for gateway in gateways))
    rounds.sort(key=lambda delays_ms: percentile(delays_ms, 0.99))
    title = f"from SET to the first refusal, {len(rounds[0]):,} times"
    return [
        Figure("requests per second beside those that ask for the refusal", per_s, "/s"),
        Figure(f"{title}: median", percentile(rounds[0], 0.5), "ms"),
        Figure(f"{title}: p99", percentile(rounds[0], 0.99), "ms", 25.01),
        *(Figure("… p99 of another round", percentile(delays_ms, 0.99), "ms") for delays_ms in rounds[1:]),
    ], histogram


async def revoke_once(stage: Stage, fleet: list[Client]) -> list[float]:
    """The delay in milliseconds at each worker. Ends with TimeoutError if one never refuses."""
    jti = uuid.uuid4().hex
    token = stage.issuer.token(jti=jti)

    async def refused_at(client: Client) -> float:
        while (await client.get("/api/orders", token)).code != "token_revoked":
            await asyncio.sleep(_POLL_S)
        return time.monotonic()

    reader, writer = await asyncio.open_connection("127.0.0.1", stage.redis_port)
    async with asyncio.timeout(10):
        asking = [asyncio.create_task(refused_at(client)) for client in fleet]
        await asyncio.sleep(random.uniform(0.02, 0.04))  # not in step with whatever has a rhythm
        sent = time.monotonic()
        writer.write(f"SET gateway:deny:token:main:{jti} {time.time():.4f} EX 60\r\n".encode())
        await reader.readline()
        moments = await asyncio.gather(*asking)
    writer.close()
    return [(moment - sent) * 1000 for moment in moments]


async def exported(gateways: list[Watched]) -> list[str]:
    """The histogram of propagation that the gateways export, all workers together."""
    name = "gateway_denylist_propagation_seconds_bucket"
    counts: dict[str, float] = {}
    for gateway in gateways:
        for sample, value in (await gateway.metrics()).items():
            if sample.startswith(name):
                bound = sample.partition('le="')[2].rstrip('"}')
                counts[bound] = counts.get(bound, 0) + value
    return [f"  within {bound:>6} s: {count:>6.0f}" for bound, count in counts.items()]


# --- the run ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def staged(cores: Cores) -> AsyncIterator[Stage]:
    """Redis, upstream and issuer, gone when the block ends."""
    programs = Programs()
    with open_site(cores) as site, tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        port = free_port()
        settings = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder)
        process = site.start("redis", [programs.path("redis-server"), "--port", str(port), *settings], cores.load)
        wait_until_listening(port, process)
        _, upstream_port = upstream.start_fixed(site, programs)
        issuer = await TestIssuer.start()
        try:
            yield Stage(site, Path(folder), issuer, upstream_port, port)
        finally:
            await issuer.close()


async def run() -> int:
    """Measure everything, print it, and give the exit code."""
    cores = divide_cores()
    raise_file_limit()
    os.sched_setaffinity(0, cores.load)
    figures = check()
    histogram: list[str] = []
    try:
        async with asyncio.timeout(_DEADLINE_S), staged(cores) as stage:
            for kind in ("token", "subject"):
                figures += await at_size(stage, kind)
            os.sched_setaffinity(0, cores.load | cores.proxy)
            found, histogram = await propagation(stage)
            figures += found
            figures += await live_connections(stage)
    finally:
        print("\n".join(map(str, figures)))
    print("the way from writer to gateway, as the gateways export it (gateway_denylist_propagation_seconds):")
    print("\n".join(histogram))
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    # A `timeout` in front ends the run as Ctrl-C does: every `with` is left, every process stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run()))
