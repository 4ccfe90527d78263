"""Gateways that are measured, and what is told of them: a figure with its limit, memory, and how long a loop stood."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from tests.benchmarks.site import Site, free_port
from tests.e2e.load import read_metrics
from tests.edge import GatewayProcess, TestIssuer, config_text

_STALLS_MS: Final = (1, 2.5, 5, 10, 20, 50, 100, 250, 1000)


@dataclass(frozen=True)
class Figure:
    """One number, and what it may be at most; without a limit it is only told."""

    title: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is below its limit; a NaN is not."""
        return self.limit is None or self.value < self.limit

    def __str__(self) -> str:
        verdict = "" if self.limit is None else f"< {self.limit:g} {self.unit}: {'holds' if self.holds else 'FAILS'}"
        return f"{self.title:<64} {self.value:>9.2f} {self.unit:<4} {verdict}".rstrip()


class Watched(GatewayProcess):
    """A gateway whose loop is looked at every millisecond, on cores of its own."""

    def __init__(self, folder: Path, config: str, cores: frozenset[int]) -> None:
        super().__init__(folder, config, free_port(), free_port())
        self._cores = ",".join(map(str, sorted(cores)))

    async def spawn(self) -> None:
        """Start it, pinned."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("taskset", "--cpu-list", self._cores, sys.executable, "-m", "tests.benchmarks.watchful"),
                *("serve", "--config", str(self.config_path)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def metrics(self) -> dict[str, float]:
        """Everything it exports now."""
        return read_metrics((await self.admin("/metrics")).raw.decode())

    def resident_mib(self) -> float:
        """The memory of its workers."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.worker_pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def until(self, holds: Callable[[dict[str, float]], bool]) -> float:
        """The monotonic moment at which its metrics came to be so, looking five times a second."""
        while not holds(await self.metrics()):
            await asyncio.sleep(0.2)
        return time.monotonic()


@dataclass(frozen=True)
class Stage:
    """What stands around the gateways of a run."""

    site: Site
    folder: Path
    issuer: TestIssuer
    upstream_port: int
    redis_port: int

    def config(
        self, workers: int, snapshot: Path | None = None, *, upstream_port: int = 0, upstream_options: str = ""
    ) -> str:
        """The configuration of one gateway; `upstream_port` is for one in front of another upstream."""
        kept = f", snapshot: {snapshot}" if snapshot else ""
        return config_text(
            self.issuer.yaml(),
            f"http://127.0.0.1:{upstream_port or self.upstream_port}",
            extra=f'denylist: {{store: "redis://127.0.0.1:{self.redis_port}/0"{kept}}}\n',
            workers=workers,
            upstream_options=upstream_options,
        )

    def redis(self, database: int = 0) -> redis.Redis:
        """A client of the run's Redis."""
        return redis.Redis(port=self.redis_port, db=database, socket_timeout=60)


class Stalls:
    """How long a gateway's loop was held up since `start`, by its own histogram."""

    def __init__(self, gateway: Watched) -> None:
        self._gateway = gateway
        self._before: list[float] = []

    async def start(self) -> None:
        """Count from here on."""
        self._before = await self._counts()

    async def longest_ms(self) -> float:
        """The histogram's bound that no stall since has exceeded; infinite if some exceeded the last."""
        for bound, new, old in zip((*_STALLS_MS, float("inf")), await self._counts(), self._before, strict=True):
            if new == old:
                return bound
        return float("inf")

    async def _counts(self) -> list[float]:
        """How many exceeded each bound so far."""
        values = await self._gateway.metrics()
        total = values["gateway_loop_stall_seconds_count"]
        within = [values[f'gateway_loop_stall_seconds_bucket{{le="{bound / 1000!r}"}}'] for bound in _STALLS_MS]
        return [*(total - count for count in within), 0.0]
