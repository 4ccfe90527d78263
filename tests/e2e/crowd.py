"""Thousands of live connections: the clients and the upstream of a crowd, each a process of plain protocols.

    python -m tests.e2e.crowd upstream PORT      echoes messages; any other GET gets one event, and then silence
    python -m tests.e2e.crowd clients FILE       opens what FILE lists, and says on stdout what becomes of it

A line of FILE is `websocket USER TOKEN` or `events USER TOKEN`, behind a first line with the gateway's port. Some of
the WebSockets speak all along, so that the gateway has work. `Crowd` has what the clients have said.

A WebSocket of a library takes some 30 KiB and 100 µs a message; ten thousand at both ends of the gateway would leave
the machine nothing to measure. Frames here are short and complete, as our own gateway sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import uvloop

Kind = Literal["websocket", "events"]
OPENING: Final = 64  # handshakes at a time
TURN_S: Final = 0.05  # between two groups of speakers
SPEAKERS: Final = 25  # messages each turn: 500 a second
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_BLANK: Final = b"\r\n\r\n"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_KEY: Final = b64encode(bytes(16))
_MASK: Final = bytes(4)  # the identity: masking costs time and protects nobody here


def frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """One complete frame of at most 125 bytes."""
    head = bytes((0x80 | opcode, len(payload) | (0x80 if masked else 0)))
    return head + (_MASK if masked else b"") + payload


class Frames:
    """Short frames out of a stream of bytes."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        """Opcode and payload of each frame that is complete."""
        held = self._held + data if self._held else data
        at = 0
        while len(held) - at >= 2:
            length, masked = held[at + 1] & 0x7F, held[at + 1] & 0x80
            if length > 125:
                raise ValueError("a long frame in a crowd of short ones")
            start = at + (6 if masked else 2)
            end = start + length
            if end > len(held):
                break
            payload = held[start:end]
            if masked:
                mask = held[at + 2 : at + 6]
                payload = bytes(byte ^ mask[place & 3] for place, byte in enumerate(payload))
            yield held[at] & 0x0F, payload
            at = end
        self._held = held[at:]


# --- the upstream ----------------------------------------------------------------------------------------------------


class Host(asyncio.Protocol):
    """One connection of the upstream."""

    __slots__ = ("_frames", "_head", "_transport")

    def connection_made(self, transport: Any) -> None:
        """Wait for a head."""
        self._transport = transport
        self._head = b""
        self._frames: Frames | None = None

    def data_received(self, data: bytes) -> None:
        """A head, or frames."""
        if self._frames is not None:
            for opcode, payload in self._frames.feed(data):
                self._answer(opcode, payload)
            return
        self._head += data
        if not self._head.endswith(_BLANK):
            return
        head = self._head.lower()
        fields = [line.partition(b":") for line in self._head.split(b"\r\n")]
        key = next((value.strip() for name, _, value in fields if name.lower() == b"sec-websocket-key"), None)
        if b"\r\nupgrade: websocket" in head and key is not None:
            self._frames = Frames()
            accept = b64encode(sha1(key + _GUID).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
        else:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"d\r\ndata: hello\n\n\r\n"
            )
        self._head = b""

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self._transport.write(frame(_CLOSE, payload, masked=False))
            self._transport.close()
        elif opcode != _PONG:
            self._transport.write(frame(_PONG if opcode == _PING else opcode, payload, masked=False))


async def host(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Host, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# --- the clients -----------------------------------------------------------------------------------------------------


class Guest(asyncio.Protocol):
    """One connection of the crowd, which takes note of how it ends."""

    __slots__ = ("_crowd", "_frames", "_head", "_sent_at", "_transport", "code", "ended", "kind", "opened", "user")

    def __init__(self, crowd: Guests, kind: str, user: str) -> None:
        self._crowd = crowd
        self.kind = kind
        self.user = user
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.code = ""  # what the gateway said when it ended it
        self.ended = False
        self._head = b""
        self._frames: Frames | None = None
        self._sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        """The head is sent by who made it."""
        self._transport = transport

    def ask(self, token: str) -> None:
        """Send the request."""
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += b"Sec-WebSocket-Key: %b\r\n" % _KEY
        self._transport.write(
            b"GET /api/live HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n%b\r\n"
            % (token.encode(), upgrade if self.kind == "websocket" else b"")
        )

    def speak(self) -> None:
        """Send a message, which comes back."""
        if self._frames is not None and not self.ended:
            self._sent_at = time.monotonic()
            self._transport.write(frame(_TEXT, b"hello", masked=True))

    def data_received(self, data: bytes) -> None:
        """The head, then frames or events."""
        if not self.opened.done():
            self._read_head(data)
        elif self._frames is None:
            self._read_events(data)
        else:
            for opcode, payload in self._frames.feed(data):
                self._read_frame(opcode, payload)

    def _read_head(self, data: bytes) -> None:
        self._head += data
        head, blank, rest = self._head.partition(_BLANK)
        if not blank:
            return
        self._head = b""
        if self.kind == "websocket" and head.startswith(b"HTTP/1.1 101"):
            self._frames = Frames()
        elif self.kind != "events" or not head.startswith(b"HTTP/1.1 200"):
            self.code = head.split(b"\r\n")[0].decode()
            self._transport.close()
            return
        self.opened.set_result(True)
        if rest:
            self.data_received(rest)

    def _read_events(self, data: bytes) -> None:
        if b"event: gateway" in data:
            self.code = str(json.loads(data.partition(b"\ndata: ")[2].partition(b"\n")[0])["code"])
            self._end()

    def _read_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self.code = f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}"
            self._end()
            self._transport.write(frame(_CLOSE, payload[:2], masked=True))
            self._transport.close()
        elif opcode == _PING:
            self._transport.write(frame(_PONG, payload, masked=True))
        elif opcode == _TEXT:
            self._crowd.heard(time.monotonic() - self._sent_at)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone, with or without a word."""
        if not self.opened.done():
            self.opened.set_result(False)
            self._crowd.say(refused=self.code or "closed without an answer", user=self.user)
        self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            if self.opened.done() and self.opened.result():
                self._crowd.say(ended=self.user, kind=self.kind, code=self.code, at=time.monotonic())


class Guests:
    """All clients of one process."""

    def __init__(self) -> None:
        self._echoes: list[float] = []

    def say(self, **facts: Any) -> None:
        """One line for `Crowd`."""
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    def heard(self, delay_s: float) -> None:
        """A message has come back."""
        self._echoes.append(delay_s)

    async def come(self, path: Path) -> None:
        """Open everything, say so, and stay until the process is ended."""
        first, *lines = path.read_text().splitlines()
        loop, port = asyncio.get_running_loop(), int(first)
        gate = asyncio.Semaphore(OPENING)
        guests: list[Guest] = []

        async def enter(line: str) -> None:
            kind, user, token = line.split(" ")
            async with gate:
                _, guest = await loop.create_connection(lambda: Guest(self, kind, user), "127.0.0.1", port)
                guest.ask(token)
                guests.append(guest)
                await guest.opened

        started = time.monotonic()
        await asyncio.gather(*(enter(line) for line in lines))
        self.say(opened=sum(guest.opened.result() for guest in guests), seconds=time.monotonic() - started)
        await self._speak([guest for guest in guests if guest.kind == "websocket"])

    async def _speak(self, guests: list[Guest]) -> None:
        turn, told_at = 0, time.monotonic()
        while True:
            await asyncio.sleep(TURN_S)
            for place in range(min(SPEAKERS, len(guests))):
                guests[(turn + place) % len(guests)].speak()
            turn += SPEAKERS
            if time.monotonic() - told_at >= 1:
                told_at = time.monotonic()
                echoes, self._echoes = sorted(self._echoes), []
                self.say(echoes=len(echoes), slowest_s=echoes[-1] if echoes else 0.0)


# --- both, for a test ------------------------------------------------------------------------------------------------


class Farewell(NamedTuple):
    """How one connection ended."""

    user: str
    kind: str
    code: str
    at: float  # monotonic seconds, the same clock in all processes


@dataclass
class Crowd:
    """What the clients have said so far."""

    opened: int = 0
    opening_s: float = 0.0
    refused: list[str] = field(default_factory=list)
    farewells: list[Farewell] = field(default_factory=list)
    echoes: int = 0
    slowest_s: float = 0.0  # the longest way of a message to the upstream and back since it was last set to 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, line: bytes) -> None:
        """Take in what a client said."""
        match json.loads(line):
            case {"opened": count, "seconds": seconds}:
                self.opened, self.opening_s = count, seconds
            case {"refused": why}:
                self.refused.append(why)
            case {"ended": user, "kind": kind, "code": code, "at": at}:
                self.farewells.append(Farewell(user, kind, code, at))
            case {"echoes": count, "slowest_s": slowest_s}:
                self.echoes += count
                self.slowest_s = max(self.slowest_s, slowest_s)
        self._news.set()

    async def until_opened(self) -> None:
        """Until all have been answered."""
        while not self.opened:
            await self._next()

    async def until_ended(self, count: int) -> list[Farewell]:
        """The farewells, once there are so many."""
        while len(self.farewells) < count:
            await self._next()
        return self.farewells

    async def until_echoed(self, count: int) -> None:
        """Until so many messages more have come back."""
        count += self.echoes
        while self.echoes < count:
            await self._next()

    def by_code(self) -> Counter[tuple[str, str]]:
        """How many of each kind have ended with each code."""
        return Counter((farewell.kind, farewell.code) for farewell in self.farewells)

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()


def raise_file_limit() -> int:
    """As many open files as this process may have, and its children with it; how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@asynccontextmanager
async def upstream_of_crowd(port: int) -> AsyncIterator[None]:
    """The upstream, gone when the block ends."""
    process = await _start("upstream", str(port))
    try:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)  # another process: nothing to wait on
        yield
    finally:
        await _end(process)


@asynccontextmanager
async def gathered(path: Path, port: int, members: Iterable[tuple[Kind, str, str]]) -> AsyncIterator[Crowd]:
    """A crowd on its way to the gateway at `port`, gone when the block ends; members are kind, user and token."""
    path.write_text("\n".join([str(port), *(" ".join(member) for member in members)]))
    process = await _start("clients", str(path))
    crowd = Crowd()

    async def listen() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            crowd.take(line)

    listening = asyncio.create_task(listen())
    try:
        yield crowd
    finally:
        await _end(process)
        await listening


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.crowd", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()  # nothing to put in order, and thousands of goodbyes to spare
    await process.wait()


def main(role: str, argument: str) -> None:
    """Be one of the two."""
    raise_file_limit()
    work = host(int(argument)) if role == "upstream" else Guests().come(Path(argument))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
