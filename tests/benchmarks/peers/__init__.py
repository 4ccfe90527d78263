"""Every proxy that takes part, one module each: how it is configured, and what it was asked to check.

A peer's module writes its configuration for a `Setting` and gives the command that starts it. The configuration is the
best that is honest: one worker, keep-alive on both sides without a request limit, no access log, and only the checks
that the gateway makes as well. Where a peer does less than the gateway, its `checks` says so.
"""

from __future__ import annotations

from tests.benchmarks.peers import envoy, gateway, haproxy, naive, nginx
from tests.benchmarks.peers.peer import Peer, Setting

GATEWAY = gateway.PEER
INTERPRETED = gateway.INTERPRETED
ENVOY = envoy.PEER
ENVOY_CACHE = envoy.PEER_WITH_CACHE
HAPROXY = haproxy.PEER
NGINX = nginx.PEER
NAIVE = naive.PEER

ALL = (GATEWAY, INTERPRETED, ENVOY, ENVOY_CACHE, HAPROXY, NGINX, NAIVE)

__all__ = ["ALL", "ENVOY", "ENVOY_CACHE", "GATEWAY", "HAPROXY", "INTERPRETED", "NAIVE", "NGINX", "Peer", "Setting"]
