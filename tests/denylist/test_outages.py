"""Every outage of the store, caused for real: what the replica knows, claims and tells meanwhile and afterwards."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Denylist
from gateway.denylist.grammar import make_entry
from gateway.denylist.replica import Replica
from gateway.denylist.store import StoreRefused, StoreUnavailable, open_store
from tests.denylist.conftest import Follow, Following, eventually
from tests.denylist.deployments import (
    PREFIX,
    ClusterDeployment,
    ClusterSite,
    RedisSite,
    SentinelDeployment,
    SentinelSite,
    SqliteSite,
)
from tests.denylist.rough_proxy import RoughProxy
from tests.redis_server import RedisServer

pytestmark = pytest.mark.asyncio


def config_for(server: RedisServer, **settings: Any) -> Denylist:
    """The section of the YAML, with a staleness short enough to be waited for."""
    return Denylist.model_validate({"store": server.url, "max_staleness": "400ms", **settings})


def is_stale(gateway: Following) -> bool:
    """Whether requests that want a fresh denylist would be refused."""
    return gateway.replica.is_stale(time.monotonic())


def troubles(gateway: Following) -> str:
    """What the gateway says is wrong."""
    return " ".join(gateway.replica.status.troubles.values())


def fresh_server(server: RedisServer) -> RedisSite:
    """The site of a server that the test has to itself."""
    return RedisSite(server, server.url)


# --- away, and back with everything ----------------------------------------------------------------------------------


async def test_a_frozen_redis_makes_the_replica_stale_and_is_caught_up_with(
    own_redis: RedisServer, follow: Follow
) -> None:
    """SIGSTOP: connections stay open and nothing answers. What was known goes on being denied."""
    site = fresh_server(own_redis)
    site.write("token:main:before", ttl_s=60)
    gateway = await follow(config_for(own_redis))
    own_redis.freeze()
    await eventually(lambda: is_stale(gateway))
    assert gateway.denies("before")
    assert not gateway.replica.health()[0]
    await eventually(lambda: "out of contact: no answer within 250 ms" in troubles(gateway))
    with pytest.raises(StoreUnavailable):
        await gateway.store.add(make_entry("token", "main", "t", now=time.time()))
    own_redis.thaw()
    await eventually(lambda: not is_stale(gateway))
    site.write("token:main:after", ttl_s=60)
    await eventually(lambda: gateway.denies("after"))
    assert gateway.replica.health()[0]
    assert troubles(gateway) == ""


async def test_a_redis_that_refuses_connections_is_waited_for(own_redis: RedisServer, start: Follow) -> None:
    """A gateway may be started first; it is not loaded until there is a Redis."""
    own_redis.kill()
    gateway = await start(config_for(own_redis))
    await eventually(lambda: "cannot connect: ConnectionRefusedError" in troubles(gateway))
    assert not gateway.replica.loaded
    assert is_stale(gateway)
    own_redis.start()
    await eventually(lambda: gateway.replica.loaded)
    assert not is_stale(gateway)


async def test_a_deletion_during_a_lost_connection_is_obeyed(own_redis: RedisServer, follow: Follow) -> None:
    """The same server answers again without the key: it was deleted."""
    site = fresh_server(own_redis)
    site.write("token:main:goes", ttl_s=60)
    site.write("token:main:stays", ttl_s=60)
    async with RoughProxy(own_redis.port) as proxy:
        gateway = await follow(config_for(own_redis, store=f"redis://127.0.0.1:{proxy.port}/0"))
        proxy.is_black_hole = True
        await eventually(lambda: is_stale(gateway))
        site.erase("token:main:goes")
        site.write("token:main:new", ttl_s=60)
        assert gateway.denies("goes")
        proxy.is_black_hole = False
        await eventually(lambda: gateway.denies("new"))
        await eventually(lambda: not gateway.denies("goes"))  # at the end of the load that found the new one
        assert gateway.denies("stays")
        assert gateway.replica.status.counts["written_back"] == 0


async def test_a_slow_redis_slows_propagation_only(own_redis: RedisServer, follow: Follow) -> None:
    """Below the timeout each way, the replica stays fresh; requests never wait for it."""
    site = fresh_server(own_redis)
    async with RoughProxy(own_redis.port) as proxy:
        proxy.delay_s = 0.05
        gateway = await follow(config_for(own_redis, store=f"redis://127.0.0.1:{proxy.port}/0"))
        losses = gateway.replica.status.counts["connection_losses"]
        site.write("token:main:t", ttl_s=60)
        await eventually(lambda: gateway.denies("t"))
        loaded_at = time.monotonic()
        await eventually(lambda: gateway.replica.staleness_s(loaded_at + 1.0) < 0.7)
        assert gateway.replica.status.counts["connection_losses"] == losses


# --- back with nothing -----------------------------------------------------------------------------------------------


async def test_a_redis_restarted_empty_un_revokes_nothing(own_redis: RedisServer, follow: Follow) -> None:
    """Several gateways know the entries: all go on denying, and write back what is left of each entry's time."""
    site = fresh_server(own_redis)
    now = time.time()
    for number in range(50):
        site.write(f"token:main:t{number}", ttl_s=60)
    site.write("token:main:ends", ttl_s=0.6)
    site.write("token:main:forever")
    site.write("subject:main:ada", f"{now:.3f}", ttl_s=60)
    site.write("subject:main:bob", "whatever", ttl_s=60)
    site.write("issuer:main", "1600000000", ttl_s=60)
    gateways = [await follow(config_for(own_redis)) for _ in range(3)]
    own_redis.kill()
    await asyncio.sleep(1.7)  # the time of one entry runs out, rounded up to seconds, while Redis is down
    own_redis.restart(empty=True)
    await eventually(lambda: all(gateway.replica.status.counts["loads"] == 2 for gateway in gateways))
    assert sum(gateway.replica.status.counts["written_back"] for gateway in gateways) >= 53
    assert own_redis.cli("DBSIZE") == "54"
    assert 50 < (site.ttl_s("token:main:t7") or 0) <= 61
    assert own_redis.cli("TTL", f"{PREFIX}token:main:forever") == "-1"
    assert site.ttl_s("token:main:ends") is None
    assert own_redis.cli("GET", f"{PREFIX}subject:main:ada") == f"{now:.3f}"
    assert own_redis.cli("GET", f"{PREFIX}issuer:main") == "1600000000.000"
    newcomer = await follow(config_for(own_redis))
    for gateway in (*gateways, newcomer):
        assert gateway.denies("t0")
        assert gateway.denies("t49")
        find = gateway.replica.find
        assert find("main", None, None, "ada", None, None, now - 1, time.time()) == "subject"
        assert find("main", None, None, "ada", None, None, now + 1, time.time()) is None
        assert find("main", None, None, "bob", None, None, 9e9, time.time()) == "subject"


async def test_a_deletion_after_the_write_back_is_obeyed(own_redis: RedisServer, follow: Follow) -> None:
    """Once in contact again, deleting means deleting, for all gateways."""
    site = fresh_server(own_redis)
    site.write("token:main:t", ttl_s=60)
    gateways = [await follow(config_for(own_redis)) for _ in range(2)]
    own_redis.kill()
    own_redis.restart(empty=True)
    await eventually(lambda: all(gateway.replica.status.counts["loads"] == 2 for gateway in gateways))
    site.erase("token:main:t")
    await eventually(lambda: not any(gateway.denies("t") for gateway in gateways))
    assert site.ttl_s("token:main:t") is None


async def test_a_redis_that_refuses_writes_leaves_the_entries_with_the_gateway(
    make_redis: Callable[..., RedisServer], follow: Follow
) -> None:
    """A user who may only read: nothing can be written back, nothing is un-revoked, and it is said."""
    rules = "on >pw ~* +@read +@connection +client|tracking +info +role"
    server = make_redis("--user", "reader", *rules.split())
    site = fresh_server(server)
    site.write("token:main:t", ttl_s=60)
    gateway = await follow(config_for(server, store=f"redis://reader:pw@127.0.0.1:{server.port}/0"))
    assert gateway.replica.status.mode == "tracking"
    server.kill()
    server.restart(empty=True)
    await eventually(lambda: gateway.replica.status.counts["write_back_failures"] == 1)
    await eventually(lambda: not is_stale(gateway))
    assert gateway.denies("t")
    assert "refuses to take them back (NOPERM)" in troubles(gateway)
    with pytest.raises(StoreRefused, match="NOPERM"):
        await gateway.store.add(make_entry("token", "main", "t", now=time.time()))


async def test_a_redis_out_of_memory_refuses_new_entries_and_serves_the_others(
    own_redis: RedisServer, follow: Follow
) -> None:
    """The writer is told; gateways stay in contact."""
    site = fresh_server(own_redis)
    site.write("token:main:before", ttl_s=60)
    gateway = await follow(config_for(own_redis))
    own_redis.cli("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreRefused, match="OOM"):
        await gateway.store.add(make_entry("token", "main", "t", now=time.time()))
    assert await gateway.store.lookup(["token:main:before"]) == [b"1"]
    asked_at = time.monotonic()
    await eventually(lambda: gateway.replica.staleness_s(asked_at + 1.0) < 0.8)
    site.erase("token:main:before")
    await eventually(lambda: not gateway.denies("before"))


async def test_a_redis_that_may_evict_entries_is_reported(
    make_redis: Callable[..., RedisServer], follow: Follow
) -> None:
    """The operator should know before it happens; while nothing is evicted, deleting means deleting."""
    server = make_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    site = fresh_server(server)
    site.write("token:main:t", ttl_s=60)
    gateway = await follow(config_for(server))
    assert "may evict entries (maxmemory-policy allkeys-lru)" in gateway.replica.health()[1]
    site.erase("token:main:t")
    await eventually(lambda: not gateway.denies("t"))


def evict_all(server: RedisServer, *, but: str) -> None:
    """Let memory run short until only this key and what Redis itself needs is left, then give it back."""
    server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.cli("CONFIG", "SET", "maxmemory", "1")
    with contextlib.suppress(RuntimeError):  # the write is refused in the end, after everything else has gone
        server.cli("SET", but, "1")
    assert server.cli("DBSIZE") == "0"
    server.cli("CONFIG", "SET", "maxmemory", "0")


async def test_an_evicted_entry_is_denied_to_its_end(own_redis: RedisServer, follow: Follow) -> None:
    """Redis throws everything away while the gateway looks on: it says so, and goes on denying."""
    site = fresh_server(own_redis)
    for number in range(20):
        site.write(f"token:main:t{number}", ttl_s=60)
    site.write("token:main:ends", ttl_s=2.5)
    gateway = await follow(config_for(own_redis))
    evict_all(own_redis, but="other")
    await eventually(lambda: gateway.replica.status.counts["evicted"] == 21)
    assert all(gateway.denies(f"t{number}") for number in range(20))
    assert "Redis evicts entries: gateways that knew them go on denying" in gateway.replica.health()[1]
    await eventually(lambda: not gateway.denies("ends"))

    # By now that is some time ago: an entry written and deleted again is deleted.
    site.write("token:main:t1", ttl_s=60)
    await eventually(lambda: gateway.denies("t1", time.time() + 50))
    site.erase("token:main:t1")
    await eventually(lambda: not gateway.denies("t1"))
    assert gateway.denies("t2")

    # And who connects again gives back what is missing.
    own_redis.cli("CLIENT", "KILL", "TYPE", "normal")
    await eventually(lambda: gateway.replica.status.counts["written_back"] == 19)
    assert site.ttl_s("token:main:t2") is not None
    assert site.ttl_s("token:main:t1") is None


async def test_an_entry_evicted_while_the_gateway_was_away_is_written_back(
    own_redis: RedisServer, follow: Follow
) -> None:
    """The server is the one it knew, and yet its absence is no deletion."""
    site = fresh_server(own_redis)
    site.write("token:main:t", ttl_s=60)
    async with RoughProxy(own_redis.port) as proxy:
        gateway = await follow(config_for(own_redis, store=f"redis://127.0.0.1:{proxy.port}/0"))
        proxy.is_black_hole = True
        await eventually(lambda: is_stale(gateway))
        evict_all(own_redis, but="other")
        assert site.ttl_s("token:main:t") is None
        proxy.is_black_hole = False
        await eventually(lambda: gateway.replica.status.counts["written_back"] == 1)
    assert gateway.denies("t")
    assert site.ttl_s("token:main:t") is not None


# --- less than usual is permitted ------------------------------------------------------------------------------------


async def test_where_tracking_is_forbidden_everything_is_read_again(
    make_redis: Callable[..., RedisServer], follow: Follow
) -> None:
    """Entries come and go within the interval; health and metrics say that it is so."""
    server = make_redis("--user", "managed", *"on >pw ~* +@all -client".split())
    site = fresh_server(server)
    url = f"redis://managed:pw@127.0.0.1:{server.port}/0"
    gateway = await follow(config_for(server, store=url, rescan="100ms"))
    assert "CLIENT TRACKING is refused: everything is read again every 0.1 s" in gateway.replica.health()[1]
    modes = {s.labels["mode"]: s.value for s in gateway.replica.samples() if s.name == "gateway_denylist_mode"}
    assert modes["rescan"] == 1
    assert modes["tracking"] == 0
    site.write("token:main:t", ttl_s=60)
    await eventually(lambda: gateway.denies("t"))
    site.erase("token:main:t")
    await eventually(lambda: not gateway.denies("t"))
    assert not is_stale(gateway)
    server.freeze()
    await eventually(lambda: is_stale(gateway))


async def test_a_user_with_the_least_permissions_suffices(
    make_redis: Callable[..., RedisServer], follow: Follow
) -> None:
    """Without INFO and ROLE, an entry that is gone after a lost connection is kept: when unsure, refuse."""
    rules = "on >pw ~gateway:deny:* +hello +auth +select +ping +client|tracking +scan +get +pttl +set +del"
    server = make_redis("--user", "least", *rules.split())
    site = fresh_server(server)
    site.write("token:main:t", ttl_s=60)
    url = f"redis://least:pw@127.0.0.1:{server.port}/0"
    gateway = await follow(config_for(server, store=url))
    assert gateway.replica.status.mode == "tracking"
    server.cli("CLIENT", "KILL", "TYPE", "normal")
    await eventually(lambda: gateway.replica.status.counts["loads"] == 2)
    assert gateway.denies("t")
    site.erase("token:main:t")
    await eventually(lambda: not gateway.denies("t"))


def documented_rules(user: str) -> list[str]:
    """What the manual lets this user do, with the password `pw`."""
    manual = (Path(__file__).parents[2] / "docs" / "revocation.md").read_text(encoding="utf-8")
    found = re.search(rf"^ACL SETUSER {user} (.*)$", manual, re.MULTILINE)
    assert found is not None
    return found[1].replace(">PASSWORD", ">pw").split()


@pytest.mark.parametrize("shape", ["standalone", "cluster"])
async def test_the_documented_permissions_suffice_for_everything(
    shape: str, request: pytest.FixtureRequest, follow: Follow
) -> None:
    """Following, commands, and telling deletions from losses; nothing is said to be wrong."""
    if shape == "cluster":
        site: RedisSite = ClusterSite(request.getfixturevalue("cluster_deployment"))
        servers = request.getfixturevalue("cluster_deployment").nodes
    else:
        site = fresh_server(request.getfixturevalue("own_redis"))
        servers = [site.server]
    site.empty()
    for server in servers:
        server.cli("ACL", "SETUSER", "gateway", *documented_rules("gateway"))
    for number in range(10):
        site.write(f"token:main:t{number}", ttl_s=60)
    gateway = await follow(site.config(store=site.url.replace("://", "://gateway:pw@")))
    entry = make_entry("token", "main", "added", now=time.time(), ttl_s=60)
    await gateway.store.add(entry)
    await eventually(lambda: gateway.denies("added"))
    assert await gateway.store.lookup([entry.key]) == [entry.value.encode()]
    assert len([entry async for entry in gateway.store.entries()]) == 11
    assert await gateway.store.remove(entry.key)
    await eventually(lambda: not gateway.denies("added"))
    loads = gateway.replica.status.counts["loads"]
    for server in servers:
        server.cli("CLIENT", "KILL", "USER", "gateway")
    await eventually(lambda: gateway.replica.status.counts["loads"] >= loads + len(servers))
    site.erase("token:main:t1")
    await eventually(lambda: not gateway.denies("t1"))
    assert gateway.replica.status.mode == "tracking"
    assert troubles(gateway) == ""


async def test_the_documented_permissions_suffice_for_asking_a_sentinel(
    sentinel_deployment: SentinelDeployment, follow: Follow
) -> None:
    """Its users are its own."""
    sentinel_deployment.sentinel("ACL", "SETUSER", "sentinel-reader", *documented_rules("sentinel-reader"))
    site = SentinelSite(sentinel_deployment)
    site.empty()
    url = f"{site.url}?sentinel_username=sentinel-reader&sentinel_password=pw"
    gateway = await follow(site.config(store=url))
    site.write("token:main:t", ttl_s=60)
    await eventually(lambda: gateway.denies("t"))


async def test_credentials_are_never_shown(
    make_redis: Callable[..., RedisServer], start: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password is said to be wrong, without saying which."""
    caplog.set_level(logging.DEBUG)
    server = make_redis("--requirepass", "right")
    config = config_for(server, store=f"redis://somebody:hunter2@127.0.0.1:{server.port}/0")
    gateway = await start(config)
    await eventually(lambda: "Redis answered WRONGPASS" in troubles(gateway))
    with pytest.raises(StoreRefused) as refused:
        await gateway.store.add(make_entry("token", "main", "t", now=time.time()))
    shown = caplog.text + troubles(gateway) + str(refused.value) + repr(gateway.store) + repr(config)
    assert "hunter2" not in shown
    assert "somebody" not in shown


# --- the snapshot ----------------------------------------------------------------------------------------------------


async def test_a_gateway_started_while_redis_is_down_denies_what_it_knew(
    own_redis: RedisServer, follow: Follow, tmp_path: Path
) -> None:
    """It says so, and is as stale as it truly is; an empty Redis is given everything back."""
    site = fresh_server(own_redis)
    site.write("token:main:t", ttl_s=60)
    settings = config_for(own_redis, snapshot=tmp_path / "snapshot", max_staleness="30s")
    await (await follow(settings)).stop()
    own_redis.kill()
    gateway = await follow(settings)
    assert gateway.denies("t")
    assert gateway.replica.health()[1].startswith("restored, 1 entries")
    assert 0 < gateway.replica.staleness_s(time.monotonic()) < 30
    assert not is_stale(gateway)
    assert gateway.replica.is_stale(time.monotonic() + 31)
    own_redis.restart(empty=True)
    await eventually(lambda: gateway.replica.status.mode == "tracking")
    assert 50 < (site.ttl_s("token:main:t") or 0) <= 61  # kept in whole seconds, rounded up


# --- Sentinel and Cluster --------------------------------------------------------------------------------------------


@pytest.fixture
def own_sentinel() -> Iterator[SentinelDeployment]:
    """A deployment of this test alone, to be failed over."""
    deployment = SentinelDeployment()
    yield deployment
    deployment.close()


async def test_a_failover_keeps_every_entry(own_sentinel: SentinelDeployment, follow: Follow) -> None:
    """The master dies, its replica never had the last entry: it is denied all along, and the new master gets it."""
    site = SentinelSite(own_sentinel)
    site.write("token:main:replicated", ttl_s=60)
    gateway = await follow(site.config(max_staleness="5s"))
    site.write("token:main:late", ttl_s=60)
    await eventually(lambda: gateway.denies("late"))
    await eventually(lambda: own_sentinel.replica.cli("DBSIZE") == "2")
    own_sentinel.replica.cli("CONFIG", "SET", "replica-read-only", "no")
    own_sentinel.replica.cli("DEL", f"{PREFIX}token:main:late")
    own_sentinel.master.kill()
    await asyncio.to_thread(_await_promotion, own_sentinel)
    await eventually(lambda: gateway.replica.status.counts["written_back"] == 1)
    assert gateway.denies("replicated")
    assert gateway.denies("late")
    assert own_sentinel.replica.cli("EXISTS", f"{PREFIX}token:main:late") == "1"
    await gateway.store.add(make_entry("token", "main", "new", now=time.time(), ttl_s=60))
    await eventually(lambda: gateway.denies("new"))
    await eventually(lambda: not is_stale(gateway))


def _await_promotion(deployment: SentinelDeployment) -> None:
    from tests.denylist.deployments import wait_until

    def is_master() -> bool:
        try:
            return deployment.replica.cli("ROLE").startswith("master")
        except RuntimeError:
            return False  # it closes its connections when it changes its role

    wait_until(is_master, 30)


async def test_a_moved_slot_is_followed(cluster_deployment: ClusterDeployment, follow: Follow) -> None:
    """Before, during and after the move the entry is denied; then changes are heard from its new node."""
    site = ClusterSite(cluster_deployment)
    site.empty()
    site.write("token:main:moves", ttl_s=60)
    gateway = await follow(site.config())
    seen: list[bool] = []
    watching = asyncio.create_task(_watch(gateway, "moves", seen))
    former = cluster_deployment.owner(f"{PREFIX}token:main:moves")
    await asyncio.to_thread(cluster_deployment.move_slot, f"{PREFIX}token:main:moves")
    assert cluster_deployment.owner(f"{PREFIX}token:main:moves") is not former
    await gateway.store.add(make_entry("token", "main", "moves", now=time.time(), ttl_s=600))
    await eventually(lambda: gateway.denies("moves", time.time() + 300))
    assert await gateway.store.lookup(["token:main:moves"]) != [None]
    watching.cancel()
    assert seen
    assert all(seen)
    loads = gateway.replica.status.counts["loads"]
    await eventually(lambda: gateway.replica.status.counts["loads"] > loads or gateway.replica.loaded)
    site.erase("token:main:moves")
    await eventually(lambda: not gateway.denies("moves"))


async def _watch(gateway: Following, token_id: str, seen: list[bool]) -> None:
    while True:
        seen.append(gateway.denies(token_id))
        await asyncio.sleep(0.001)


async def test_a_lost_node_of_a_cluster_makes_the_whole_stale_and_loses_nothing(follow: Follow) -> None:
    """Changes on the other nodes still arrive; the node that comes back empty is given its entries back."""
    deployment = ClusterDeployment()
    try:
        site = ClusterSite(deployment)
        for number in range(30):
            site.write(f"token:main:t{number}", ttl_s=60)
        gateway = await follow(site.config(max_staleness="600ms"))
        victim = deployment.owner(f"{PREFIX}token:main:t0")
        survivor = deployment.nodes[(deployment.nodes.index(victim) + 1) % 3]
        other = next(n for n in range(1, 30) if deployment.owner(f"{PREFIX}token:main:t{n}") is survivor)
        held = int(victim.cli("DBSIZE"))
        victim.kill()
        await eventually(lambda: is_stale(gateway))
        survivor.cli("DEL", f"{PREFIX}token:main:t{other}")
        await eventually(lambda: not gateway.denies(f"t{other}"))
        assert gateway.denies("t0")
        victim.start()
        await eventually(lambda: gateway.replica.status.counts["written_back"] == held)
        await eventually(lambda: not is_stale(gateway))
        assert victim.cli("DBSIZE") == str(held)
    finally:
        deployment.close()


# --- SQLite ----------------------------------------------------------------------------------------------------------


async def test_a_deleted_file_un_revokes_nothing(tmp_path: Path, follow: Follow) -> None:
    """Another file in its place is another history: what is known is written into it."""
    site = SqliteSite(tmp_path / "denylist.db")
    site.write("token:main:t", ttl_s=60)
    gateways = [await follow(site.config(max_staleness="2s")) for _ in range(2)]
    for path in tmp_path.glob("denylist.db*"):
        path.unlink()
    await eventually(lambda: all(gateway.replica.status.counts["loads"] == 2 for gateway in gateways))
    assert site.ttl_s("token:main:t") is not None
    assert all(gateway.denies("t") for gateway in gateways)
    await gateways[0].store.add(make_entry("token", "main", "new", now=time.time()))
    await eventually(lambda: gateways[1].denies("new"))


async def test_a_file_that_is_no_database_is_reported_and_waited_for(tmp_path: Path, start: Follow) -> None:
    """It is never overwritten."""
    path = tmp_path / "denylist.db"
    path.write_bytes(b"something of somebody else's, longer than a page header\n" * 100)
    gateway = await start(SqliteSite(path).config())
    await eventually(lambda: "SQLITE_NOTADB" in troubles(gateway))
    assert not gateway.replica.loaded
    with pytest.raises(StoreUnavailable, match="SQLITE_NOTADB"):
        await gateway.store.add(make_entry("token", "main", "t", now=time.time()))
    path.unlink()
    await eventually(lambda: gateway.replica.loaded)


# --- the command line's part -----------------------------------------------------------------------------------------


async def test_the_commands_need_no_running_gateway(
    own_redis: RedisServer, cluster_deployment: ClusterDeployment
) -> None:
    """One connection, one command; a store that is down is an error with a reason."""
    ClusterSite(cluster_deployment).empty()
    for config in (config_for(own_redis), ClusterSite(cluster_deployment).config()):
        store = open_store(config, Replica())
        entry = make_entry("session", "main", "s1", now=time.time(), ttl_s=60)
        await store.add(entry)
        assert [found.key async for found in store.entries(kind="session")] == [entry.key]
        assert await store.remove(entry.key)
        assert not await store.remove(entry.key)
        await store.close()
    own_redis.kill()
    with pytest.raises(StoreUnavailable, match="ConnectionRefusedError"):
        await open_store(config_for(own_redis), Replica()).add(entry)
