"""Bodies of any size pass through at the pace of the slower side, unchanged, in flat memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pytest

from tests.edge import GatewayProcess, TestIssuer, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]

MIB = 2**20
GROWTH_BYTES = 32 * MIB  # of resident memory, whatever the size of the body
PATIENCE_S = 60.0
PAUSE_S = 0.3  # a side that is slow stops altogether, four times along the way
PAUSES = 4
LOOK_EVERY_S = 0.01

SIZES = [
    pytest.param(128 * MIB, id="128MiB"),
    pytest.param(1024 * MIB, id="1GiB", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
]


# --- blocking peers: threads with plain sockets, because they have to outrun the gateway ------------------------------


def pieces(size: int) -> Iterator[bytes]:
    """`size` bytes in which no two MiB are alike, so that a piece that is lost, doubled or moved shows."""
    filling = os.urandom(MIB)
    for number in range(size // MIB):
        yield number.to_bytes(8, "big") + filling[8:]


class Pace:
    """Stops four times on the way through `size` bytes; both sides take turns at being the slow one."""

    def __init__(self, size: int, *, first_at: int) -> None:
        self._marks = [first_at + number * (size // PAUSES) for number in range(PAUSES)]

    def at(self, done: int) -> None:
        """Pause if another mark has been passed."""
        if self._marks and done >= self._marks[0]:
            self._marks.pop(0)
            time.sleep(PAUSE_S)


def write_body(sock: socket.socket, size: int, *, chunked: bool) -> str:
    """Send a body, with pauses; its SHA-256."""
    digest, pace, sent = hashlib.sha256(), Pace(size, first_at=0), 0
    for piece in pieces(size):
        digest.update(piece)
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        sent += len(piece)
        pace.at(sent)
    if chunked:
        sock.sendall(b"0\r\n\r\n")
    return digest.hexdigest()


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A head, in lower case, and what came after it."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError(got)
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head.lower(), rest


def read_body(sock: socket.socket, head: bytes, rest: bytes, size: int) -> str:
    """Read a body by its framing, with pauses; its SHA-256. EOFError if it is cut short."""
    digest, pace, done = hashlib.sha256(), Pace(size, first_at=size // PAUSES // 2), 0
    source = sock.makefile("rb")
    buffered = _Prefixed(rest, source)
    if b"transfer-encoding: chunked" in head:
        while length := int(buffered.readline().split(b";")[0], 16):
            digest.update(buffered.exactly(length))
            buffered.exactly(2)
            done += length
            pace.at(done)
        buffered.exactly(2)
    else:
        while done < size:
            piece = buffered.exactly(min(MIB, size - done))
            digest.update(piece)
            done += len(piece)
            pace.at(done)
    assert done == size
    return digest.hexdigest()


class _Prefixed:
    """A file with some bytes before it."""

    def __init__(self, prefix: bytes, file: BinaryIO) -> None:
        self._prefix, self._file = prefix, file

    def exactly(self, count: int) -> bytes:
        """That many bytes; EOFError if there are fewer."""
        taken, self._prefix = self._prefix[:count], self._prefix[count:]
        if len(taken) < count:
            taken += self._file.read(count - len(taken))
        if len(taken) < count:
            raise EOFError
        return taken

    def readline(self) -> bytes:
        """Up to and including the next line feed."""
        line = b""
        while not line.endswith(b"\n"):
            line += self.exactly(1)
        return line


class BulkUpstream(threading.Thread):
    """Answers one request: reads its body slowly and digests it, then sends a body of the same size, with pauses."""

    def __init__(self, size: int, *, chunked: bool) -> None:
        super().__init__(daemon=True)
        self._size, self._chunked = size, chunked
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = ""  # SHA-256
        self.sent = ""  # SHA-256

    def run(self) -> None:
        """Serve PUT and GET on whatever connections come, one after the other."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(PATIENCE_S)
                try:
                    while self._answer(sock):
                        pass
                except (OSError, EOFError):
                    continue

    def _answer(self, sock: socket.socket) -> bool:
        head, rest = read_head(sock)
        if head.startswith(b"put"):
            self.received = read_body(sock, head, rest, self._size)
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            framing = b"Transfer-Encoding: chunked" if self._chunked else b"Content-Length: %d" % self._size
            sock.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
            self.sent = write_body(sock, self._size, chunked=self._chunked)
        return True

    def close(self) -> None:
        """Accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@dataclass
class Memory:
    """`with`: watches the resident memory of a process."""

    pid: int
    before: int = 0  # bytes
    peak: int = 0  # bytes
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.before = self.peak = self._resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes at the peak beyond those at the beginning."""
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.peak = max(self.peak, self._resident())

    def _resident(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise LookupError("VmRSS")


def put(port: int, token: str, size: int, *, chunked: bool) -> str:
    """Upload a body; its SHA-256."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        sock.sendall(f"PUT /big HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n".encode())
        digest = write_body(sock, size, chunked=chunked)
        head, _ = read_head(sock)
        assert head.startswith(b"http/1.1 204"), head
        return digest


def get(port: int, token: str, size: int) -> str:
    """Download a body, slowly; its SHA-256."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        sock.sendall(f"GET /big HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        head, rest = read_head(sock)
        assert head.startswith(b"http/1.1 200"), head
        return read_body(sock, head, rest, size)


# --- the tests --------------------------------------------------------------------------------------------------------

BIG = "  - {name: big, path: /big, upstream: app, body_bytes: 2GiB}\n"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_big_body_arrives_unchanged_and_is_never_held(
    size: int, chunked: bool, issuer: TestIssuer, start_gateway: Start
) -> None:
    """Up and then down, each side stopping in turn: the bytes are the same, and memory grows by less than 32 MiB."""
    upstream = BulkUpstream(size, chunked=chunked)
    upstream.start()
    try:
        async with start_gateway(config_text(issuer.yaml(), upstream.url, routes=BIG)) as gateway:
            token = issuer.token()
            await gateway.get("/nowhere")
            started = time.monotonic()
            with Memory(gateway.pid) as memory:
                sent = await asyncio.to_thread(put, gateway.port, token, size, chunked=chunked)
                up_s, up = time.monotonic() - started, memory.growth
                received = await asyncio.to_thread(get, gateway.port, token, size)
            down_s = time.monotonic() - started - up_s
            print(
                f"\n{size // MIB} MiB up in {up_s:.1f} s, down in {down_s:.1f} s, pauses included;"
                f" resident memory {memory.before / MIB:.1f} MiB, +{up / MIB:.1f} up, +{memory.growth / MIB:.1f} in all"
            )
            assert sent == upstream.received
            assert received == upstream.sent
            assert memory.growth < GROWTH_BYTES
            assert await gateway.metric("gateway_request_body_bytes_total", route="big") == size
            assert await gateway.metric("gateway_response_body_bytes_total", route="big") == size
    finally:
        upstream.close()
        upstream.join(PATIENCE_S)
