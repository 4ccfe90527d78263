"""What all connections of one address share: limits, counters, and the one sweep that ends what takes too long.

No connection and no request has a timer of its own. The sweep turns a tick over a few times per shortest limit, and
every connection remembers the tick of its last progress; so a limit of *t* seconds is enforced between *t* and *t* plus
one interval, and costs a request two attribute writes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.config.schema import Limits
from gateway.outbox import Outbox
from gateway.strand import Strand
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.sample import Sample

LINGER_S = 2.0  # an answered connection is read and thrown away for so long, so that the client sees the answer
MAX_INTERVAL_S = 1.0
MIN_INTERVAL_S = 0.02


class Connection(Protocol):
    """What the sweep and a graceful stop ask of a connection."""

    def check_time(self, tick: int) -> None:
        """End the connection, or answer 408, if its present state has lasted too long."""

    def shutdown(self) -> None:
        """Close after the response in progress, or at once when there is none."""


class Listener:
    """Limits in ticks, open connections, and plain counters of one listening address. Owned by one event loop."""

    __slots__ = (
        "_loop",
        "_timer",
        "accepted",
        "body_ticks",
        "connections",
        "head_bytes",
        "head_ticks",
        "head_timeout_s",
        "headers",
        "idle_ticks",
        "interval_s",
        "linger_ticks",
        "max_connections",
        "name",
        "outbox",
        "record",
        "refused",
        "requests",
        "speaks_websocket",
        "strands",
        "tick",
    )

    def __init__(
        self,
        name: str,
        limits: Limits,
        record: Callable[[Exchange], None] | None = None,
        *,
        speaks_websocket: bool = False,
    ) -> None:
        """`record` gets the exchange of every request that is refused before an application sees it.

        With `speaks_websocket` the application gets `websocket` scopes too; without it the offer is ignored.
        """
        self.speaks_websocket = speaks_websocket
        self.name = name
        self.record = record
        self.connections: set[Connection] = set()
        self.outbox: Outbox = Outbox()
        self.strands: set[Strand] = set()  # requests in progress
        self.tick = 0
        self.head_bytes = limits.head_bytes
        self.headers = limits.headers
        self.max_connections = limits.connections
        shortest = min(limits.head_timeout, limits.body_timeout, limits.keep_alive)
        self.interval_s = min(MAX_INTERVAL_S, max(MIN_INTERVAL_S, shortest / 4))
        self.head_timeout_s = limits.head_timeout
        self.head_ticks = self._ticks(limits.head_timeout)
        self.body_ticks = self._ticks(limits.body_timeout)
        self.idle_ticks = self._ticks(limits.keep_alive)
        self.linger_ticks = self._ticks(LINGER_S)
        self.accepted = 0
        self.requests = 0
        self.refused: dict[str, int] = {}  # by the error's code
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _ticks(self, seconds: float) -> int:
        return math.ceil(seconds / self.interval_s)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to sweep."""
        self._loop = loop
        self._timer = loop.call_later(self.interval_s, self._sweep)

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self.interval_s, self._sweep)
        self.tick = tick = self.tick + 1
        for connection in tuple(self.connections):
            connection.check_time(tick)

    def count_refusal(self, code: str) -> None:
        """Count one request or connection that was answered here."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def samples(self) -> Iterable[Sample]:
        """Connections open and accepted, requests begun, and refusals by code."""
        labels = {"listener": self.name}
        yield Sample("gateway_connections", labels, len(self.connections))
        yield Sample("gateway_connections_accepted_total", labels, self.accepted)
        yield Sample("gateway_server_requests_total", labels, self.requests)
        for code, count in self.refused.items():
            yield Sample("gateway_server_refused_total", {**labels, "code": code}, count)
