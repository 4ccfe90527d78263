"""A verdict says what the figures say: the right way round, and never without both of them."""

from __future__ import annotations

import pytest

from tests.benchmarks.targets import TARGETS, Target, Verdict, judge
from tests.benchmarks.works import Result

_LESS = Target("cpu", "warm-ES256", "cpu_us", "envoy", 0.45)
_MORE = Target("rate", "warm-ES256", "rps", "naive", 20.0, higher_is_better=True)


@pytest.mark.parametrize(
    ("target", "ratio", "met"),
    [
        (_LESS, 0.44, True),
        (_LESS, 0.45, True),
        (_LESS, 0.46, False),
        (_MORE, 21.0, True),
        (_MORE, 20.0, True),
        (_MORE, 19.9, False),
        (_LESS, float("nan"), False),
        (_MORE, float("nan"), False),
    ],
)
def test_limits(target: Target, ratio: float, met: bool) -> None:
    """A limit itself is still met; a figure that is missing meets nothing."""
    assert Verdict(target, ratio).is_met is met


def test_ratio_of_medians() -> None:
    """The ratio is the gateway's median over the rounds divided by the peer's."""
    result = Result("warm-ES256", "warm")
    for ours, theirs in ((50.0, 100.0), (60.0, 120.0), (900.0, 110.0)):
        result.add("gateway", {"cpu_us": ours})
        result.add("envoy", {"cpu_us": theirs})
    ratios = {verdict.target.against: verdict.ratio for verdict in judge({"warm-ES256": result})}
    assert ratios["envoy"] == pytest.approx(60 / 110)


def test_missing_peer() -> None:
    """A peer that was left out leaves a target unmeasured, not met."""
    result = Result("warm-ES256", "warm")
    result.add("gateway", {"cpu_us": 50.0, "rps": 1.0})
    verdicts = judge({"warm-ES256": result})
    assert len(verdicts) == sum(target.work == "warm-ES256" for target in TARGETS)
    assert not any(verdict.is_measured or verdict.is_met for verdict in verdicts)
