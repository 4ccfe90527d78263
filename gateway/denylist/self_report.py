"""What a Redis says about itself: whose data it holds, and whether it throws entries away when memory is short.

An evicted entry looks like a deleted one: its change is reported, and then it is not there. The counter `evicted_keys`
tells them apart: as long as it has not moved, nothing was evicted, and what is absent was deleted. Around the time of
a move nobody can know, so absence then means nothing (see `Evictions`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.denylist.history import History
from gateway.denylist.status import Status
from gateway.redis.link import Link, LinkLost, Reply, ReplyError

_log = logging.getLogger("gateway.denylist")

_DOUBT_S: Final = 2.0
"""For how long after an eviction absence means nothing: the counter is asked every second, a report may lag behind."""

_UNKNOWN: Final = "-"


@dataclass(frozen=True, slots=True)
class SelfReport:
    """One server at one moment. `eviction_policy` is "" where it cannot evict, and None where it may not be asked."""

    history: History
    eviction_policy: str | None

    def tell(self, status: Status) -> None:
        """Say in health and log what the operator should change, if anything."""
        if self.eviction_policy is None:
            sentence = "Redis does not permit INFO: evicted entries cannot be told from deleted ones"
        elif self.eviction_policy:
            sentence = f"Redis may evict entries (maxmemory-policy {self.eviction_policy}); use noeviction"
        else:
            status.report("eviction", None)
            return
        if status.report("eviction", sentence):
            _log.warning("denylist: %s", sentence)


async def ask(link: Link) -> SelfReport:
    """The server's report. Raises `LinkLost` for one that is not a master.

    One who may not ask gets a history of this connection alone: when unsure, entries are kept.
    """
    sections = ("server", "replication", "memory", "stats")
    facts = dict(_facts(await link.execute(*(("INFO", section) for section in sections))))
    if facts.get("role", "master") != "master":
        raise LinkLost("it is not a master")
    if "run_id" not in facts:
        return SelfReport(History(f"connection {id(link)}", "", _UNKNOWN), None)
    policy = facts.get("maxmemory_policy", "noeviction")
    history = History(facts["run_id"], facts.get("master_replid", ""), facts.get("evicted_keys", _UNKNOWN))
    return SelfReport(history, "" if policy == "noeviction" or facts.get("maxmemory") == "0" else policy)


async def evicted_keys(link: Link) -> str:
    """The server's count of evicted keys, to be compared only; always the same if it may not be asked."""
    return dict(_facts(await link.execute(("INFO", "stats")))).get("evicted_keys", _UNKNOWN)


class Evictions:
    """Whether a server has evicted anything of late. One for each connection, from its first load on."""

    __slots__ = ("_count", "_moved")

    def __init__(self) -> None:
        self._count: str | None = None
        self._moved = float("-inf")

    def note(self, count: str, monotonic: float) -> None:
        """The counter as it was at a moment."""
        if self._count is not None and count != self._count:
            self._moved = monotonic
        self._count = count

    @property
    def is_known(self) -> bool:
        """Whether there is a count to compare with; before the first load there is none."""
        return self._count is not None

    def is_recent(self, monotonic: float) -> bool:
        """Whether an entry that is absent now may have been evicted, by the counter noted last."""
        return monotonic - self._moved < _DOUBT_S


def _facts(replies: list[Reply]) -> Iterator[tuple[str, str]]:
    for reply in replies:
        if isinstance(reply, ReplyError):
            continue
        for line in str(reply).splitlines():
            name, colon, value = line.partition(":")
            if colon:
                yield name, value
