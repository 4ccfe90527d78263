"""Follows one Redis master: everything under the prefix, into the replica, with every change.

    dialling ──▶ tracking on ──▶ loading ──▶ current ──▶ (connection lost) ──▶ dialling …
                                   ▲            │
                                   └────────────┘  the database was flushed, slots were gained, or tracking is forbidden

Tracking is on before the first SCAN, so a change during the load is not missed: it is reported and read again. While
current, a heartbeat proves once a second that nothing is being missed; only what it proves counts as contact.

**What an absent key means.** A key that Redis reports as changed and that is absent then was deleted, or has expired:
it is forgotten here, at once. A key that a *load* does not find is different, because nobody saw it go:

- the server's history (`slots.History`) is the one the replica last agreed with → it was deleted meanwhile: forgotten;
- any other history → it may have been lost (restarted empty, an older replica promoted): it keeps denying, and is
  written back with what is left of its time, unless it exists by then (`SET NX`: several gateways may do this at once).

So nothing that is still valid is un-revoked by an outage. The price: a deletion made while a gateway was out of contact
*and* Redis lost its history may be undone, and has to be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from gateway.denylist.grammar import is_by_time
from gateway.denylist.link import Command, Link, LinkLost, Reply, ReplyError
from gateway.denylist.replica import Replica
from gateway.denylist.slots import ALL_SLOTS, Coverage, History, slot_of

_SCAN_COUNT: Final = 500
_BATCH: Final = 500
_HEARTBEAT_S: Final = 1.0
_FIRST_RETRY_S: Final = 0.05
_LONGEST_RETRY_S: Final = 2.0
_OWED_RETRY_S: Final = 30.0
_GONE: Final = -2  # PTTL of a key that does not exist; -1: it never expires
_log = logging.getLogger("gateway.denylist")


@dataclass(frozen=True, slots=True)
class Rules:
    """What all followers of a store share."""

    prefix: str
    rescan_s: float
    max_staleness_s: float
    wall: Callable[[], float]
    monotonic: Callable[[], float]


Found = tuple[str | None, int]
"""One key as a server has it: its value where that was asked for, and PTTL in milliseconds."""


class Follower:
    """Keeps the replica current with one master. Started by its store, which reads `link`, `loaded` and `contact`."""

    def __init__(
        self,
        rules: Rules,
        replica: Replica,
        coverage: Coverage,
        *,
        name: str,
        slots: frozenset[int],
        dial: Callable[[Callable[[list[Reply]], None]], Awaitable[Link]],
        read_elsewhere: Callable[[str, ReplyError], Awaitable[Found]],
        on_contact: Callable[[], None],
        on_doubt: Callable[[], None],
    ) -> None:
        """`dial` opens a link; `read_elsewhere` follows a redirection; `on_doubt` asks for the topology anew."""
        self.name = name
        self.slots = slots
        self.link: Link | None = None
        self.tracking = False
        self.loaded = False
        self.contact = float("-inf")
        self._rules = rules
        self._replica = replica
        self._status = replica.status
        self._coverage = coverage
        self._dial = dial
        self._read_elsewhere = read_elsewhere
        self._on_contact = on_contact
        self._on_doubt = on_doubt
        self._pending: dict[str, float] = {}  # changed keys, by when that was heard; oldest first
        self._in_hand: float | None = None  # when the oldest key of the batch being read was heard of
        self._touched: set[str] | None = None  # keys that changed during the load under way
        self._wake = asyncio.Event()
        self._reload = asyncio.Event()
        self._mark = 0
        self._retry_s = _FIRST_RETRY_S

    def request_load(self) -> None:
        """Read everything again as soon as possible."""
        self._reload.set()

    async def run(self) -> None:
        """Follow until cancelled, reconnecting with growing, jittered pauses."""
        try:
            while True:
                try:
                    await self._follow()
                except (LinkLost, ReplyError) as fault:
                    self._lose(fault)
                await asyncio.sleep(self._retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret
                self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S, self._rules.max_staleness_s / 4)
        finally:
            self._status.report(self._topic, None)

    @property
    def _topic(self) -> str:
        return f"connection {self.name}"

    def _lose(self, fault: LinkLost | ReplyError) -> None:
        # An error of Redis may quote what it was sent; its code says enough.
        reason = f"Redis answered {fault.code}" if isinstance(fault, ReplyError) else str(fault)
        self._status.count("connection_losses")
        self._on_doubt()
        if self._status.report(self._topic, f"the store is out of contact: {reason}"):
            _log.warning("denylist: %s is out of contact: %s", self.name, reason)

    async def _follow(self) -> None:
        link = await self._dial(self._hear)
        try:
            self._status.count("connects")
            self._pending.clear()
            self._reload.clear()
            self.tracking = await self._start_tracking(link)
            self.link = link
            await _until_one_fails(
                link.wait_until_lost(), self._keep_loaded(link), self._keep_applying(link), self._keep_beating(link)
            )
        finally:
            self.link = None
            self.loaded = False
            self._touched = None
            self._in_hand = None
            link.close()

    async def _start_tracking(self, link: Link) -> bool:
        """Whether Redis will report changes; False if it forbids that, as some managed ones do."""
        try:
            await link.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._rules.prefix)
        except ReplyError as error:
            if error.code not in ("NOPERM", "ERR"):
                raise
            sentence = f"CLIENT TRACKING is refused: everything is read again every {self._rules.rescan_s:g} s"
            if self._status.report("tracking", sentence):
                _log.warning("denylist: %s", sentence)
            return False
        self._status.report("tracking", None)
        return True

    # --- changes -----------------------------------------------------------------------------------------------------

    def _hear(self, frame: list[Reply]) -> None:
        """Take note of a push frame; only invalidations matter."""
        if len(frame) < 2 or frame[0] != "invalidate":
            return
        if frame[1] is None:  # the whole database was emptied
            self.loaded = False
            self._reload.set()
            return
        heard = self._rules.monotonic()
        start = len(self._rules.prefix)
        for whole in frame[1]:
            key = whole[start:]
            self._pending.setdefault(key, heard)
            if self._touched is not None:
                self._touched.add(key)
        self._wake.set()

    async def _keep_applying(self, link: Link) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch = {key: self._pending.pop(key) for key in list(islice(self._pending, _BATCH))}
                self._in_hand = next(iter(batch.values()))
                await self._apply(link, batch)
                self._in_hand = None

    async def _apply(self, link: Link, batch: dict[str, float]) -> None:
        found = await self._read(link, list(batch), with_values=True)
        now = self._rules.wall()
        at = self._rules.monotonic()
        for (key, heard), (value, ttl_ms) in zip(batch.items(), found, strict=True):
            if ttl_ms == _GONE:
                self._replica.remove(key)
            else:
                self._take_in(key, value, ttl_ms, now)
                self._status.observe_stamp(value, now)
            self._status.applied.observe(at - heard)
        self._status.count("changes", len(batch))

    def _take_in(self, key: str, value: str | None, ttl_ms: int, now: float) -> None:
        expires_at = None if ttl_ms < 0 else now + ttl_ms / 1000
        self._replica.put(key, value, expires_at, self._mark)

    # --- contact -----------------------------------------------------------------------------------------------------

    async def _keep_beating(self, link: Link) -> None:
        pause = min(_HEARTBEAT_S, self._rules.max_staleness_s / 4)
        while True:
            sent = self._rules.monotonic()
            _, role = await link.execute(("PING",), ("ROLE",))
            # A user who may not ask for the role gets an error, and the benefit of the doubt.
            if isinstance(role, list) and role[0] != "master":
                raise LinkLost("it is not a master")
            if self.tracking and self.loaded:
                # Invalidations sent before the answer have been heard; those not applied yet hold the contact back.
                heard = [self._in_hand, next(iter(self._pending.values()), None)]
                self.contact = min([sent, *(moment for moment in heard if moment is not None)])
                self._on_contact()
            await asyncio.sleep(pause)

    # --- loading -----------------------------------------------------------------------------------------------------

    async def _keep_loaded(self, link: Link) -> None:
        while True:
            self._reload.clear()
            started = self._rules.monotonic()
            is_settled = await self._load(link)
            if not self._reload.is_set():
                self.loaded = True
                self.contact = max(self.contact, started)
                self._retry_s = _FIRST_RETRY_S
                if self._status.report(self._topic, None):
                    _log.info("denylist: %s is in contact, %d entries", self.name, len(self._replica))
                self._on_contact()
            await self._wait_for_reload(is_settled)

    async def _wait_for_reload(self, is_settled: bool) -> None:
        pauses = [] if self.tracking else [self._rules.rescan_s]
        pauses += [] if is_settled else [_OWED_RETRY_S]
        try:
            async with asyncio.timeout(min(pauses, default=None)):
                await self._reload.wait()
        except TimeoutError:
            return

    async def _load(self, link: Link) -> bool:
        """Read everything; then decide about what was not found. True if nothing is left to be written back."""
        history = await self._read_history(link)
        mark = self._mark = self._replica.next_mark()
        self._touched = set()
        try:
            await self._scan(link)
            is_settled = await self._settle(link, mark, history)
        finally:
            self._touched = None
        if is_settled:
            self._coverage.settle(self.slots, history)
        self._status.count("loads")
        return is_settled

    async def _read_history(self, link: Link) -> History:
        """Who answers. One who may not ask gets a history of this connection alone: when unsure, entries are kept."""
        replies = await link.execute(("INFO", "server"), ("INFO", "replication"), ("INFO", "memory"))
        facts = dict(_facts(replies))
        if facts.get("role", "master") != "master":
            raise LinkLost("it is not a master")
        policy = facts.get("maxmemory_policy", "noeviction")
        is_evicting = policy != "noeviction" and facts.get("maxmemory") != "0"
        sentence = f"Redis may evict entries (maxmemory-policy {policy}); use noeviction" if is_evicting else None
        if self._status.report("eviction", sentence) and sentence:
            _log.warning("denylist: %s", sentence)
        return History(facts.get("run_id", f"connection {id(link)}"), facts.get("master_replid", ""))

    async def _scan(self, link: Link) -> None:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", self._rules.prefix) + "*"
        start = len(self._rules.prefix)
        cursor, keys = "0", list[str]()
        while True:
            scan: Command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            # The next page is asked for together with the entries of the last one: one round trip for both.
            reply, *replies = await link.execute(scan, *self._reads(keys, with_values=False))
            await self._take_in_all(keys, replies)
            if isinstance(reply, ReplyError):
                raise reply
            cursor, keys = reply[0], [whole[start:] for whole in reply[1]]
            if cursor == "0":
                break
        for batch in _batches(keys):
            await self._take_in_all(batch, await link.execute(*self._reads(batch, with_values=False)))

    async def _take_in_all(self, keys: list[str], replies: list[Reply]) -> None:
        """Take in one page of a scan."""
        found = await self._found(keys, replies, with_values=False)
        now = self._rules.wall()
        put, mark = self._replica.put, self._mark
        for key, (value, ttl_ms) in zip(keys, found, strict=True):
            if ttl_ms != _GONE:
                put(key, value, None if ttl_ms < 0 else now + ttl_ms / 1000, mark)

    async def _settle(self, link: Link, mark: int, history: History) -> bool:
        is_everything = self.slots is ALL_SLOTS or len(self.slots) == len(ALL_SLOTS)
        is_owned = None if is_everything else lambda key: slot_of(self._rules.prefix + key) in self.slots
        refused: str | None = None
        for keys in self._replica.unmarked(mark, is_owned):
            await asyncio.sleep(0)
            for batch in _batches(keys):
                lost = await self._sort_out(link, batch, history)
                refused = await self._write_back(link, lost, mark) or refused
        sentence = None if refused is None else f"Redis lost entries and refuses to take them back ({refused})"
        if self._status.report("write_back", sentence) and sentence:
            _log.warning("denylist: %s", sentence)
        return refused is None

    async def _sort_out(self, link: Link, keys: list[str], history: History) -> list[str]:
        """Of keys the scan did not see: takes in what is there after all, forgets the deleted, returns the lost."""
        found = await self._read(link, keys, with_values=False)
        now = self._rules.wall()
        lost: list[str] = []
        for key, (value, ttl_ms) in zip(keys, found, strict=True):
            known = self._replica.known(key)
            if known is None:
                continue
            if ttl_ms != _GONE:
                self._take_in(key, value, ttl_ms, now)
            elif self._touched is not None and key in self._touched:
                continue  # its change was reported: whoever applies that decides
            elif self._coverage.of(self._rules.prefix + key) == history or (known.expires_at or now + 1) <= now:
                self._replica.remove(key)
            else:
                lost.append(key)
        return lost

    async def _write_back(self, link: Link, keys: list[str], mark: int) -> str | None:
        """Put lost entries back where they are missing; the code of the error if Redis refuses any."""
        now = self._rules.wall()
        commands: list[Command] = []
        for key in keys:
            known = self._replica.known(key)
            if known is None:
                continue
            life = () if known.expires_at is None else ("PX", max(1, round((known.expires_at - now) * 1000)))
            commands.append(("SET", self._rules.prefix + key, known.value, "NX", *life))
            self._replica.mark(key, mark)
        if not commands:
            return None
        replies = await link.execute(*commands)
        errors = [reply for reply in replies if isinstance(reply, ReplyError)]
        self._status.count("written_back", len(replies) - len(errors))
        self._status.count("write_back_failures", len(errors))
        if any(error.code in ("MOVED", "ASK") for error in errors):
            self._on_doubt()
        return errors[0].code if errors else None

    # --- reading keys ------------------------------------------------------------------------------------------------

    def _reads(self, keys: Iterable[str], *, with_values: bool) -> Iterator[Command]:
        """PTTL of each key, after its value where that matters: presence alone denies for most kinds."""
        prefix = self._rules.prefix
        for key in keys:
            if with_values or is_by_time(key):
                yield ("GET", prefix + key)
            yield ("PTTL", prefix + key)

    async def _read(self, link: Link, keys: list[str], *, with_values: bool) -> list[Found]:
        replies = await link.execute(*self._reads(keys, with_values=with_values))
        return await self._found(keys, replies, with_values=with_values)

    async def _found(self, keys: list[str], replies: list[Reply], *, with_values: bool) -> list[Found]:
        found: list[Found] = []
        answers = iter(replies)
        for key in keys:
            value = next(answers) if with_values or is_by_time(key) else None
            ttl_ms = next(answers)
            if type(ttl_ms) is ReplyError:
                if ttl_ms.code not in ("MOVED", "ASK"):
                    raise ttl_ms
                value, ttl_ms = await self._read_elsewhere(key, ttl_ms)
            # A key of another type has no value that could be a moment: it denies everything.
            found.append((value if type(value) is str else None, ttl_ms))
        return found


async def _until_one_fails(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all of them until one raises, and raise that.

    Not a task group: before Python 3.13 one that is cancelled while a child fails forgets that it was cancelled.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _facts(replies: list[Reply]) -> Iterator[tuple[str, str]]:
    for reply in replies:
        if isinstance(reply, str):
            for line in reply.splitlines():
                name, colon, value = line.partition(":")
                if colon:
                    yield name, value


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]
