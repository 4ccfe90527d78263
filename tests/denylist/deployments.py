"""Real stores in every shape that a gateway may meet: standalone, Unix socket, TLS, Sentinel, Cluster, SQLite.

Each `Site` is written to the way a backend would, not through the code under test.
"""

import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from gateway.config.schema import Denylist
from gateway.redis.slots import slot_of
from tests.certificates import make_certificate
from tests.ports import release_port, reserve_port
from tests.redis_server import RedisServer, _die_with_parent, find_binary, speaks_tls
from tests.tls_front import TlsFront

PREFIX = "gateway:deny:"
SERVICE = "denylist"


class Site(Protocol):
    """A store, and what other programs do to it. Keys are without the prefix."""

    def config(self, **settings: Any) -> Denylist:
        """The section of the YAML that names this store."""

    def write(self, key: str, value: str = "1", ttl_s: float | None = None, *, prefix: str = PREFIX) -> None:
        """Put an entry in, as a backend does."""

    def erase(self, key: str) -> None:
        """Delete an entry, as an operator does."""

    def ttl_s(self, key: str) -> float | None:
        """The seconds an entry has left; None if there is none."""

    def empty(self) -> None:
        """Delete everything."""


class RedisSite:
    """One server, whichever way it is reached."""

    def __init__(self, server: RedisServer, url: str, ca: Path | None = None) -> None:
        self.server = server
        self.url = url
        self.ca = ca

    def config(self, **settings: Any) -> Denylist:
        return Denylist.model_validate({"store": self.url, "ca": self.ca, **settings})

    def _at(self, key: str) -> RedisServer:
        return self.server

    def write(self, key: str, value: str = "1", ttl_s: float | None = None, *, prefix: str = PREFIX) -> None:
        life = () if ttl_s is None else ("PX", round(ttl_s * 1000))
        self._at(prefix + key).cli("SET", prefix + key, value, *life)

    def erase(self, key: str) -> None:
        self._at(PREFIX + key).cli("DEL", PREFIX + key)

    def ttl_s(self, key: str) -> float | None:
        left = int(self._at(PREFIX + key).cli("PTTL", PREFIX + key))
        return None if left == -2 else left / 1000

    def empty(self) -> None:
        self.server.cli("FLUSHALL")


class SqliteSite:
    """The embedded store, written to with plain SQL once a gateway or this has made the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def config(self, **settings: Any) -> Denylist:
        return Denylist.model_validate({"store": f"sqlite://{self.path}", **settings})

    def _execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        from gateway.denylist.database import Database

        if not self.path.exists():
            database = Database(self.path, PREFIX, 5.0)
            database.open()
            database.close()
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def write(self, key: str, value: str = "1", ttl_s: float | None = None, *, prefix: str = PREFIX) -> None:
        end = None if ttl_s is None else time.time() + ttl_s
        self._execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", prefix + key, value, end)

    def erase(self, key: str) -> None:
        self._execute("DELETE FROM entries WHERE key = ?", PREFIX + key)

    def ttl_s(self, key: str) -> float | None:
        rows = self._execute("SELECT expires_at FROM entries WHERE key = ?", PREFIX + key)
        return None if not rows else rows[0][0] - time.time()

    def empty(self) -> None:
        self._execute("DELETE FROM entries")


# --- TLS -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tls:
    """A certificate that is its own authority, for every server of one deployment."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """With files in this folder."""
        return cls(*make_certificate(folder))

    def arguments(self, port: int) -> tuple[str, ...]:
        """What makes redis-server listen with TLS on a further port, and speak it to its peers."""
        return (
            *("--tls-port", str(port), "--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)),
            *("--tls-ca-cert-file", str(self.certificate), "--tls-auth-clients", "no"),
            *("--tls-replication", "yes"),
        )


class TlsServer:
    """A server that also listens with TLS, or has something in front that does."""

    def __init__(self, folder: Path) -> None:
        tls = Tls.make(folder)
        self.certificate = tls.certificate
        self.port = reserve_port()
        self.url = f"rediss://127.0.0.1:{self.port}/0"
        self._front: TlsFront | None = None
        if speaks_tls():
            self.server = RedisServer(tls.arguments(self.port))
        else:
            self.server = RedisServer()
            self._front = TlsFront(self.port, self.server.port, tls.certificate, tls.key)

    def close(self) -> None:
        """End the server."""
        if self._front is not None:
            self._front.close()
        self.server.close()
        release_port(self.port)


# --- Sentinel --------------------------------------------------------------------------------------------------------


class SentinelDeployment:
    """A master, a replica and one Sentinel that fails over after a third of a second; with TLS between all, if given.

    The plain ports stay open for the test itself.
    """

    def __init__(self, tls: Tls | None = None) -> None:
        self.certificate = tls.certificate if tls else None
        self._tls = tls
        self._ports = [reserve_port() for _ in range(3)]  # of master, replica and Sentinel; with TLS, if that is used
        self.master = RedisServer((*self._tls_on(0), "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "1mb"))
        self._addresses = self._ports[:2] if tls else [self.master.port, 0]
        replica_of = ("--replicaof", "127.0.0.1", str(self._addresses[0]), "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer((*self._tls_on(1), *replica_of))
        if not tls:
            self._addresses[1] = self.replica.port
        wait_until(lambda: "master_link_status:up" in self.replica.cli("INFO", "replication"))
        self._folder = tempfile.TemporaryDirectory(prefix="gw-sentinel-")
        self._plain_port = reserve_port()
        self._process = self._start_sentinel()
        wait_until(lambda: "slaves=1" in self.sentinel("INFO", "sentinel"))
        port = self._ports[2] if tls else self._plain_port
        scheme = "rediss" if tls else "redis"
        self.url = f"{scheme}+sentinel://127.0.0.1:1,127.0.0.1:{port}/{SERVICE}/0"  # the first one does not exist

    def _tls_on(self, number: int) -> tuple[str, ...]:
        return self._tls.arguments(self._ports[number]) if self._tls else ()

    def _start_sentinel(self) -> subprocess.Popen[bytes]:
        path = Path(self._folder.name) / "sentinel.conf"
        path.write_text(
            f"bind 127.0.0.1\nport {self._plain_port}\ndir {self._folder.name}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._addresses[0]} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 300\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        binary = find_binary("redis-server")
        assert binary is not None
        return subprocess.Popen(
            [binary, str(path), "--sentinel", *self._tls_on(2)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def sentinel(self, *args: str) -> str:
        """What redis-cli prints for a command to the Sentinel; empty while it does not answer."""
        binary = find_binary("redis-cli")
        assert binary is not None
        done = subprocess.run(
            [binary, "-p", str(self._plain_port), *args], capture_output=True, text=True, timeout=10, check=False
        )
        return done.stdout

    def current(self) -> RedisServer:
        """The server that the Sentinel calls the master."""
        port = self.sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE).split()[1]
        return self.master if str(self._addresses[0]) == port else self.replica

    def close(self) -> None:
        """End all three."""
        self._process.kill()
        self._process.wait()
        for port in (*self._ports, self._plain_port):
            release_port(port)
        self.replica.close()
        self.master.close()
        self._folder.cleanup()


# --- Cluster ---------------------------------------------------------------------------------------------------------


class ClusterDeployment:
    """Three masters that share the slots; with TLS on their bus and for clients, if given."""

    def __init__(self, tls: Tls | None = None) -> None:
        self.certificate = tls.certificate if tls else None
        self._tls = tls
        self.nodes: list[RedisServer] = []
        self._bus_ports = [reserve_port() for _ in range(3)]
        self._tls_ports = [reserve_port() for _ in range(3)] if tls else []
        try:
            for number, bus_port in enumerate(self._bus_ports):
                with_tls = (*tls.arguments(self._tls_ports[number]), "--tls-cluster", "yes") if tls else ()
                self.nodes.append(self._start_node(bus_port, with_tls))
            self._join()
        except BaseException:
            self.close()
            raise
        scheme, port = ("rediss", self._tls_ports[0]) if tls else ("redis", self.nodes[0].port)
        self.url = f"{scheme}+cluster://127.0.0.1:1,127.0.0.1:{port}"  # the first one does not exist

    @staticmethod
    def _start_node(bus_port: int, with_tls: tuple[str, ...]) -> RedisServer:
        settings = (
            *with_tls,
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--cluster-require-full-coverage",
            "no",
        )
        try:
            return RedisServer((*settings, "--cluster-port", str(bus_port)))
        except RuntimeError:
            # Redis 6 has no such setting: its bus port is ten thousand higher, where somebody else may be.
            for _ in range(9):
                with contextlib.suppress(RuntimeError):
                    return RedisServer(settings)
            raise

    def _join(self) -> None:
        bounds = (0, 5461, 10923, 16384)
        for number, node in enumerate(self.nodes):
            node.cli("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.cli("CLUSTER", "MEET", "127.0.0.1", self._port_of(0), self._bus_port_of(self.nodes[0]))
        for node in self.nodes:
            wait_until(partial(self._is_whole, node))

    def _port_of(self, number: int) -> int:
        return self._tls_ports[number] if self._tls_ports else self.nodes[number].port

    @staticmethod
    def _bus_port_of(node: RedisServer) -> int:
        # "<id> <host>:<port>@<bus port> myself,master …"
        return int(node.cli("CLUSTER", "NODES").split()[1].partition("@")[2].partition(",")[0])

    @staticmethod
    def _is_whole(node: RedisServer) -> bool:
        state = node.cli("CLUSTER", "INFO")
        return "cluster_state:ok" in state and "cluster_slots_ok:16384" in state and "cluster_size:3" in state

    def owner(self, whole_key: str) -> RedisServer:
        """The node that answers for a key now."""
        for node in self.nodes:
            try:
                node.cli("EXISTS", whole_key)
            except RuntimeError:
                continue
            return node
        raise AssertionError("no node answers for the key")

    def move_slot(self, whole_key: str) -> None:
        """Move a key's slot to the next node, the way `redis-cli --cluster reshard` does."""
        slot = slot_of(whole_key)
        source = self.owner(whole_key)
        target = self.nodes[(self.nodes.index(source) + 1) % 3]
        source_id, target_id = source.cli("CLUSTER", "MYID"), target.cli("CLUSTER", "MYID")
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        for key in source.cli("CLUSTER", "GETKEYSINSLOT", slot, 1000).splitlines():
            source.cli("MIGRATE", "127.0.0.1", self._port_of(self.nodes.index(target)), key, 0, 5000)
        for node in (target, source, *self.nodes):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def close(self) -> None:
        """End all three."""
        for node in self.nodes:
            node.close()
        for port in (*self._bus_ports, *self._tls_ports):
            release_port(port)


class SentinelSite(RedisSite):
    """Written to at whichever server is the master."""

    def __init__(self, deployment: SentinelDeployment) -> None:
        super().__init__(deployment.master, deployment.url, deployment.certificate)
        self.deployment = deployment

    def _at(self, key: str) -> RedisServer:
        return self.deployment.current()

    def empty(self) -> None:
        self.deployment.current().cli("FLUSHALL")


class ClusterSite(RedisSite):
    """Written to at the node that has the key's slot."""

    def __init__(self, deployment: ClusterDeployment) -> None:
        super().__init__(deployment.nodes[0], deployment.url, deployment.certificate)
        self.deployment = deployment

    def _at(self, key: str) -> RedisServer:
        return self.deployment.owner(key)

    def empty(self) -> None:
        for node in self.deployment.nodes:
            node.cli("FLUSHALL")


def wait_until(holds: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Wait for something outside this process that has no event to wait for."""
    end = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("it did not come to hold in time")
        time.sleep(0.02)
