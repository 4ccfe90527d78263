"""The denylist in Redis: standalone, behind Sentinels, or a Cluster; followed master by master.

The store owns the topology: it starts a `Follower` for each master and stops those that are masters no longer. The
replica counts as loaded once every slot has been, and as fresh as the slot heard from longest ago.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, cast

from gateway.config.schema import Denylist
from gateway.denylist.contract import StoreRefused, StoreUnavailable, sweep
from gateway.denylist.follower import Follower
from gateway.denylist.followers import Followers
from gateway.denylist.grammar import Entry, parse_key
from gateway.denylist.history import Coverage
from gateway.denylist.loading import Rules
from gateway.denylist.lookups import Lookups
from gateway.denylist.reading import Found
from gateway.denylist.replica import Replica
from gateway.denylist.snapshot import Snapshot
from gateway.redis.address import Endpoint, parse_redis
from gateway.redis.link import Command, Link, LinkLost, Reply, ReplyError
from gateway.redis.redirection import MOST_HOPS, redirection, target
from gateway.redis.slots import slot_of
from gateway.redis.topology import Masters, Topology

_LEAST_PAUSE_S: Final = 0.1
_NO_STRING: Final = b"?"
_log = logging.getLogger("gateway.denylist")


class RedisStore:
    """The store behind `redis://`, `unix://` and their kin."""

    def __init__(
        self,
        config: Denylist,
        replica: Replica,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ValueError if the address cannot be read, OSError if the authority's file cannot."""
        self._replica = replica
        self._wall = wall
        self._topology = Topology(parse_redis(config.store), config.ca, config.timeout)
        self._rules = Rules(config.prefix, config.rescan, config.max_staleness, wall, monotonic)
        self._coverage = Coverage()
        self._snapshot = Snapshot.of(config, replica, self._coverage, wall, monotonic)
        self._followers = Followers(self._new_follower)
        self._doubt = asyncio.Event()
        self._lookups = Lookups(self._values, config.timeout)

    # --- keeping the replica current ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the replica current until cancelled."""
        if self._snapshot is not None:
            await self._snapshot.restore()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sweep(self._replica, self._wall))
                if self._snapshot is not None:
                    tasks.create_task(self._snapshot.run())
                await self._keep_topology(tasks)
        finally:
            self._followers.forget()
            await self.close()

    async def close(self) -> None:
        """Close the link that asks for the topology; those of the followers end with `run`."""
        self._topology.close()

    async def _keep_topology(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._doubt.clear()
            try:
                self._adopt(await self._topology.masters(), tasks)
            except (LinkLost, ReplyError) as fault:
                reason = fault.code if isinstance(fault, ReplyError) else str(fault)
                if self._replica.status.report("topology", f"nobody tells which servers are masters: {reason}"):
                    _log.warning("denylist: nobody tells which servers are masters: %s", reason)
            else:
                self._replica.status.report("topology", None)
            await asyncio.sleep(_LEAST_PAUSE_S)
            try:
                async with asyncio.timeout(self._topology.ask_again_s):
                    await self._doubt.wait()
            except TimeoutError:
                continue

    def _adopt(self, masters: Masters, tasks: asyncio.TaskGroup) -> None:
        if self._followers.adopt(masters, tasks) and (len(masters) > 1 or self._topology.ask_again_s):
            _log.info("denylist: following %d masters", len(masters))

    def _new_follower(self, endpoint: Endpoint, slots: frozenset[int]) -> Follower:
        async def dial(on_push: Callable[[list[Reply]], None]) -> Link:
            return await self._topology.dial(endpoint, on_push)

        return Follower(
            self._rules,
            self._replica,
            self._coverage,
            name=str(endpoint),
            slots=slots,
            dial=dial,
            read_elsewhere=self._read_elsewhere,
            on_contact=self._note_contact,
            on_doubt=self._doubt.set,
        )

    def _note_contact(self) -> None:
        contact = self._followers.contact
        if contact is None:
            return
        self._replica.touch(contact)
        if self._followers.loaded:
            self._replica.loaded = True
            self._replica.status.mode = "tracking" if self._followers.tracking else "rescan"

    # --- commands ----------------------------------------------------------------------------------------------------

    async def add(self, entry: Entry) -> None:
        """Put an entry in; returns once Redis has it. Raises `StoreError`."""
        life = () if entry.ttl_s is None else ("PX", max(1, round(entry.ttl_s * 1000)))
        await self._command(entry.key, ("SET", self._rules.prefix + entry.key, entry.value, *life))

    async def remove(self, key: str) -> bool:
        """Take an entry out; False if there was none. Raises `StoreError`."""
        return bool(await self._command(key, ("DEL", self._rules.prefix + key)))

    async def entries(self, kind: str | None = None, issuer: str | None = None) -> AsyncIterator[Entry]:
        """All entries, or those of a kind or issuer, master by master. Raises `StoreError`."""
        try:
            for endpoint in self._followers.masters or await self._topology.masters():
                link = await self._topology.dial(endpoint)
                try:
                    async for entry in self._list(link, kind, issuer):
                        yield entry
                finally:
                    link.close()
        except (LinkLost, ReplyError) as fault:
            raise _public(fault) from fault

    async def lookup(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values Redis has for these keys now; shares its round trip with the look-ups of the same loop turn."""
        return await self._lookups.ask(keys)

    async def _values(self, keys: list[str]) -> dict[str, bytes | None]:
        by_follower: dict[Follower, list[str]] = {}
        try:
            for key in keys:
                follower = self._followers.of_slot(slot_of(self._rules.prefix + key))
                if follower is None:
                    raise LinkLost("not connected")
                by_follower.setdefault(follower, []).append(key)
            parts = await asyncio.gather(*(self._values_from(*part) for part in by_follower.items()))
        except (LinkLost, ReplyError) as fault:
            raise _public(fault) from fault
        return {key: value for part in parts for key, value in part.items()}

    async def _values_from(self, follower: Follower, keys: list[str]) -> dict[str, bytes | None]:
        if follower.link is None:
            raise LinkLost("not connected")
        replies = await follower.link.execute(*(("GET", self._rules.prefix + key) for key in keys))
        values: dict[str, bytes | None] = {}
        for key, reply in zip(keys, replies, strict=True):
            if hop := redirection(reply):
                reply = (await self._redirected(hop, ("GET", self._rules.prefix + key)))[0]
            if isinstance(reply, ReplyError) and reply.code != "WRONGTYPE":
                raise reply
            # A key of another type exists, and its value is no moment.
            values[key] = _NO_STRING if isinstance(reply, ReplyError) else _bytes(reply)
        return values

    async def _command(self, key: str, command: Command) -> Reply:
        """The reply of the master that has the key's slot; a link of its own if `run` has none open."""
        slot = slot_of(self._rules.prefix + key)
        try:
            follower = self._followers.of_slot(slot)
            if follower is not None and follower.link is not None:
                reply = (await follower.link.execute(command))[0]
            else:
                reply = (await self._execute_at(await self._owner(slot), command))[0]
            if hop := redirection(reply):
                reply = (await self._redirected(hop, command))[0]
            if isinstance(reply, ReplyError):
                raise reply
        except (LinkLost, ReplyError) as fault:
            self._doubt.set()
            raise _public(fault) from fault
        return reply

    async def _owner(self, slot: int) -> Endpoint:
        for endpoint, slots in (await self._topology.masters()).items():
            if slot in slots:
                return endpoint
        raise LinkLost("no master has this slot")

    async def _execute_at(self, endpoint: Endpoint, *commands: Command) -> list[Reply]:
        open_link = self._followers.link_to(endpoint)
        if open_link is not None:
            return await open_link.execute(*commands)
        link = await self._topology.dial(endpoint)
        try:
            return await link.execute(*commands)
        finally:
            link.close()

    async def _redirected(self, error: ReplyError, *commands: Command) -> list[Reply]:
        """Follow MOVED and ASK."""
        replies: list[Reply] = [error]
        for _ in range(MOST_HOPS):
            hop = next(filter(None, map(redirection, replies)), None)
            if hop is None:
                break
            if hop.code == "MOVED":
                self._doubt.set()
            asking: tuple[Command, ...] = (("ASKING",),) * len(commands) if hop.code == "ASK" else ()
            endpoint = target(hop)
            if asking:
                # ASKING holds for the next command alone.
                mixed = [part for pair in zip(asking, commands, strict=True) for part in pair]
                replies = (await self._execute_at(endpoint, *mixed))[1::2]
            else:
                replies = await self._execute_at(endpoint, *commands)
        return replies

    async def _read_elsewhere(self, key: str, error: ReplyError) -> Found:
        whole = self._rules.prefix + key
        value, ttl_ms = await self._redirected(error, ("GET", whole), ("PTTL", whole))
        if isinstance(ttl_ms, ReplyError):
            raise ttl_ms
        return (value if isinstance(value, str) else None), ttl_ms

    async def _list(self, link: Link, kind: str | None, issuer: str | None) -> AsyncIterator[Entry]:
        start = len(self._rules.prefix)
        async for wholes in _scan(link, self._rules.prefix):
            keys = [whole[start:] for whole in wholes]
            wanted = [
                (key, parsed)
                for key in keys
                if (parsed := parse_key(key)) and kind in (None, parsed[0]) and issuer in (None, parsed[1])
            ]
            reads: list[Command] = []
            for key, _ in wanted:
                reads += [("GET", self._rules.prefix + key), ("PTTL", self._rules.prefix + key)]
            replies = await link.execute(*reads) if reads else []
            for (_, parsed), value, ttl_ms in zip(wanted, replies[::2], replies[1::2], strict=True):
                if isinstance(ttl_ms, int) and ttl_ms != -2:
                    text = value if isinstance(value, str) else ""
                    yield Entry(*parsed, text, None if ttl_ms < 0 else ttl_ms / 1000)


async def _scan(link: Link, prefix: str) -> AsyncIterator[list[str]]:
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    cursor = "0"
    while True:
        cursor, keys = await link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 500)
        # SCAN may give a key twice; within one page that can be told.
        yield list(dict.fromkeys(keys))
        if cursor == "0":
            return


def _bytes(value: Reply) -> bytes | None:
    return None if value is None else cast(str, value).encode("utf-8", "surrogateescape")


def _public(fault: LinkLost | ReplyError) -> StoreUnavailable | StoreRefused:
    if isinstance(fault, LinkLost):
        return StoreUnavailable(f"the store is not available: {fault}")
    return StoreRefused(f"the store refuses: {fault.code}")
