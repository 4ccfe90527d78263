"""Commands about one key each, sent to whichever master has that key at the moment.

One connection per master, shared by all callers, opened when it is first needed and again when it was lost. The
topology is asked again when an answer says that it has changed, and in the background where it can change unnoticed.
Strings in replies are bytes.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from gateway.redis.address import Endpoint
from gateway.redis.link import Command, Link, LinkLost, Reply, ReplyError
from gateway.redis.redirection import MOST_HOPS, redirection, target
from gateway.redis.slots import slot_of
from gateway.redis.topology import Masters, Topology

_NO_MASTER: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN"})


class MasterLinks:
    """Links to the masters of one deployment; each call has the deadline, whatever it has to wait for."""

    def __init__(self, topology: Topology, timeout_s: float) -> None:
        self._topology = topology
        self._timeout_s = timeout_s
        self._masters: Masters = {}
        self._asked_at = 0.0  # monotonic
        self._asking: asyncio.Task[None] | None = None
        self._links: dict[Endpoint, Link] = {}
        self._dialling: dict[Endpoint, asyncio.Task[Link]] = {}

    async def call(self, key: str, *command: str | bytes | int) -> Reply:
        """The reply to a command about `key`.

        Raises `LinkLost` (unreachable, or no answer within the timeout: nothing is known about the outcome) or
        `ReplyError`.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._call(key, command)
        except TimeoutError as late:
            self._masters = {}
            raise LinkLost(f"no answer within {self._timeout_s * 1000:.0f} ms") from late
        except LinkLost:
            self._masters = {}
            raise
        except ReplyError as error:
            if error.code in _NO_MASTER:
                self._masters = {}
            raise

    async def _call(self, key: str, command: Command) -> Reply:
        endpoint = await self._owner(slot_of(key))
        commands: tuple[Command, ...] = (command,)
        for _ in range(MOST_HOPS):
            reply = (await (await self._link(endpoint)).execute(*commands))[-1]
            if not isinstance(reply, ReplyError):
                return reply
            if redirection(reply) is None:
                raise reply
            endpoint = target(reply)
            # ASKING holds for the next command alone (Redis Cluster specification, "ASK redirection").
            commands = (("ASKING",), command) if reply.code == "ASK" else (command,)
            if reply.code == "MOVED":
                self._masters = {}
        raise LinkLost("redirected too often")

    async def _owner(self, slot: int) -> Endpoint:
        again_s = self._topology.ask_again_s
        if not self._masters:
            await asyncio.shield(self._ask())
        elif again_s is not None and monotonic() - self._asked_at > again_s:
            self._ask()
        for endpoint, slots in self._masters.items():
            if slot in slots:
                return endpoint
        raise LinkLost("no master has this slot")

    def _ask(self) -> asyncio.Task[None]:
        """Ask for the masters, once for everybody who wants to know."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_topology())
            self._asking.add_done_callback(self._asked)
        return self._asking

    async def _ask_topology(self) -> None:
        self._asked_at = monotonic()
        self._masters = await self._topology.masters()
        for endpoint in self._links.keys() - self._masters.keys():
            self._links.pop(endpoint).close()

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # looked at: whoever waits gets it, and nobody may

    async def _link(self, endpoint: Endpoint) -> Link:
        link = self._links.get(endpoint)
        if link is not None and link.is_open:
            return link
        task = self._dialling.get(endpoint)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._topology.dial(endpoint, gives_bytes=True))
            self._dialling[endpoint] = task
            task.add_done_callback(lambda task: self._dialled(endpoint, task))
        return await asyncio.shield(task)

    def _dialled(self, endpoint: Endpoint, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(endpoint, None)
        if not task.cancelled() and task.exception() is None:
            self._links[endpoint] = task.result()

    def close(self) -> None:
        """Close every connection; waiting callers get `LinkLost`."""
        for task in (*self._dialling.values(), *([self._asking] if self._asking else [])):
            task.cancel()
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._masters = {}
        self._topology.close()
