"""Redis Cluster's 16,384 hash slots, and whose history covers each of them.

A Redis outside a Cluster counts as one master of all slots, so that there is one rule for both.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

SLOTS: Final = 16384
ALL_SLOTS: Final = frozenset(range(SLOTS))


def slot_of(key: str) -> int:
    """The slot of a whole key, prefix included (Redis Cluster specification, "Key distribution model").

    Only what stands between the first `{` and the next `}` counts, if that is not empty.
    """
    _, brace, rest = key.partition("{")
    if brace:
        tag, brace, _ = rest.partition("}")
        if brace and tag:
            key = tag
    return crc_hqx(key.encode("utf-8", "surrogateescape"), 0) % SLOTS


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
