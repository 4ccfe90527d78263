"""The connections to one endpoint: kept while idle, bounded in number, swept for deadlines.

    take() ──────────► an idle connection, the most recently used first, so that the others can age and be closed
    acquire() ─┬─────► the same, or
               ├─────► a new one while there are fewer than `size`, or
               └─────► whatever is given back first; after `wait`, NoEndpoint
    give_back() ─────► to the longest waiting request, or to the idle ones

One timer per pool checks all deadlines, and only while something is pending: a timer per request would cost more than
the forwarding of a small one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

from gateway.errors import ConnectFailed, NoEndpoint, UpstreamTimeout
from gateway.outbox import Outbox
from gateway.upstream.http1 import Connection

P = TypeVar("P", bound=asyncio.Protocol)

SWEEP_S: Final = 0.1  # how late a deadline may be noticed


class Pool:
    """Owner of the connections to one `host:port`. Bound to the event loop that first uses it."""

    __slots__ = (
        "_closing",
        "_connect_s",
        "_connecting",
        "_empty",
        "_idle",
        "_idle_s",
        "_open",
        "_server_name",
        "_size",
        "_sweep",
        "_tls",
        "_wait_s",
        "_waiters",
        "failed",
        "host",
        "malformed",
        "opened",
        "outbox",
        "port",
        "refused_full",
        "retried",
        "reused",
        "timed_out",
    )

    def __init__(
        self,
        host: str,
        port: int,
        *,
        size: int,
        idle_s: float,
        wait_s: float,
        connect_s: float,
        tls: ssl.SSLContext | None,
        server_name: str | None,
    ) -> None:
        self.host = host
        self.port = port
        self._size = size
        self._idle_s = idle_s
        self._wait_s = wait_s
        self._connect_s = connect_s
        self._tls = tls
        self._server_name = server_name if tls is not None else None
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # oldest first
        self._connecting = 0
        self._waiters: deque[tuple[float, asyncio.Future[Connection | None]]] = (
            deque()
        )  # deadline; None: connect yourself
        self._sweep: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty: asyncio.Event | None = None
        self.outbox: Outbox = Outbox()
        self.opened = 0
        self.reused = 0
        self.retried = 0
        self.failed = 0
        self.malformed = 0
        self.timed_out = 0
        self.refused_full = 0

    def __repr__(self) -> str:
        return (
            f"<Pool {self.host}:{self.port} open={len(self._open)} idle={len(self._idle)}"
            f" connecting={self._connecting} waiting={len(self._waiters)}>"
        )

    @property
    def open_connections(self) -> int:
        """Established connections, idle ones included."""
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        """Established connections that no request holds."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiters)

    def take(self) -> Connection | None:
        """An idle connection, now held by the caller; None when there is none."""
        idle = self._idle
        if not idle:
            return None
        connection = idle.popitem()[0]
        connection.busy = True
        self.reused += 1
        if self._sweep is None:
            self._arm()
        return connection

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection, now held by the caller, who must `release` it; `fresh`: a new one if there may be one.

        Raises `ConnectFailed`, `UpstreamTimeout` (connect took too long), `NoEndpoint` (all stayed in use for
        `wait_s`).
        """
        if not fresh:
            connection = self.take()
            if connection is not None:
                return connection
        elif self._idle and self._is_full():
            next(iter(self._idle)).close()  # it would be as stale as the one that is being replaced
        if not self._is_full():
            self._connecting += 1
            return await self._connect()
        given = await self._wait_for_turn()
        return given if given is not None else await self._connect()

    def give_back(self, connection: Connection, reusable: bool) -> None:
        """Take a connection back after its exchange; one that is not `reusable` is closed."""
        connection.busy = False
        if not reusable or self._closing or self._idle_s <= 0:
            connection.close()
            return
        if connection.closed:
            return
        if self._waiters:
            waiter = self._next_waiter()
            if waiter is not None:
                connection.busy = True
                self.reused += 1
                waiter.set_result(connection)
                return
        connection.idle_since = monotonic()
        self._idle[connection] = None

    def forget(self, connection: Connection) -> None:
        """Drop a closed connection; its place goes to the longest waiting request."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._hand_on_place()

    def expire_idle(self, now: float) -> None:
        """Close connections that were idle for too long (`now`: monotonic)."""
        while self._idle:
            oldest = next(iter(self._idle))
            if oldest.idle_since + self._idle_s > now:
                return
            oldest.close()

    async def close(self, grace_s: float) -> None:
        """Keep nothing any more, give exchanges `grace_s` seconds to end, then close what is left; usable meanwhile."""
        self._closing = True
        for connection in list(self._idle):
            connection.close()
        if self._open or self._connecting:
            self._empty = asyncio.Event()
            try:
                async with asyncio.timeout(grace_s):
                    await self._empty.wait()
            except TimeoutError:
                pass
        for connection in list(self._open):
            connection.fail(ConnectFailed(cause="the gateway closes its connections to this upstream"))
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def sweep(self, now: float) -> None:
        """End what is past its deadline: exchanges, and waits for a connection (`now`: monotonic)."""
        for connection in list(self._open):
            if connection.busy:
                connection.expire(now)
        while self._waiters and (self._waiters[0][0] <= now or self._waiters[0][1].done()):
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                self.refused_full += 1
                waiter.set_exception(
                    NoEndpoint(cause=f"{self.host}:{self.port}: all {self._size} connections stayed in use")
                )

    def _is_full(self) -> bool:
        return len(self._open) + self._connecting >= self._size

    async def _wait_for_turn(self) -> Connection | None:
        """A connection given back, or None: a place to connect in, already counted."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append((monotonic() + self._wait_s, waiter))
        if self._sweep is None:
            self._arm()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._return_turn(waiter.result())
            raise

    def _return_turn(self, given: Connection | None) -> None:
        """What was given to a request that was cancelled at the same moment goes to the next."""
        if given is not None:
            self.give_back(given, reusable=not given.closed)
        else:
            self._connecting -= 1
            self._hand_on_place()

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                return waiter
        return None

    def _hand_on_place(self) -> None:
        if self._waiters and not self._is_full():
            waiter = self._next_waiter()
            if waiter is not None:
                self._connecting += 1
                waiter.set_result(None)
        if self._empty is not None and not self._open and not self._connecting:
            self._empty.set()

    async def open(self, factory: Callable[[], P]) -> P:
        """A connection that speaks another protocol, made by `factory`; it stays outside the pool and its size.

        Raises `ConnectFailed`, `UpstreamTimeout` (connect took too long).
        """
        try:
            async with asyncio.timeout(self._connect_s):
                _, protocol = await asyncio.get_running_loop().create_connection(
                    factory,
                    self.host,
                    self.port,
                    ssl=self._tls,
                    server_hostname=self._server_name,
                )
        except TimeoutError as error:
            self.failed += 1
            raise UpstreamTimeout(
                cause=f"{self.host}:{self.port}: no connection within {self._connect_s:g} s"
            ) from error
        # Refused, unreachable, TLS failure; a name that DNS cannot carry.
        except (OSError, UnicodeError) as error:
            self.failed += 1
            raise ConnectFailed(cause=f"{self.host}:{self.port}: {type(error).__name__}: {error}") from error
        self.opened += 1
        return protocol

    async def _connect(self) -> Connection:
        """Open a connection in a place that was counted in `_connecting`."""
        loop = asyncio.get_running_loop()
        connection = None
        try:
            connection = await self.open(lambda: Connection(self, loop))
        finally:
            self._connecting -= 1
            if connection is None:
                self._hand_on_place()
        if connection.closed:  # while this task was on its way here
            self._hand_on_place()
            raise ConnectFailed(cause=f"{self.host}:{self.port}: closed at once")
        connection.busy = True
        self._open.add(connection)
        if self._sweep is None:
            self._arm()
        return connection

    def _arm(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._tick)

    def _tick(self) -> None:
        self._sweep = None
        self.sweep(monotonic())
        if self._waiters or len(self._open) > len(self._idle):
            self._arm()
