"""A verdict says what the figures say: the right way round, and never without both of them."""

from __future__ import annotations

import pytest

from tests.benchmarks.targets import TARGETS, Target, Verdict, judge
from tests.benchmarks.works import Result, in_turn

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


def test_ratio_within_rounds() -> None:
    """The ratio is the median of those of the rounds, so a machine that was slow in one of them moves nothing."""
    result = Result("warm-ES256", "warm")
    for slowness, ours, theirs in (
        (1, 50.0, 100.0),
        (3, 50.0, 100.0),
        (1, 60.0, 100.0),
        (9, 40.0, 100.0),
        (2, 50, 100),
    ):
        result.add("gateway", {"cpu_us": ours * slowness})
        result.add("envoy", {"cpu_us": theirs * slowness})
    verdict = next(verdict for verdict in judge({"warm-ES256": result}) if verdict.target.against == "envoy")
    assert verdict.ratio == pytest.approx(0.5)
    assert verdict.spread == pytest.approx((0.5, 0.5))
    assert (verdict.ours, verdict.theirs) == (100, 200)


def test_rounds_without_a_partner() -> None:
    """A peer that was left out after two rounds is compared in these two."""
    result = Result("warm-ES256", "warm")
    for ours in (50.0, 60.0, 90.0):
        result.add("gateway", {"cpu_us": ours})
    for theirs in (100.0, 100.0):
        result.add("envoy", {"cpu_us": theirs})
    assert result.ratios("gateway", "envoy", "cpu_us") == [0.5, 0.6]


def test_nobody_has_a_place_of_his_own() -> None:
    """Each round begins with the next one; the turn before the first round, with the last."""
    assert ["".join(in_turn("abc", turn)) for turn in range(-1, 4)] == ["cab", "abc", "bca", "cab", "abc"]


def test_missing_peer() -> None:
    """A peer that was left out leaves a target unmeasured, not met."""
    result = Result("warm-ES256", "warm")
    result.add("gateway", {"cpu_us": 50.0, "rps": 1.0})
    verdicts = judge({"warm-ES256": result})
    assert len(verdicts) == sum(target.work == "warm-ES256" for target in TARGETS)
    assert not any(verdict.is_measured or verdict.is_met for verdict in verdicts)
