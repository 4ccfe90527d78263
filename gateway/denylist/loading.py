"""One load: everything that a Redis master has under the prefix, and a decision about everything it does not have.

**What an absent key means.** A key that Redis reports as changed and that is absent then was deleted, or has expired:
the follower forgets it, at once. A key that a *load* does not find is different, because nobody saw it go:

- the server's `history` is the one the replica last agreed with → it was deleted meanwhile: forgotten;
- any other history → it may have been lost (restarted empty, an older replica promoted, evicted): it keeps denying, and
  is written back with what is left of its time, unless it exists by then (`SET NX`: several gateways may do this at
  once).

So nothing that is still valid is un-revoked by an outage. The price: a deletion made while a gateway was out of contact
*and* Redis lost its history may be undone, and has to be repeated.

What is written back is what the replica keeps: moments to the millisecond, ends to the second, rounded up; of the kinds
without a moment the value is lost, which means nothing but says when and by whom, and becomes `1`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.denylist.history import Coverage, History
from gateway.denylist.reading import GONE, Reading, batches
from gateway.denylist.replica import Replica
from gateway.denylist.self_report import evicted_keys
from gateway.redis.link import Command, Link, Reply, ReplyError
from gateway.redis.slots import ALL_SLOTS, slot_of

_SCAN_COUNT: Final = 500
_log = logging.getLogger("gateway.denylist")


@dataclass(frozen=True, slots=True)
class Rules:
    """What all followers of a store share."""

    prefix: str
    rescan_s: float
    max_staleness_s: float
    wall: Callable[[], float]
    monotonic: Callable[[], float]


class Load:
    """A load under way. `touched` is told of each key that changes meanwhile: whoever applies that decides about it."""

    def __init__(
        self,
        link: Link,
        rules: Rules,
        reading: Reading,
        replica: Replica,
        coverage: Coverage,
        *,
        slots: frozenset[int],
        history: History,
        on_doubt: Callable[[], None],
    ) -> None:
        """`slots` are the master's; `history` is its own, asked before; `on_doubt` asks for the topology anew."""
        self.mark = replica.next_mark()
        self.touched: set[str] = set()
        self._link = link
        self._rules = rules
        self._reading = reading
        self._replica = replica
        self._status = replica.status
        self._coverage = coverage
        self._slots = slots
        self._history = history
        self._on_doubt = on_doubt

    async def run(self) -> bool:
        """Read everything; then decide about what was not found. True if nothing is left to be written back."""
        await self._scan()
        is_settled = await self._settle()
        if is_settled:
            self._coverage.settle(self._slots, self._history)
        self._status.count("loads")
        return is_settled

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _scan(self) -> None:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", self._rules.prefix) + "*"
        start = len(self._rules.prefix)

        def page(cursor: str) -> Command:
            return ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)

        reply, *replies = await self._link.execute(page("0"))
        keys: list[str] = []
        while True:
            if isinstance(reply, ReplyError):
                raise reply
            former, keys = keys, [whole[start:] for whole in reply[1]]
            more = [] if reply[0] == "0" else [page(reply[0])]
            # Redis finds the next page and the entries of this one while those of the last are taken in here.
            asked = self._link.begin(*more, *self._reading.commands(keys, with_values=False))
            await self._take_in_all(former, replies)
            if not more:
                break
            reply, *replies = await asked
        await self._take_in_all(keys, await asked)

    async def _take_in_all(self, keys: list[str], replies: list[Reply]) -> None:
        """Take in one page of a scan."""
        found = await self._reading.found(keys, replies, with_values=False)
        now = self._rules.wall()
        put, mark = self._replica.put, self.mark
        for key, (value, ttl_ms) in zip(keys, found, strict=True):
            if ttl_ms != GONE:
                put(key, value, None if ttl_ms < 0 else now + ttl_ms / 1000, mark)

    # --- deciding ----------------------------------------------------------------------------------------------------

    async def _settle(self) -> bool:
        is_everything = self._slots is ALL_SLOTS or len(self._slots) == len(ALL_SLOTS)
        is_owned = None if is_everything else lambda key: slot_of(self._rules.prefix + key) in self._slots
        refused: str | None = None
        for keys in self._replica.unmarked(self.mark, is_owned):
            await asyncio.sleep(0)
            for batch in batches(keys):
                refused = await self._write_back(await self._sort_out(batch)) or refused
        sentence = None if refused is None else f"Redis lost entries and refuses to take them back ({refused})"
        if self._status.report("write_back", sentence) and sentence:
            _log.warning("denylist: %s", sentence)
        return refused is None

    async def _sort_out(self, keys: list[str]) -> list[str]:
        """Of keys the scan did not see: takes in what is there after all, forgets the deleted, returns the lost."""
        found = await self._reading.read(self._link, keys, with_values=False)
        # Asked after the keys were, because Redis may evict at any moment of the load.
        has_evicted = await evicted_keys(self._link) != self._history.evicted_keys
        now = self._rules.wall()
        lost: list[str] = []
        for key, (value, ttl_ms) in zip(keys, found, strict=True):
            known = self._replica.known(key)
            if known is None:
                continue
            if ttl_ms != GONE:
                self._replica.put(key, value, None if ttl_ms < 0 else now + ttl_ms / 1000, self.mark)
            elif key in self.touched:
                continue
            elif (known.expires_at or now + 1) > now and (has_evicted or not self._is_covered(key)):
                lost.append(key)
            else:
                self._replica.remove(key)
        return lost

    def _is_covered(self, key: str) -> bool:
        return self._coverage.of(self._rules.prefix + key) == self._history

    async def _write_back(self, keys: list[str]) -> str | None:
        """Put lost entries back where they are missing; the code of the error if Redis refuses any."""
        now = self._rules.wall()
        commands: list[Command] = []
        for key in keys:
            known = self._replica.known(key)
            if known is None:
                continue
            life = () if known.expires_at is None else ("PX", max(1, round((known.expires_at - now) * 1000)))
            commands.append(("SET", self._rules.prefix + key, known.value, "NX", *life))
            self._replica.mark(key, self.mark)
        if not commands:
            return None
        replies = await self._link.execute(*commands)
        errors = [reply for reply in replies if isinstance(reply, ReplyError)]
        self._status.count("written_back", len(replies) - len(errors))
        self._status.count("write_back_failures", len(errors))
        if any(error.code in ("MOVED", "ASK") for error in errors):
            self._on_doubt()
        return errors[0].code if errors else None
