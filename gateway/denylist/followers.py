"""The followers of all masters of a deployment: one for each, started and stopped as the topology says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gateway.denylist.follower import Follower
from gateway.redis.address import Endpoint
from gateway.redis.link import Link
from gateway.redis.slots import SLOTS
from gateway.redis.topology import Masters


class _Following(NamedTuple):
    follower: Follower
    task: asyncio.Task[None]


class Followers:
    """Who follows which master, and who therefore knows which slot."""

    def __init__(self, new_follower: Callable[[Endpoint, frozenset[int]], Follower]) -> None:
        """`new_follower`: makes the one for a master that has these slots."""
        self._new_follower = new_follower
        self._following: dict[Endpoint, _Following] = {}
        self._by_slot: list[Follower | None] = [None] * SLOTS
        self.masters: Masters = {}

    def adopt(self, masters: Masters, tasks: asyncio.TaskGroup) -> bool:
        """Follow these masters and no others; False if they are the ones known."""
        if masters == self.masters:
            return False
        for endpoint in self._following.keys() - masters.keys():
            self._following.pop(endpoint).task.cancel()
        for endpoint, slots in masters.items():
            following = self._following.get(endpoint)
            if following is None:
                follower = self._new_follower(endpoint, slots)
                self._following[endpoint] = _Following(follower, tasks.create_task(follower.run()))
            elif following.follower.slots != slots:
                following.follower.slots = slots
                following.follower.request_load()
        self.masters = masters
        self._by_slot = [None] * SLOTS
        for following in self._following.values():
            for slot in following.follower.slots:
                self._by_slot[slot] = following.follower
        return True

    def forget(self) -> None:
        """Know of no master; what runs has been stopped by its task group."""
        self._following.clear()
        self._by_slot = [None] * SLOTS
        self.masters = {}

    def of_slot(self, slot: int) -> Follower | None:
        """Who follows the master that has this slot."""
        return self._by_slot[slot]

    def link_to(self, endpoint: Endpoint) -> Link | None:
        """The open link to a master, if its follower has one."""
        following = self._following.get(endpoint)
        return None if following is None else following.follower.link

    @property
    def contact(self) -> float | None:
        """When the slot heard from longest ago was heard from; None while somebody follows not every slot."""
        if not self._following or None in self._by_slot:
            return None
        return min(following.follower.contact for following in self._following.values())

    @property
    def loaded(self) -> bool:
        """Whether each has loaded its slots."""
        return all(following.follower.loaded for following in self._following.values())

    @property
    def tracking(self) -> bool:
        """Whether each is told of changes, and none has to read everything again."""
        return all(following.follower.tracking for following in self._following.values())
