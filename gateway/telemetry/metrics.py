"""Numbers of requests, and a scrape that shows all workers as one gateway.

`RequestMetrics` counts in plain integers as requests end. Each worker's `Scrape` leaves its numbers in the shared
directory once a second; whichever worker is asked adds up the others' files and its own live numbers, by the merge rule
of each metric in the catalogue. So an answer is at most a second behind.

A worker that replaces a dead one takes over the counters of the file it finds in its place: a counter never falls back
because one of several processes began again at zero.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest

from gateway import __version__, build
from gateway.telemetry.catalogue import CATALOGUE, Merge, family_of
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.runtime import Runtime
from gateway.telemetry.sample import Histogram, Sample, Sampled

logger = logging.getLogger("gateway.metrics")

_BUILD = build()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHARE_S = 1.0
SLICE = 256  # samples taken between two turns of the loop

DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SWITCHED = 101  # a WebSocket lasts as long as its user stays, which would say nothing about requests
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Labels = tuple[tuple[str, str], ...]
Numbers = dict[tuple[str, Labels], float]


class _Count:
    """A number that grows; its owner looks it up once, to read and to write."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class _RouteNumbers:
    """What is counted of one route; "" is the route of requests that matched none."""

    __slots__ = ("bytes_in", "bytes_out", "counts", "durations", "heads")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int, str], _Count] = {}  # by method, status, code
        self.durations: Histogram = Histogram(DURATIONS_S)
        self.heads: Histogram = Histogram(DURATIONS_S)
        self.bytes_in = 0
        self.bytes_out = 0

    def count_of(self, method: str, status: int, code: str) -> _Count:
        """Where requests of this kind are counted. Methods come from strangers: those we do not know share a label."""
        return self.counts.setdefault((method if method in METHODS else "OTHER", status, code), _Count())


class RequestMetrics:
    """Counts of the requests of one worker. Written by the event loop only."""

    __slots__ = ("_remembered", "_routes")

    def __init__(self) -> None:
        self._routes: dict[str, _RouteNumbers] = {}
        self._remembered = 0

    def record(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        numbers: _RouteNumbers | None = self._routes.get(exchange.route)
        if numbers is None:
            numbers = self._routes[exchange.route] = _RouteNumbers()
        count: _Count | None = numbers.counts.get((exchange.method, exchange.status, exchange.code))
        if count is None:
            count = numbers.count_of(exchange.method, exchange.status, exchange.code)
        count.number += 1
        if exchange.status != SWITCHED:
            numbers.durations.observe(exchange.duration_s)
        if exchange.head_s >= 0:
            numbers.heads.observe(exchange.head_s)
        numbers.bytes_in += exchange.bytes_in
        numbers.bytes_out += exchange.bytes_out
        if exchange.token_cached:
            self._remembered += 1

    def samples(self) -> Iterator[Sample]:
        """By route; may be taken in slices while requests are recorded."""
        yield Sample("gateway_tokens_remembered_total", {}, self._remembered)
        for route, numbers in list(self._routes.items()):
            labels = {"route": route}
            for (method, status, code), count in list(numbers.counts.items()):
                told = {**labels, "method": method, "status": str(status), "code": code}
                yield Sample("gateway_requests_total", told, count.number)
            yield from numbers.durations.samples("gateway_request_duration_seconds", labels)
            yield from numbers.heads.samples("gateway_upstream_head_seconds", labels)
            yield Sample("gateway_request_body_bytes_total", labels, numbers.bytes_in)
            yield Sample("gateway_response_body_bytes_total", labels, numbers.bytes_out)


class ProcessNumbers:
    """What the operating system says of this process."""

    def samples(self) -> Iterator[Sample]:
        """CPU, memory and descriptors; what a platform does not tell is left out."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield Sample("gateway_process_cpu_seconds_total", {}, usage.ru_utime + usage.ru_stime)
        yield Sample("gateway_build", {"version": __version__, "build": _BUILD}, 1)
        if sys.platform == "linux":
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                yield Sample("gateway_process_memory_bytes", {}, pages * os.sysconf("SC_PAGE_SIZE"))
                # Linux 6.2 and later count by themselves; to list twenty thousand takes 20 ms and more.
                open_fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
                yield Sample("gateway_process_open_fds", {}, open_fds)


def number(samples: Iterable[Sample]) -> Numbers:
    """Samples as one mapping; equal ones are added up."""
    numbers: Numbers = {}
    for name, labels, value in samples:
        key = (name, tuple(sorted(labels.items())))
        numbers[key] = numbers.get(key, 0.0) + value
    return numbers


def is_cumulative(sample_name: str) -> bool:
    """Whether the value only ever grows in one process; KeyError for a name that is not in the catalogue."""
    return CATALOGUE[family_of(sample_name)].type != "gauge"


def merge(views: Sequence[Numbers]) -> Numbers:
    """The workers' numbers as one gateway's, each by the rule of its metric."""
    rules: dict[Merge, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}
    values: defaultdict[tuple[str, Labels], list[float]] = defaultdict(list)
    for view in views:
        for key, value in view.items():
            values[key].append(value)
    return {key: rules[CATALOGUE[family_of(key[0])].merge](found) for key, found in values.items()}


def render(numbers: Numbers) -> bytes:
    """The Prometheus text format, families in the catalogue's order."""
    families: dict[str, Family] = {}
    for (name, labels), value in numbers.items():
        family = family_of(name)
        if family not in families:
            metric = CATALOGUE[family]
            # The library wants a counter's name without the `_total` that its samples carry.
            families[family] = Family(family.removesuffix("_total"), metric.help, metric.type)
        families[family].add_sample(name, dict(labels), value)
    return generate_latest(_Families([families[name] for name in CATALOGUE if name in families]))


class _Families:
    """What `generate_latest` asks of a registry."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """The families, ready made."""
        return self._families


class Scrape:
    """The numbers of all workers, seen from one of them."""

    def __init__(self, runtime: Runtime, sources: Callable[[], Iterable[Sampled]]) -> None:
        """`sources` gives this worker's objects at the moment of asking: a new configuration brings new ones."""
        self._runtime = runtime
        self._sources = sources
        self._process = ProcessNumbers()
        self._sharing = asyncio.Lock()
        self._file = runtime.directory / f"worker-{runtime.worker}.json"
        self._inherited = {key: value for key, value in _read(self._file).items() if is_cumulative(key[0])}

    async def run(self) -> None:
        """Share this worker's numbers every second, and once more at the end."""
        try:
            while True:
                await self._share()
                await asyncio.sleep(SHARE_S)
        finally:
            _write(self._file, self._with_inherited(number(self._samples())))

    async def _share(self) -> Numbers:
        async with self._sharing:  # or older numbers might replace newer ones
            numbers = await self._own()
            await asyncio.to_thread(_write, self._file, numbers)
            return numbers

    async def exposition(self) -> bytes:
        """The answer to a scrape. What it shows is shared first: no later answer of any worker shows less."""
        own = await self._share()
        return await asyncio.to_thread(self._render, own)

    def _render(self, own: Numbers) -> bytes:
        files = self._runtime.directory.glob("worker-*.json")
        views = [own, *(_read(path) for path in files if path != self._file)]
        merged = merge([view for view in views if view])
        merged["gateway_workers", ()] = len(views)
        return render(merged)

    def _samples(self) -> Iterator[Sample]:
        yield from self._runtime.samples()
        yield from self._process.samples()
        for source in self._sources():
            yield from source.samples()

    async def _own(self) -> Numbers:
        """This worker's numbers, taken in slices: thousands of routes must not hold up the loop."""
        taken: list[Sample] = []
        sources: list[Sampled] = [self._runtime, self._process, *self._sources()]
        for source in sources:
            for sample in source.samples():
                taken.append(sample)
                # Only `RequestMetrics` grows with the number of routes, and it allows being interrupted.
                if len(taken) % SLICE == 0 and isinstance(source, RequestMetrics):
                    await asyncio.sleep(0)
        return self._with_inherited(await asyncio.to_thread(number, taken))

    def _with_inherited(self, numbers: Numbers) -> Numbers:
        for key, value in self._inherited.items():
            numbers[key] = numbers.get(key, 0.0) + value
        return numbers


def _write(path: Path, numbers: Numbers) -> None:
    """Replace the file as a whole: a reader sees the old numbers or the new ones."""
    temporary = path.with_suffix(f".{os.getpid()}.new")
    try:
        with temporary.open("w", encoding="ascii") as file:
            # Line by line, so that the interpreter can switch to the event loop between two of them.
            for (name, labels), value in numbers.items():
                file.write(json.dumps([name, labels, value]) + "\n")
        temporary.replace(path)
    except OSError as exc:
        logger.warning("cannot share metrics with the other workers: %s", exc)


def _read(path: Path) -> Numbers:
    """A worker's shared numbers; nothing when there are none."""
    numbers: Numbers = {}
    try:
        with path.open(encoding="ascii") as file:
            for line in file:
                name, labels, value = json.loads(line)
                numbers[name, tuple((key, text) for key, text in labels)] = value
    except (OSError, ValueError):
        return {}
    return numbers
