"""Fixtures for every test: a real Redis, and ports that nobody else is given.

Hypothesis runs without a deadline, because a busy machine is not a failing property.
"""

import logging
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.denylist.deployments import ClusterDeployment, SentinelDeployment, Tls, TlsServer
from tests.ports import release_port, reserve_port
from tests.redis_server import RedisServer, speaks_tls

settings.register_profile("gateway", deadline=None, print_blob=True)
settings.load_profile("gateway")


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    """A command that configures the process's log leaves no handler behind that writes to a closed stream."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    """The server that the tests of one process share; use `redis_server`, which hands it over empty."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """The shared server, emptied. A test that kills, freezes or reconfigures one takes `own_redis` instead."""
    redis_session.cli("FLUSHALL")
    return redis_session


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty Redis: `redis://127.0.0.1:<port>/0`."""
    return redis_server.url


@pytest.fixture
def make_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts further servers, each with the command-line settings given: `make_redis("--requirepass", "secret")`."""
    servers: list[RedisServer] = []

    def make(*args: str) -> RedisServer:
        servers.append(RedisServer(args))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def own_redis(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server of this test alone, to be killed, frozen, restarted or reconfigured."""
    return make_redis()


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A server with a certificate of its own authority."""
    server = TlsServer(tmp_path_factory.mktemp("tls"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def sentinel_deployment() -> Iterator[SentinelDeployment]:
    """A master and a replica under a Sentinel, for tests that do not fail them over."""
    deployment = SentinelDeployment()
    yield deployment
    deployment.close()


@pytest.fixture(scope="session")
def cluster_deployment() -> Iterator[ClusterDeployment]:
    """A Cluster of three; tests may move slots."""
    deployment = ClusterDeployment()
    yield deployment
    deployment.close()


def _need_tls() -> None:
    """Sentinels and nodes of a Cluster speak TLS to each other, which nothing in front of them can do for them."""
    if not speaks_tls():
        pytest.skip("this redis-server is built without TLS")


@pytest.fixture(scope="session")
def sentinel_over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelDeployment]:
    """The same, and everybody speaks TLS with everybody."""
    _need_tls()
    deployment = SentinelDeployment(Tls.make(tmp_path_factory.mktemp("tls")))
    yield deployment
    deployment.close()


@pytest.fixture(scope="session")
def cluster_over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterDeployment]:
    """The same, with TLS on the bus and for clients."""
    _need_tls()
    deployment = ClusterDeployment(Tls.make(tmp_path_factory.mktemp("tls")))
    yield deployment
    deployment.close()


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Gives ports of 127.0.0.1, reserved until the test ends, for servers that cannot bind port 0 themselves."""
    ports: list[int] = []

    def reserve() -> int:
        ports.append(reserve_port())
        return ports[-1]

    yield reserve
    for port in ports:
        release_port(port)
