"""The store's address in the YAML, taken apart; credentials never show in a `repr`.

redis://[user[:password]@]host[:port][/db]      rediss:// the same over TLS
unix://[user[:password]@]/path/redis.sock[?db=0]
redis+sentinel://[user[:password]@]host[:port],host[:port]/service[/db][?sentinel_username=…&sentinel_password=…]
redis+cluster://[user[:password]@]host[:port],host[:port]
rediss+sentinel:// rediss+cluster://            the same over TLS
sqlite:///absolute/path  sqlite://path
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

Deployment = Literal["single", "sentinel", "cluster"]

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one server listens: a Unix socket if `path` is set, else host and port."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `AUTH` is given; with a password alone the user is `default`."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Which servers to ask, and how. `endpoints` are the server, the Sentinels, or any nodes of the Cluster."""

    deployment: Deployment
    endpoints: tuple[Endpoint, ...]
    tls: bool = False
    db: int = 0
    service: str = ""
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()

    def __str__(self) -> str:
        """For logs: no credentials."""
        return f"{self.deployment} {','.join(map(str, self.endpoints))}"


def parse_redis(url: str) -> RedisAddress:
    """The address a store's URL names; ValueError with a public reason, which never repeats the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the store's address cannot be read") from None
    if parts.scheme == "unix":
        return _unix(parts)
    scheme, _, deployment = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or deployment not in ("", "sentinel", "cluster"):
        raise ValueError("the store's address has an unknown scheme")
    credentials, hosts = _authority(parts.netloc)
    tls = scheme == "rediss"
    path = [unquote(segment) for segment in parts.path.strip("/").split("/") if segment]
    if deployment == "cluster":
        if path not in ([], ["0"]):
            raise ValueError("a Redis Cluster has no database but 0")
        return RedisAddress("cluster", _endpoints(hosts, _REDIS_PORT), tls, credentials=credentials)
    if deployment == "sentinel":
        return _sentinel(parts, credentials, hosts, path, tls)
    if "," in hosts:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    if len(path) > 1:
        raise ValueError("after the host comes one number, the database")
    return RedisAddress("single", _endpoints(hosts, _REDIS_PORT), tls, _database(path), credentials=credentials)


def _sentinel(parts: SplitResult, credentials: Credentials, hosts: str, path: list[str], tls: bool) -> RedisAddress:
    if not 1 <= len(path) <= 2:
        raise ValueError("write redis+sentinel://host:port,host:port/name or …/name/db")
    query = parse_qs(parts.query)
    own = Credentials(query.get("sentinel_username", [""])[0], query.get("sentinel_password", [""])[0])
    endpoints = _endpoints(hosts, _SENTINEL_PORT)
    return RedisAddress("sentinel", endpoints, tls, _database(path[1:]), path[0], credentials, own)


def _unix(parts: SplitResult) -> RedisAddress:
    credentials, rest = _authority(parts.netloc)
    path = unquote(rest + parts.path)
    if not path.startswith("/"):
        raise ValueError("write unix:///path/to/redis.sock")
    db = _database(parse_qs(parts.query).get("db", []))
    return RedisAddress("single", (Endpoint(path=path),), db=db, credentials=credentials)


def _authority(netloc: str) -> tuple[Credentials, str]:
    user_info, at, hosts = netloc.rpartition("@")
    if not at:
        return Credentials(), hosts
    username, _, password = user_info.partition(":")
    return Credentials(unquote(username), unquote(password)), hosts


def _endpoints(hosts: str, port: int) -> tuple[Endpoint, ...]:
    return tuple(_endpoint(host, port) for host in hosts.split(","))


def _endpoint(text: str, default_port: int) -> Endpoint:
    host, port = text, ""
    if text.startswith("["):  # an IPv6 address (RFC 3986 §3.2.2)
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in text:
        host, _, port = text.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("a port of the store's address is not a number from 1 to 65535")
    return Endpoint(host or "127.0.0.1", int(port or default_port))


def _database(path: list[str]) -> int:
    if not path:
        return 0
    if not path[0].isdigit():
        raise ValueError("the database of the store's address is not a number")
    return int(path[0])
