"""Follows one Redis master: everything under the prefix, into the replica, with every change.

    dialling ──▶ tracking on ──▶ loading ──▶ current ──▶ (connection lost) ──▶ dialling …
                                   ▲            │
                                   └────────────┘  the database was flushed, slots were gained, or tracking is forbidden

Tracking is on before the first SCAN, so a change during the load is not missed: it is reported and read again. While
current, a heartbeat proves once a second that nothing is being missed; only what it proves counts as contact.

A key that is reported as changed and that is absent then was deleted, or has expired: it is forgotten, at once. Unless
Redis has just evicted keys (`self_report`): then it goes on denying to its end. What a load does not find: `loading`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Any, Final

from gateway.denylist.history import Coverage
from gateway.denylist.loading import Load, Rules
from gateway.denylist.reading import BATCH, GONE, ReadElsewhere, Reading
from gateway.denylist.replica import Replica
from gateway.denylist.self_report import Evictions, ask, evicted_keys
from gateway.redis.link import Link, LinkLost, Reply, ReplyError

_HEARTBEAT_S: Final = 1.0
_FIRST_RETRY_S: Final = 0.05
_LONGEST_RETRY_S: Final = 2.0
_OWED_RETRY_S: Final = 30.0
_log = logging.getLogger("gateway.denylist")


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
        read_elsewhere: ReadElsewhere,
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
        self._reading = Reading(rules.prefix, read_elsewhere)
        self._on_contact = on_contact
        self._on_doubt = on_doubt
        self._pending: dict[str, float] = {}  # changed keys, by when that was heard; oldest first
        self._in_hand: float | None = None  # when the oldest key of the batch being read was heard of
        self._load: Load | None = None  # the one under way
        self._evictions = Evictions()
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
            self._evictions = Evictions()
            self.tracking = await self._start_tracking(link)
            self.link = link
            await _until_one_fails(
                link.wait_until_lost(), self._keep_loaded(link), self._keep_applying(link), self._keep_beating(link)
            )
        finally:
            self.link = None
            self.loaded = False
            self._load = None
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
            if self._load is not None:
                self._load.touched.add(key)
        self._wake.set()

    async def _keep_applying(self, link: Link) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch = {key: self._pending.pop(key) for key in list(islice(self._pending, BATCH))}
                self._in_hand = next(iter(batch.values()))
                await self._apply(link, batch)
                self._in_hand = None

    async def _apply(self, link: Link, batch: dict[str, float]) -> None:
        found = await self._reading.read(link, list(batch), with_values=True)
        if any(ttl_ms == GONE for _, ttl_ms in found):
            await self._look_for_evictions(link)
        now = self._rules.wall()
        at = self._rules.monotonic()
        for (key, heard), (value, ttl_ms) in zip(batch.items(), found, strict=True):
            if ttl_ms == GONE:
                self._let_go(key, now, at)
            else:
                self._replica.put(key, value, None if ttl_ms < 0 else now + ttl_ms / 1000, self._mark)
                self._status.observe_stamp(value, now)
            self._status.applied.observe(at - heard)
        self._status.count("changes", len(batch))

    async def _look_for_evictions(self, link: Link) -> None:
        if self._evictions.is_known:
            self._evictions.note(await evicted_keys(link), self._rules.monotonic())

    def _let_go(self, key: str, now: float, at: float) -> None:
        """Forget an entry that is gone, unless it may have been evicted before its end."""
        if not self._evictions.is_known:
            return  # the load that is about to start decides
        if not self._evictions.is_recent(at):
            self._replica.remove(key)
            return
        known = self._replica.known(key)
        if known is None:
            return
        if known.expires_at is not None and known.expires_at <= now:
            self._replica.remove(key)
            return
        self._status.count("evicted")
        sentence = "Redis evicts entries: gateways that knew them go on denying, others do not; use noeviction"
        if self._status.report("eviction", sentence):
            _log.warning("denylist: %s", sentence)

    # --- contact -----------------------------------------------------------------------------------------------------

    async def _keep_beating(self, link: Link) -> None:
        pause = min(_HEARTBEAT_S, self._rules.max_staleness_s / 4)
        while True:
            sent = self._rules.monotonic()
            _, role = await link.execute(("PING",), ("ROLE",))
            # A user who may not ask for the role gets an error, and the benefit of the doubt.
            if isinstance(role, list) and role[0] != "master":
                raise LinkLost("it is not a master")
            await self._look_for_evictions(link)
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
            is_settled = await self._load_all(link)
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

    async def _load_all(self, link: Link) -> bool:
        """Read everything; True if nothing is left to be written back."""
        report = await ask(link)
        report.tell(self._status)
        self._evictions.note(report.history.evicted_keys, self._rules.monotonic())
        self._load = Load(
            link,
            self._rules,
            self._reading,
            self._replica,
            self._coverage,
            slots=self.slots,
            history=report.history,
            on_doubt=self._on_doubt,
        )
        self._mark = self._load.mark
        try:
            return await self._load.run()
        finally:
            self._load = None


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
