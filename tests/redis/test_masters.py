"""Commands that find the master of their key, whatever has happened to the servers since."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.redis.address import Endpoint, parse_redis
from gateway.redis.link import LinkLost, ReplyError
from gateway.redis.masters import MasterLinks
from gateway.redis.slots import ALL_SLOTS
from gateway.redis.topology import Masters, Topology
from tests.denylist.deployments import ClusterDeployment, SentinelDeployment
from tests.redis_server import RedisServer

pytestmark = pytest.mark.asyncio


def links_to(url: str, timeout_s: float = 5.0, ca: Path | None = None) -> MasterLinks:
    """Links that nobody has used yet."""
    return MasterLinks(Topology(parse_redis(url), ca, timeout_s), timeout_s)


async def test_bytes_come_back_as_they_are(redis_server: RedisServer) -> None:
    """Also those that are no text; many callers share one connection, and errors are raised."""
    links = links_to(redis_server.url)
    value = bytes(range(256))
    await asyncio.gather(*(links.call(f"k{n}", "SET", f"k{n}", value) for n in range(20)))
    assert await asyncio.gather(*(links.call(f"k{n}", "GET", f"k{n}") for n in range(20))) == [value] * 20
    assert len([line for line in redis_server.cli("CLIENT", "LIST").splitlines() if "cmd=get" in line]) == 1
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        await links.call("k0", "LPUSH", "k0", "x")
    links.close()


async def test_a_lost_connection_is_made_anew(own_redis: RedisServer) -> None:
    """Frozen, dead and back: each call has its deadline, and the first after the return is answered."""
    links = links_to(own_redis.url, 0.2)
    await links.call("k", "SET", "k", "1")
    own_redis.freeze()
    with pytest.raises(LinkLost):
        await links.call("k", "GET", "k")
    own_redis.thaw()
    assert await links.call("k", "GET", "k") == b"1"
    own_redis.kill()
    with pytest.raises(LinkLost):
        await links.call("k", "GET", "k")
    own_redis.start()
    assert await links.call("k", "SET", "k", "2") == b"OK"
    links.close()


async def test_a_key_is_followed_to_its_node(cluster_deployment: ClusterDeployment) -> None:
    """Through every node at first, and after its slot has moved."""
    links = links_to(cluster_deployment.url)
    keys = [f"{uuid.uuid4().hex}" for _ in range(30)]
    await asyncio.gather(*(links.call(key, "SET", key, key) for key in keys))
    assert await asyncio.gather(*(links.call(key, "GET", key) for key in keys)) == [key.encode() for key in keys]
    cluster_deployment.move_slot(keys[0])
    assert await links.call(keys[0], "GET", keys[0]) == keys[0].encode()
    links.close()


class _Pointing(Topology):
    """Somebody who names a master, as a Sentinel does."""

    def __init__(self, *servers: RedisServer) -> None:
        super().__init__(parse_redis(servers[0].url), None, 5.0)
        self.servers = list(servers)
        self.asked = 0

    async def masters(self) -> Masters:
        self.asked += 1
        return {Endpoint("127.0.0.1", self.servers[0].port): ALL_SLOTS}


async def test_a_demoted_master_is_left(make_redis: Callable[..., RedisServer]) -> None:
    """It says READONLY once; the next call asks for the master, and finds the new one."""
    old, new = make_redis(), make_redis()
    topology = _Pointing(old, new)
    links = MasterLinks(topology, 5.0)
    assert await links.call("k", "SET", "k", "1") == b"OK"
    old.cli("REPLICAOF", "127.0.0.1", new.port)
    topology.servers.reverse()
    with pytest.raises(ReplyError, match="READONLY"):
        await links.call("k", "SET", "k", "2")
    assert await links.call("k", "SET", "k", "3") == b"OK"
    assert (topology.asked, new.cli("GET", "k")) == (2, "3")
    links.close()


async def test_a_sentinel_names_the_master(sentinel_deployment: SentinelDeployment) -> None:
    """Which takes what is written, and has it."""
    links = links_to(sentinel_deployment.url)
    key = uuid.uuid4().hex
    assert await links.call(key, "SET", key, "1") == b"OK"
    assert sentinel_deployment.current().cli("GET", key) == "1"
    links.close()
