"""What the gateway's figures have to be, as ratios to a peer's figures of the same run.

A ratio is the median of the ratios of each round, in which both were measured seconds apart: the machine's speed drifts
from minute to minute, and the ratio of two medians compares moments of different speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks import measure
from tests.benchmarks.works import Result


@dataclass(frozen=True)
class Target:
    """`figure` of `row` divided by the same figure of `against`; at most `limit`, or at least if `higher_is_better`."""

    title: str
    work: str
    figure: str
    against: str
    limit: float
    higher_is_better: bool = False
    row: str = "gateway"


@dataclass(frozen=True)
class Verdict:
    """A target with the ratio that was measured; NaN when one side has no figure."""

    target: Target
    ratio: float  # the median over the rounds
    spread: tuple[float, float] = (math.nan, math.nan)  # the middle half of the rounds' ratios lies in it
    ours: float = math.nan  # the median of the figure
    theirs: float = math.nan  # likewise

    @property
    def is_measured(self) -> bool:
        """Whether both sides have a figure."""
        return not math.isnan(self.ratio)

    @property
    def is_met(self) -> bool:
        """Whether the ratio is within the limit; never without a figure."""
        if self.target.higher_is_better:
            return self.ratio >= self.target.limit
        return self.ratio <= self.target.limit


def _cpu(work: str, title: str, **limits: float) -> list[Target]:
    return [
        Target(f"{title}, CPU per request", work, "cpu_us", against.replace("_", "-"), limit)
        for against, limit in limits.items()
    ]


TARGETS = (
    *_cpu("warm-ES256", "warm ES256", envoy=0.45, envoy_cache=0.95, haproxy=0.60),
    *_cpu("warm-RS256", "warm RS256", envoy=0.65, envoy_cache=1.00, haproxy=1.15),
    *_cpu("cold-ES256", "cold ES256", envoy=1.00, haproxy=1.25),
    *_cpu("cold-RS256", "cold RS256", envoy=1.00),
    Target("p99 at the fixed rate", "rate", "p99_us", "envoy", 1.5),
    Target("p99 at the fixed rate", "rate", "p99_us", "envoy-cache", 1.5),
    Target("1 GiB down, MB/s", "bulk", "download_mb_s", "envoy", 0.85, higher_is_better=True),
    Target("1 GiB down, MB/s", "bulk", "download_mb_s", "haproxy", 0.85, higher_is_better=True),
    Target("1 GiB up, MB/s", "bulk", "upload_mb_s", "envoy", 0.85, higher_is_better=True),
    Target("1 GiB up, MB/s", "bulk", "upload_mb_s", "haproxy", 0.85, higher_is_better=True),
    Target("memory per idle connection", "idle", "bytes_per_connection", "envoy", 1.0),
    Target(
        "denylist of 1,000,000 against 0, CPU per request",
        *("denylist", "cpu_us", "gateway-0"),
        limit=1.03,
        row="gateway-1000000",
    ),
    Target("warm ES256, requests/s", "warm-ES256", "rps", "naive", 20.0, higher_is_better=True),
    Target("warm RS256, requests/s", "warm-RS256", "rps", "naive", 20.0, higher_is_better=True),
)


def judge(results: Mapping[str, Result]) -> list[Verdict]:
    """A verdict for every target whose work was done."""
    return [_verdict(results[target.work], target) for target in TARGETS if target.work in results]


def _verdict(result: Result, target: Target) -> Verdict:
    ratios = sorted(result.ratios(target.row, target.against, target.figure))
    return Verdict(
        target,
        measure.median(ratios),
        (measure.percentile(ratios, 0.25), measure.percentile(ratios, 0.75)),
        result.middle(target.row, target.figure),
        result.middle(target.against, target.figure),
    )
