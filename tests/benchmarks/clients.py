"""Load that wrk cannot make: a fixed rate, gigabytes, idle connections and event streams.

Each runs as ``python -m tests.benchmarks.clients NAME JSON`` on the load's cores and prints its figures as one line of
JSON. A client that needs the proxy's memory or CPU between two of its own steps is given the proxy's process id.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

from tests.benchmarks import measure
from tests.benchmarks.site import raise_file_limit

_CHUNK_BYTES = 256 * 1024
_TIMEOUT_S = 60.0
_OPENED_AT_ONCE = 50
_EVENT = re.compile(rb"data: (\d+\.\d+)\n\n")


def rate(port: int, token_file: str, per_s: float, seconds: float, connections: int) -> dict[str, float]:
    """Open-loop requests at a constant rate; latency from the moment each was due to the end of its answer.

    A request that is due while every connection is busy waits for one, and that wait counts: a proxy that falls behind
    cannot slow its own clock down. `select` wakes with microseconds, where epoll and libuv round to milliseconds.
    """
    requests = [_request(port, "/api/orders/42?expand=items", line) for line in _lines(token_file)]
    idle = deque(_Caller(port) for _ in range(connections))
    busy: dict[socket.socket, _Caller] = {}
    latencies: list[float] = []
    total = int(per_s * seconds)
    waiting: deque[float] = deque()
    scheduled = 0
    start = time.perf_counter() + 0.05
    while len(latencies) < total:
        now = time.perf_counter()
        if now > start + seconds + _TIMEOUT_S:
            raise SystemExit("the proxy does not answer at this rate")
        while scheduled < total and start + scheduled / per_s <= now:
            waiting.append(start + scheduled / per_s)
            scheduled += 1
        while waiting and idle:
            caller = idle.popleft()
            caller.send(requests[len(latencies) % len(requests)], due_at=waiting.popleft())
            busy[caller.socket] = caller
        pause = max(0.0, start + scheduled / per_s - time.perf_counter()) if scheduled < total else 1.0
        for ready in select.select(list(busy), (), (), pause)[0]:
            caller = busy[ready]
            if caller.receive():
                latencies.append(time.perf_counter() - caller.due_at)
                idle.append(busy.pop(ready))
    ordered = sorted(latencies)
    return {"p50_us": measure.percentile(ordered, 0.50) * 1e6, "p99_us": measure.percentile(ordered, 0.99) * 1e6}


class _Caller:
    """One keep-alive connection of the fixed-rate load."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due_at = 0.0
        self._answer = b""

    def send(self, request: bytes, due_at: float) -> None:
        self.due_at = due_at
        self._answer = b""
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Read what has come; true when the answer is complete."""
        data = self.socket.recv(65_536)
        if not data:
            raise SystemExit("the proxy closed a keep-alive connection")
        self._answer += data
        return _is_complete(self._answer)


def download(port: int, token: str, size: int) -> dict[str, float]:
    """One body of `size` bytes down a fresh connection: bytes per second from the request to the last byte."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        started = time.perf_counter()
        connection.sendall(_request(port, f"/api/download/{size}", token))
        head = b""
        while b"\r\n\r\n" not in head:
            head += _received(connection)
        _demand_ok(head)
        left = size - len(head.partition(b"\r\n\r\n")[2])
        buffer = bytearray(_CHUNK_BYTES)
        while left > 0:
            count = connection.recv_into(buffer)
            if not count:
                raise SystemExit(f"the download ended {left} bytes early")
            left -= count
        return {"bytes_per_s": size / (time.perf_counter() - started)}


def upload(port: int, token: str, size: int) -> dict[str, float]:
    """One body of `size` bytes up a fresh connection, until the upstream has said how many it counted."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        started = time.perf_counter()
        connection.sendall(_request(port, "/api/upload", token, method="POST", length=size))
        chunk = bytes(_CHUNK_BYTES)
        for _ in range(size // _CHUNK_BYTES):
            connection.sendall(chunk)
        connection.sendall(chunk[: size % _CHUNK_BYTES])
        answer = b""
        while not _is_complete(answer):
            answer += _received(connection)
        duration_s = time.perf_counter() - started
    counted = int(answer.partition(b"\r\n\r\n")[2])
    if counted != size:
        raise SystemExit(f"sent {size} bytes, the upstream counted {counted}")
    return {"bytes_per_s": size / duration_s}


def idle(port: int, token: str, pid: int, connections: int) -> dict[str, float]:
    """Memory that each open connection costs the proxy after one answered request, idle since.

    The proxy has answered on one connection before the first reading, so that what it allocates only once is in it.
    """
    raise_file_limit()
    request = _request(port, "/api/orders/42", token)
    held = [_connect_and_ask(port, request) for _ in range(50)]
    before = measure.resident_bytes(pid)
    held += [_connect_and_ask(port, request) for _ in range(connections)]
    time.sleep(1.0)
    after = measure.resident_bytes(pid)
    dropped = len(select_closed(held))
    for connection in held:
        connection.close()
    if dropped:
        raise SystemExit(f"the proxy closed {dropped} of {connections} idle connections")
    return {"bytes_per_connection": (after - before) / connections, "connections": connections}


def select_closed(connections: list[socket.socket]) -> list[socket.socket]:
    """Those on which something can be read: nothing is due, so it is the end."""
    poll = select.epoll()
    by_fd = {connection.fileno(): connection for connection in connections}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(0, len(by_fd))]


def _connect_and_ask(port: int, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    connection.sendall(request)
    answer = b""
    while not _is_complete(answer):
        answer += _received(connection)
    return connection


def events(port: int, token: str, pid: int, streams: int, seconds: int) -> dict[str, float]:
    """Event streams open at once, an event a second each: CPU per event, and delay from the origin's clock to ours."""
    raise_file_limit()
    return uvloop.run(_listen(port, token, pid, streams, seconds))


async def _listen(port: int, token: str, pid: int, streams: int, seconds: int) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    # The streams outlive the measured time, so that opening and closing them is not part of it.
    request = _request(port, f"/api/events/{seconds + 60}", token)
    listeners: list[_Listener] = []
    while len(listeners) < streams:
        batch = [_Listener(request, delays) for _ in range(min(_OPENED_AT_ONCE, streams - len(listeners)))]
        for listener in batch:
            await loop.create_connection(lambda listener=listener: listener, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.wait_for(asyncio.gather(*(listener.opened for listener in batch)), _TIMEOUT_S)
        listeners += batch
    await asyncio.sleep(1.0)
    delays.clear()
    cpu_before, started = measure.cpu_s(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    cpu_s, duration_s = measure.cpu_s(pid) - cpu_before, time.perf_counter() - started
    ordered = sorted(delays)
    closed = sum(listener.closed for listener in listeners)
    for listener in listeners:
        listener.transport.abort()
    if closed or len(ordered) < 0.98 * streams * (duration_s - 1):
        raise SystemExit(f"{closed} streams closed; {len(ordered)} events instead of {streams * duration_s:.0f}")
    return {
        "cpu_us": cpu_s / len(ordered) * 1e6,
        "p50_us": measure.percentile(ordered, 0.50) * 1e6,
        "p99_us": measure.percentile(ordered, 0.99) * 1e6,
    }


class _Listener(asyncio.Protocol):
    """One event stream."""

    def __init__(self, request: bytes, delays: list[float]) -> None:
        self._request = request
        self._delays = delays
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            _demand_ok(data)
            self.opened.set_result(None)
        now = time.time()
        self._delays.extend(now - float(sent_at) for sent_at in _EVENT.findall(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("the stream was closed before it began"))


def _request(port: int, target: str, token: str, method: str = "GET", length: int | None = None) -> bytes:
    body = "" if length is None else f"content-length: {length}\r\n"
    return (
        f"{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        f"user-agent: shop/4.2.0\r\naccept: application/json\r\n{body}\r\n"
    ).encode()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().split()


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise SystemExit("the proxy closed the connection before its answer was complete")
    return data


def _is_complete(answer: bytes) -> bool:
    """Whether a 200 with a Content-Length is there in full; anything else ends the run."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    _demand_ok(head)
    return len(body) >= int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])  # type: ignore[index]  # absent: ends


def _demand_ok(head: bytes) -> None:
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"expected a 200, got {head[:200]!r}")


_CLIENTS: dict[str, Callable[..., dict[str, float]]] = {
    "rate": rate,
    "download": download,
    "upload": upload,
    "idle": idle,
    "events": events,
}

if __name__ == "__main__":
    print(json.dumps(_CLIENTS[sys.argv[1]](**json.loads(sys.argv[2]))))
