"""Where revocations from outside come in: each is in the store before it is acknowledged, counted, and on record.

The endpoints of the standards and the admin API say what is to be denied, on whose word and why. This puts it into the
store so that it never undoes a wider denial, and writes one audit line for every change (logger `gateway.audit`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gateway.denylist.contract import Store
from gateway.denylist.grammar import BY_TIME, Entry, cutoff, make_entry
from gateway.telemetry.sample import Sample

Source = Literal["revocation_endpoint", "backchannel_logout", "shared_signals", "admin_api", "command_line"]
Outcome = Literal["accepted", "ignored", "refused", "failed"]
"""In the store; genuine but nothing to do; not genuine or not understood; could not be stored or verified now."""

_AUDIT = logging.getLogger("gateway.audit")


@dataclass(frozen=True, slots=True)
class Word:
    """On whose word something is revoked, and why."""

    source: Source
    who: str
    why: str


class Intake:
    """The way into one store. One for all generations; counts what came."""

    def __init__(self, store: Store, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall = wall
        self._counts: dict[tuple[Source, Outcome], int] = {}

    async def put(self, entries: Iterable[Entry], word: Word) -> None:
        """Put entries into the store, in their order; returns once it has them all. Raises `StoreError`.

        Doing it again changes nothing, so a sender that got no answer may repeat itself.
        """
        for entry in entries:
            wider = await self._widened(entry)
            if wider is not None:
                await self._store.add(wider)
            audit("revoked", entry.key, word, ttl_s=entry.ttl_s)

    async def _widened(self, entry: Entry) -> Entry | None:
        """The entry that denies this and what is denied already; None if the present one suffices."""
        if entry.kind not in BY_TIME:
            return entry
        [present] = await self._store.lookup([entry.key])
        if present is None:
            return entry
        already = cutoff(present)
        if already > self._wall():
            return None  # somebody denied more than the past, which is not for us to shorten
        return replace(entry, value=moment_value(already)) if already > cutoff(entry.value) else entry

    async def take_out(self, key: str, word: Word) -> bool:
        """Take an entry out; False if there was none. Raises `StoreError`."""
        was_there = await self._store.remove(key)
        if was_there:
            audit("removed", key, word)
        return was_there

    async def value_of(self, key: str) -> bytes | None:
        """What the store holds under a key now; None if nothing. Raises `StoreError`."""
        [value] = await self._store.lookup([key])
        return value

    def count(self, source: Source, outcome: Outcome) -> None:
        """One message has been dealt with."""
        self._counts[source, outcome] = self._counts.get((source, outcome), 0) + 1

    def samples(self) -> Iterable[Sample]:
        """Messages by where they came in and what came of them."""
        for (source, outcome), count in self._counts.items():
            yield Sample("gateway_revocations_received_total", {"source": source, "outcome": outcome}, count)


def audit(deed: Literal["revoked", "removed"], key: str, word: Word, *, ttl_s: float | None = None) -> None:
    """One line: what was done to which key, on whose word, why; the log's own time says when. ASCII, no line breaks."""
    facts: dict[str, str | float] = {"key": key, "source": word.source, "who": word.who, "why": word.why}
    if ttl_s is not None:
        facts["ttl_s"] = round(ttl_s, 3)
    _AUDIT.info("%s %s", deed, json.dumps(facts))


def denial_up_to(kind: str, issuer: str, ident: str, at: float, ttl_s: float) -> Entry:
    """The entry of a kind by time that denies what was issued at or before a moment. ValueError as `make_entry`."""
    return replace(make_entry(kind, issuer, ident, now=at, ttl_s=ttl_s), value=moment_value(at))


def moment_value(at: float) -> str:
    """A moment as an entry's value: whole seconds without a point, because only writers' own stamps carry one."""
    return str(int(at)) if at == int(at) else f"{at:.3f}"
