"""Which Redis servers are masters now: one, the one that the Sentinels name, or those of a Cluster.

Asked again every second where the answer can change; the link used for asking is kept while it works.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.redis.address import Credentials, Endpoint, RedisAddress
from gateway.redis.link import Link, LinkLost, Reply, ReplyError, connect
from gateway.redis.slots import ALL_SLOTS

Masters = dict[Endpoint, frozenset[int]]
"""The slots of each master."""

_ASK_AGAIN_S: Final = 1.0


class Topology:
    """Finds the masters of one address and dials them."""

    def __init__(self, address: RedisAddress, ca: Path | None, timeout_s: float) -> None:
        """Raises OSError if the file with the authority's certificate cannot be read."""
        self._address = address
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context(cafile=None if ca is None else str(ca)) if address.tls else None
        self._scout: tuple[Endpoint, Link] | None = None
        self._seen: tuple[Endpoint, ...] = ()

    @property
    def ask_again_s(self) -> float | None:
        """Seconds until the masters may be others; None if they never are."""
        return None if self._address.deployment == "single" else _ASK_AGAIN_S

    async def dial(
        self, endpoint: Endpoint, on_push: Callable[[list[Reply]], None] | None = None, *, gives_bytes: bool = False
    ) -> Link:
        """An open link to a master. Raises `LinkLost` or `ReplyError`."""
        return await connect(
            endpoint,
            self._address.credentials,
            tls=self._tls,
            timeout_s=self._timeout_s,
            db=self._address.db,
            on_push=on_push,
            gives_bytes=gives_bytes,
        )

    async def masters(self) -> Masters:
        """The masters now. Raises `LinkLost` or `ReplyError` if nobody who would know answers."""
        if self._address.deployment == "single":
            return {self._address.endpoints[0]: ALL_SLOTS}
        fault: LinkLost | ReplyError = LinkLost("nobody to ask")
        for endpoint in self._candidates():
            try:
                return await self._ask(endpoint)
            except (LinkLost, ReplyError) as error:
                fault = error
                self.close()
        raise fault

    def close(self) -> None:
        """Close the link used for asking."""
        if self._scout is not None:
            self._scout[1].close()
            self._scout = None

    def _candidates(self) -> list[Endpoint]:
        """Whom to ask, in order: the one that answered last, the configured, then the Cluster's nodes seen since."""
        first = () if self._scout is None else (self._scout[0],)
        return list(dict.fromkeys((*first, *self._address.endpoints, *self._seen)))

    async def _ask(self, endpoint: Endpoint) -> Masters:
        is_cluster = self._address.deployment == "cluster"
        if self._scout is None or self._scout[0] != endpoint:
            self.close()
            if is_cluster:
                self._scout = endpoint, await self.dial(endpoint)
            else:
                self._scout = endpoint, await self._dial_sentinel(endpoint, self._address.sentinel_credentials)
        link = self._scout[1]
        return await self._ask_cluster(link, endpoint) if is_cluster else await self._ask_sentinel(link)

    async def _dial_sentinel(self, endpoint: Endpoint, credentials: Credentials) -> Link:
        return await connect(endpoint, credentials, tls=self._tls, timeout_s=self._timeout_s, resp3=False)

    async def _ask_sentinel(self, link: Link) -> Masters:
        reply = await link.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
        if not isinstance(reply, list):
            raise LinkLost("the Sentinel does not know this service")
        return {Endpoint(str(reply[0]), int(reply[1])): ALL_SLOTS}

    async def _ask_cluster(self, link: Link, asked: Endpoint) -> Masters:
        # CLUSTER SHARDS would be its successor, but is missing in Redis 6.
        slots: dict[Endpoint, set[int]] = {}
        for first, last, master, *_ in await link.call("CLUSTER", "SLOTS"):
            # A node that does not know its own name means "the host you have asked".
            endpoint = Endpoint(str(master[0] or asked.host), int(master[1]))
            slots.setdefault(endpoint, set()).update(range(int(first), int(last) + 1))
        if not slots:
            raise LinkLost("the node knows no slots")
        self._seen = tuple(slots)
        return {endpoint: frozenset(owned) for endpoint, owned in slots.items()}
