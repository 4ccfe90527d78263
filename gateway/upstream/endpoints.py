"""One upstream: its endpoints in turn, those that cannot be reached left out for a while.

Health is passive: an endpoint that refuses, or does not answer a connection attempt in time, is skipped for a back-off
that doubles with each failure and ends with the first success. When all endpoints are backing off, all are tried: to
refuse requests on the strength of a memory would turn a short outage into a longer one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import Final, TypeVar

from gateway.config import schema
from gateway.errors import ConnectFailed, UpstreamFault, UpstreamTimeout
from gateway.telemetry.sample import Sample
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import P, Pool

T = TypeVar("T")

_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MOST_S: Final = 10.0
_ATTEMPTS: Final = 3  # endpoints tried for one request; each may cost the whole connect timeout
_IDLE_CHECK_S: Final = 1.0

_log = logging.getLogger("gateway.upstream")


class Endpoint:
    """One address of an upstream, its pool, and whether it could be reached lately."""

    __slots__ = ("authority", "failures", "name", "pool", "skipped_until")

    def __init__(self, url: str, config: schema.Upstream, tls: ssl.SSLContext | None) -> None:
        scheme, _, authority = url.partition("://")
        host, port = _split(authority, 443 if scheme == "https" else 80)
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.authority = authority.encode()  # for the Host field, as the operator wrote it
        self.skipped_until = 0.0  # monotonic
        self.failures = 0  # in a row
        self.pool: Pool = Pool(
            host,
            port,
            size=config.pool.size,
            idle_s=config.pool.idle,
            wait_s=config.pool.wait,
            connect_s=config.timeouts.connect,
            tls=tls,
            server_name=config.tls.server_name or host,
        )

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} failures={self.failures}>"

    def note_failure(self, at: float) -> None:
        """Skip this endpoint for a while from `at` (monotonic)."""
        self.failures += 1
        self.skipped_until = at + min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** min(self.failures - 1, 10))

    def note_success(self) -> None:
        """It can be reached again."""
        self.failures = 0
        self.skipped_until = 0.0


def _split(authority: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]` or `[v6]:port`, as the schema lets through."""
    host, colon, port = authority.rpartition(":")
    if colon and not port.endswith("]"):
        return host.strip("[]"), int(port)
    return authority.strip("[]"), default_port


def _file_stamps(config: schema.UpstreamTls) -> tuple[tuple[int, int], ...]:
    """Size and time of change of each file, so that a renewed certificate is noticed."""
    paths = (config.ca, config.certificate, config.key)
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths if path is not None))


def tls_context(config: schema.UpstreamTls) -> ssl.SSLContext:
    """The client-side context of an https upstream. Raises `OSError` (`ssl.SSLError` included) for unusable files."""
    context = ssl.create_default_context(cafile=config.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if config.certificate is not None:
        context.load_cert_chain(config.certificate, config.key)
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Upstream:
    """One backend as the YAML names it. Owner of its endpoints; long-lived: `run` it."""

    __slots__ = ("_files", "_turn", "config", "endpoints", "name", "sends_own_host")

    def __init__(self, name: str, config: schema.Upstream) -> None:
        tls = tls_context(config.tls) if config.endpoints[0].startswith("https") else None
        self.name = name
        self.config = config
        self._files = _file_stamps(config.tls)
        self.sends_own_host = config.host == "endpoint"
        self.endpoints = tuple(Endpoint(url, config, tls) for url in config.endpoints)
        self._turn = -1

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {list(self.endpoints)}>"

    def is_built_from(self, config: schema.Upstream) -> bool:
        """Whether a new one for `config` would be the same, the files it names included."""
        try:
            return config == self.config and _file_stamps(config.tls) == self._files
        except OSError:  # a file has gone: a new one fails, and says so
            return False

    def choose(self) -> Endpoint:
        """The endpoint whose turn it is, those that are backing off left out while others are not."""
        count = len(self.endpoints)
        if count == 1:
            return self.endpoints[0]
        now = monotonic()
        for _ in range(count):
            self._turn = (self._turn + 1) % count
            endpoint = self.endpoints[self._turn]
            if endpoint.failures == 0 or endpoint.skipped_until <= now:
                return endpoint
        self._turn = (self._turn + 1) % count
        return self.endpoints[self._turn]

    async def acquire(self, endpoint: Endpoint, *, fresh: bool = False) -> tuple[Endpoint, Connection]:
        """A connection to `endpoint`, or to another one if it cannot be reached: nothing was sent yet, so any will do.

        Raises what the last attempt failed with: `ConnectFailed`, `UpstreamTimeout`, `NoEndpoint`.
        """
        return await self._reach(endpoint, lambda pool: pool.acquire(fresh=fresh))

    async def open(self, factory: Callable[[], P]) -> tuple[Endpoint, P]:
        """A connection of another protocol to the endpoint whose turn it is, or to another if that cannot be reached.

        It is the caller's to close, and stands outside the pools. Raises `ConnectFailed`, `UpstreamTimeout`.
        """
        return await self._reach(self.choose(), lambda pool: pool.open(factory))

    async def _reach(self, endpoint: Endpoint, attempt: Callable[[Pool], Awaitable[T]]) -> tuple[Endpoint, T]:
        attempts = min(_ATTEMPTS, len(self.endpoints))
        while True:
            try:
                connection = await attempt(endpoint.pool)
            except (ConnectFailed, UpstreamTimeout) as error:
                self._note_failure(endpoint, error)
                attempts -= 1
                if attempts == 0:
                    raise
                endpoint = self.choose()
                continue
            if endpoint.failures:
                _log.info("upstream %s: %s can be reached again", self.name, endpoint.name)
                endpoint.note_success()
            return endpoint, connection

    def _note_failure(self, endpoint: Endpoint, error: UpstreamFault) -> None:
        endpoint.note_failure(monotonic())
        if endpoint.failures == 1:  # once per outage, however many requests meet it
            _log.warning("upstream %s: %s", self.name, error.cause)

    async def run(self) -> None:
        """Close connections that were idle for too long, until cancelled."""
        while True:
            await asyncio.sleep(_IDLE_CHECK_S)
            now = monotonic()
            for endpoint in self.endpoints:
                endpoint.pool.expire_idle(now)

    async def close(self, grace_s: float) -> None:
        """Let requests in flight end within `grace_s` seconds, then close every connection."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self.endpoints:
                group.create_task(endpoint.pool.close(grace_s))

    def samples(self) -> Iterator[Sample]:
        """Connections and what became of them, by endpoint."""
        now = monotonic()
        for endpoint in self.endpoints:
            pool = endpoint.pool
            labels = {"upstream": self.name, "endpoint": endpoint.name}
            busy = pool.open_connections - pool.idle_connections
            yield Sample("gateway_upstream_connections", {**labels, "state": "idle"}, pool.idle_connections)
            yield Sample("gateway_upstream_connections", {**labels, "state": "busy"}, busy)
            yield Sample("gateway_upstream_waiting", labels, pool.waiting)
            yield Sample("gateway_upstream_connections_opened_total", labels, pool.opened)
            yield Sample("gateway_upstream_connections_reused_total", labels, pool.reused)
            yield Sample("gateway_upstream_connect_failures_total", labels, pool.failed)
            yield Sample("gateway_upstream_retries_total", labels, pool.retried)
            yield Sample("gateway_upstream_bad_responses_total", labels, pool.malformed)
            yield Sample("gateway_upstream_timeouts_total", labels, pool.timed_out)
            yield Sample("gateway_upstream_pool_full_total", labels, pool.refused_full)
            yield Sample("gateway_upstream_endpoint_up", labels, float(endpoint.skipped_until <= now))
