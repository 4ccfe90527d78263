"""The Redis that the tests rely on does what its fixtures say."""

import socket
from collections.abc import Callable

import pytest

from tests.redis_server import RedisServer


def test_the_shared_server_is_handed_over_empty(redis_server: RedisServer, redis_url: str) -> None:
    """Whatever an earlier test wrote, the next one finds nothing."""
    assert redis_server.cli("DBSIZE") == "0"
    assert redis_url == redis_server.url
    redis_server.cli("SET", "left-behind", 1)


def test_the_shared_server_is_handed_over_empty_again(redis_server: RedisServer) -> None:
    """The same in either order, so that one of the two follows a test which wrote."""
    assert redis_server.cli("DBSIZE") == "0"
    redis_server.cli("SET", "left-behind", 1)


def test_a_killed_server_refuses_connections_and_restarts_empty(own_redis: RedisServer) -> None:
    """The port stays the same, so that clients find the server again."""
    own_redis.cli("SET", "k", "v")
    port = own_redis.port
    own_redis.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((own_redis.host, port), timeout=5)
    own_redis.restart()
    assert own_redis.port == port
    assert own_redis.cli("DBSIZE") == "0"


def test_a_restart_keeps_the_data_when_told_to(own_redis: RedisServer) -> None:
    """`empty=False` saves first, and so does a `SAVE` before a crash."""
    own_redis.cli("SET", "k", "v")
    own_redis.restart(empty=False)
    assert own_redis.cli("GET", "k") == "v"
    own_redis.kill()
    own_redis.restart(empty=False)
    assert own_redis.cli("GET", "k") == "v"


def test_a_frozen_server_accepts_and_never_answers(own_redis: RedisServer) -> None:
    """Connections succeed while it is stopped, because the kernel accepts them; the answer comes after the thaw."""
    own_redis.freeze()
    with socket.create_connection((own_redis.host, own_redis.port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(64)
        own_redis.thaw()
        connection.settimeout(5)
        assert connection.recv(64) == b"+PONG\r\n"


def test_settings_reach_the_server(make_redis: Callable[..., RedisServer]) -> None:
    """A server can be started with a password, and an error of Redis is raised."""
    server = make_redis("--requirepass", "open sesame")
    with pytest.raises(RuntimeError, match="NOAUTH"):
        server.cli("GET", "k")


def test_reserved_ports_differ_and_can_be_bound(free_port: Callable[[], int]) -> None:
    """No port is given twice while it is reserved."""
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass
