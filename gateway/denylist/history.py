"""Whose history covers each slot: what a load may conclude from the absence of a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.redis.slots import SLOTS, slot_of


class History(NamedTuple):
    """The unbroken life of one data set: the server process, its replication id, and its count of evicted keys.

    While all stay the same, a key that is gone was deleted (or has expired). When one changed, it may as well have been
    lost: a restart without the latest data, a replica promoted before it had everything, a resynchronisation, memory
    that ran short.
    """

    run_id: str
    replication_id: str
    evicted_keys: str = ""


class Coverage:
    """For each slot, the history that the replica's entries were last known to agree with."""

    def __init__(self) -> None:
        self._histories: list[History | None] = [None] * SLOTS

    def of(self, key: str) -> History | None:
        """The history for a whole key, prefix included."""
        return self._histories[slot_of(key)]

    def settle(self, slots: Iterable[int], history: History) -> None:
        """From now on the entries of these slots agree with this history."""
        for slot in slots:
            self._histories[slot] = history

    def to_json(self) -> list[list[Any]]:
        """Runs of equal histories: `[first slot, last slot, *history]`; slots without one are absent."""
        runs: list[list[Any]] = []
        for slot, history in enumerate(self._histories):
            if history is None:
                continue
            if runs and runs[-1][1] == slot - 1 and runs[-1][2:] == list(history):
                runs[-1][1] = slot
            else:
                runs.append([slot, slot, *history])
        return runs

    def restore(self, runs: list[list[Any]]) -> None:
        """Take over what `to_json` gave."""
        for first, last, *history in runs:
            self.settle(range(int(first), int(last) + 1), History(*map(str, history)))
