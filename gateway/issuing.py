"""The built-in issuer within a gateway: its endpoints on the clients' address, its keys in process, browsers' cookies.

What `app` needs of it in one object; absent where the configuration has no `issuer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.config.schema import Config
from gateway.errors import GatewayError
from gateway.issuer.browser import Browsers
from gateway.issuer.denials import Denylist
from gateway.issuer.endpoints import create_endpoints
from gateway.issuer.endpoints.metadata import well_known_paths
from gateway.issuer.service import Issuer, OwnKeys
from gateway.keys.source import KeySource, keep_fresh
from gateway.mount import Mount, Receive, Send
from gateway.redis.address import parse_redis
from gateway.redis.masters import MasterLinks
from gateway.redis.topology import Topology
from gateway.telemetry.exchange import Exchange
from gateway.upstream.peer import Peers

Message = dict[str, Any]  # ASGI scopes are open mappings

ROUTE = "(issuer)"  # its name in log and metrics; no route can be called so


class Issuing:
    """The issuer of this process, and what stands between it and the requests."""

    def __init__(
        self, config: Config, denylist: Denylist | None, peers: Peers, record: Callable[[Exchange], None]
    ) -> None:
        """`config` has an `issuer`; nothing is opened before `issuer.run` or the first look for keys."""
        own = config.issuer
        assert own is not None
        self.issuer = Issuer(own, denylist, redis=_redis_of(config))
        self.keys: dict[str, KeySource] = {
            own.name: keep_fresh(own.name, OwnKeys(self.issuer), config.issuers[own.name])
        }
        self._browsers = Browsers(self.issuer) if own.web is not None else None
        self._mount = Mount(
            ROUTE,
            create_endpoints(self.issuer),
            own.path,
            exact=well_known_paths(own),
            peers=peers,
            record=record,
        )

    async def admit(self, scope: Message, receive: Receive, send: Send) -> tuple[Message, Send] | None:
        """The request as the routes should see it, and where its response goes; None: it has been answered here."""
        is_own = scope["type"] == "http" and self._mount.owns(scope["raw_path"])
        if self._browsers is not None:
            try:
                scope, send = await self._browsers.admit(scope, send, is_own=is_own)
            except GatewayError as error:
                await self._mount.refuse(error, scope, receive, send)
                return None
        if is_own:
            await self._mount(scope, receive, send)
            return None
        return scope, send


def _redis_of(config: Config) -> MasterLinks | None:
    """Links to the denylist's Redis, for what gateways count together; None where there is no Redis."""
    if config.denylist is None or config.denylist.store.startswith("sqlite://"):
        return None
    topology = Topology(parse_redis(config.denylist.store), config.denylist.ca, config.denylist.timeout)
    return MasterLinks(topology, config.denylist.timeout)
