"""What the denylist tells about itself: how it is kept current, what is wrong, and what it has counted.

    unread ──(snapshot)──▶ restored ──┐
       └──────────────────────────────┴──(first load)──▶ tracking | rescan | polling

`tracking` and `polling` are told of each change (by Redis, or by SQLite's change counter); `rescan` reads everything
again every few seconds, because `CLIENT TRACKING` is forbidden. A lost connection does not change the mode; it shows
as staleness.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from gateway.telemetry.sample import Histogram, Sample

Mode = Literal["unread", "restored", "tracking", "rescan", "polling"]
MODES: Final[tuple[Mode, ...]] = ("unread", "restored", "tracking", "rescan", "polling")

_DELAYS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OLDEST_STAMP_S: Final = 60.0

COUNTERS: Final = (
    "loads",
    "changes",
    "connects",
    "connection_losses",
    "written_back",
    "write_back_failures",
    "evicted",
    "ignored_keys",
    "snapshots_written",
    "snapshot_failures",
)


class Status:
    """Plain numbers and sentences; owned by the replica, written by its store, read by health and metrics."""

    __slots__ = ("applied", "counts", "mode", "propagation", "troubles")

    def __init__(self) -> None:
        self.mode: Mode = "unread"
        self.counts: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        # A topic ("connection", "snapshot", …) to a public sentence: no address, no credential, no key.
        self.troubles: dict[str, str] = {}
        self.propagation = Histogram(_DELAYS_S)
        self.applied = Histogram(_DELAYS_S)

    def count(self, counter: str, by: int = 1) -> None:
        """Add to one of `COUNTERS`."""
        self.counts[counter] += by

    def report(self, topic: str, sentence: str | None) -> bool:
        """Note what is wrong with a topic, or with None that nothing is; True if that is new."""
        if self.troubles.get(topic) == sentence:
            return False
        if sentence is None:
            del self.troubles[topic]
        else:
            self.troubles[topic] = sentence
        return True

    def observe_stamp(self, value: str | None, now: float) -> None:
        """Measure the way from writer to gateway if `value` is the moment of the revocation, to the millisecond.

        Whole seconds are left out: they are too coarse to measure a way of milliseconds, and so are clocks that differ.
        """
        if value is None or "." not in value:
            return
        try:
            delay = now - float(value)
        except ValueError:
            return
        if -0.05 <= delay <= _OLDEST_STAMP_S:
            self.propagation.observe(max(delay, 0.0))

    def samples(self) -> Iterator[Sample]:
        """Mode as one of its names, counters, troubles, and two histograms.

        `gateway_denylist_propagation_seconds`: from the moment a writer put into the value until it is in force here.
        `gateway_denylist_apply_seconds`: from the word that something changed until it is in force here.
        """
        for mode in MODES:
            yield Sample("gateway_denylist_mode", {"mode": mode}, float(mode == self.mode))
        yield Sample("gateway_denylist_troubles", {}, len(self.troubles))
        for counter, value in self.counts.items():
            yield Sample(f"gateway_denylist_{counter}_total", {}, value)
        yield from self.propagation.samples("gateway_denylist_propagation_seconds", {})
        yield from self.applied.samples("gateway_denylist_apply_seconds", {})
