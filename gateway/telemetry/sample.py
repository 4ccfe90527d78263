"""State as plain numbers: how any object of the gateway tells a scrape what it counts.

Objects on the request path keep plain integers as attributes and offer `samples()`; nothing is rendered until somebody
scrapes. The name, help text, type and merge rule of each metric stand once, in `gateway.telemetry.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol


class Sample(NamedTuple):
    """One number of one metric: catalogue name, label values by name, value."""

    name: str
    labels: dict[str, str]
    value: float


class Sampled(Protocol):
    """Anything that can tell its numbers."""

    def samples(self) -> Iterable[Sample]:
        """The current numbers; called at scrape time only."""


class Histogram:
    """Counts of observations by upper bound, with sum and count. One owner, one thread."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` are inclusive upper bounds, ascending; +Inf is implied."""
        self._bounds = bounds
        self._counts: list[int] = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation. From the first bound on: most of what is observed is short."""
        observed: float = value
        bound: float
        at = 0
        for bound in self._bounds:
            if observed <= bound:
                break
            at += 1
        self._counts[at] += 1
        self._sum += value

    def samples(self, name: str, labels: dict[str, str]) -> Iterator[Sample]:
        """Cumulative `<name>_bucket` per bound (label `le`), then `<name>_sum` and `<name>_count`."""
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            le = "+Inf" if bound == float("inf") else repr(bound)
            yield Sample(f"{name}_bucket", {**labels, "le": le}, total)
        yield Sample(f"{name}_sum", labels, self._sum)
        yield Sample(f"{name}_count", labels, total)
