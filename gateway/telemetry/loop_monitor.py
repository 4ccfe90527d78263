"""How late the event loop comes round: the number that shows blocking work, whoever does it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic

from gateway.telemetry.sample import Histogram, Sample

SAMPLE_S = 0.025  # a stall of 50 ms cannot hide between two looks
WINDOW_S = 60.0
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class LoopMonitor:
    """Sleeps, and measures by how much it overslept. Stalls are kept for a minute, longest first to be asked for."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._stalls = Histogram(BOUNDS_S)
        self._longest: deque[tuple[float, float]] = deque()  # (moment, stall), stalls falling

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = self._clock()
            await asyncio.sleep(SAMPLE_S)
            after = self._clock()
            self.observe(after - before - SAMPLE_S, after)

    def observe(self, stall_s: float, at: float) -> None:
        """Take one measurement, made at the monotonic moment `at`."""
        stall_s = max(0.0, stall_s)
        self._stalls.observe(stall_s)
        longest = self._longest
        while longest and longest[-1][1] <= stall_s:
            longest.pop()
        longest.append((at, stall_s))
        while longest[0][0] < at - WINDOW_S:
            longest.popleft()

    @property
    def longest_s(self) -> float:
        """The longest stall of the last minute."""
        return self._longest[0][1] if self._longest else 0.0

    def samples(self) -> Iterator[Sample]:
        """A histogram, and the longest of the last minute."""
        yield from self._stalls.samples("gateway_loop_stall_seconds", {})
        yield Sample("gateway_loop_stall_max_seconds", {}, self.longest_s)
