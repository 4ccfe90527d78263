"""A long body goes through a conduit, and whatever happens on the way looks as if there were none."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from gateway.telemetry.exchange import Exchange
from gateway.upstream import conduit
from gateway.upstream.conduit import Conduit, open_conduit
from gateway.upstream.endpoints import Upstream
from gateway.upstream.forward import ResponseAborted, forward
from tests.server.wire import Client, Edge, edge
from tests.upstream.scripted import Talk, make_request, serving

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform != "linux", reason="splice(2) is Linux's"),
]

MIB = 2**20
BODY = b"".join(number.to_bytes(8, "big") + os.urandom(MIB - 8) for number in range(12))
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\ncontent-length: %d\r\n\r\n" % len(BODY)
PATIENCE_S = 10.0

Script = Callable[[Talk], Awaitable[None]]


@pytest_asyncio.fixture(autouse=True)
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Conduit]]:
    """Every conduit of the test; afterwards all are closed, and their pipes with them."""
    conduits: list[Conduit] = []

    class Noted(Conduit):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            conduits.append(self)

    before = _pipes()
    monkeypatch.setattr(conduit, "Conduit", Noted)
    yield conduits
    await asyncio.sleep(0)  # for transports that have just been aborted
    async with asyncio.timeout(PATIENCE_S):
        while Conduit.opened:
            await asyncio.sleep(0.01)
    assert _pipes() == before


def _pipes() -> int:
    """Ends of pipes that this process holds."""
    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return sum(link.is_symlink() and os.readlink(link).startswith("pipe:") for link in links)


class Gateway:
    """Forwards everything to one scripted upstream; what became of each request."""

    def __init__(self, server: Edge, upstream: Upstream) -> None:
        self.server, self.upstream = server, upstream
        self.exchanges: list[Exchange] = []
        self.endings: list[type[BaseException] | None] = []

    async def ended(self) -> type[BaseException] | None:
        """What the first request ended with, when it has."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.endings:
                await asyncio.sleep(0.01)
        return self.endings[0]


@asynccontextmanager
async def gateway(script: Script, *, idle_s: float = 5.0, between: Any = None, **limits: Any) -> AsyncIterator[Gateway]:
    """A client's listener in front of `script`; `between` wraps the server's `send`."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(monotonic(), scope["method"], "a", "/", "192.0.2.1")
        stage.exchanges.append(exchange)
        is_put = scope["method"] == "PUT"
        changes = {"method": b"PUT", "body_length": len(BODY), "body_limit": len(BODY)} if is_put else {}
        request = make_request(**changes, idle_timeout_s=idle_s)
        try:
            await forward(request, stage.upstream, receive, between(send) if between else send, exchange)
        except BaseException as exc:
            stage.endings.append(type(exc))
            raise
        stage.endings.append(None)

    async with serving(script) as (_, upstream), edge(application, **limits) as server:
        stage = Gateway(server, upstream)
        yield stage
        async with asyncio.timeout(PATIENCE_S):
            while server.listener.connections:  # whose clients have left by now
                await asyncio.sleep(0.01)


async def download(client: Client) -> bytes:
    """The body, however it ends."""
    await client.send(GET)
    await client.reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        body = b""
        try:
            while len(body) < len(BODY) and (piece := await client.reader.read(MIB)):
                body += piece
        except ConnectionError:
            pass
        return body


def replying_with(*pieces: bytes, then: Callable[[Talk], object] | None = None) -> Script:
    """Answers with a head and these pieces, then does something, or waits for the gateway to close."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(HEAD)
        for piece in pieces:
            await talk.say(piece)
        if then is not None:
            then(talk)
        await talk.closed()

    return script


async def counting(talk: Talk) -> None:
    """Answers an upload with its digest, twice."""
    for _ in range(2):
        await talk.head()
        digest = hashlib.sha256(await talk.reader.readexactly(len(BODY))).hexdigest().encode()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(digest), digest))
    await talk.closed()


async def test_a_download(opened: list[Conduit]) -> None:
    """The bytes are the same and all counted, most went through the conduit, and both connections are used again."""

    async def twice(talk: Talk) -> None:
        for _ in range(2):
            await talk.head()
            await talk.say(HEAD + BODY)
        await talk.closed()

    async with gateway(twice) as stage, stage.server.client() as client:
        for _ in range(2):
            assert await download(client) == BODY
    assert [exchange.bytes_out for exchange in stage.exchanges] == [len(BODY)] * 2
    assert sum(way.given for way in opened) > len(BODY)
    assert stage.endings == [None, None]


async def test_an_upload(opened: list[Conduit]) -> None:
    """The bytes are the same and all counted, most went through the conduit, and both connections are used again."""
    async with gateway(counting) as stage, stage.server.client() as client:
        for _ in range(2):
            await client.send(PUT)
            for at in range(0, len(BODY), MIB):
                await client.send(BODY[at : at + MIB])
            answer = await client.answer()
            assert answer is not None
            assert answer.body == hashlib.sha256(BODY).hexdigest().encode()
    assert [exchange.bytes_in for exchange in stage.exchanges] == [len(BODY)] * 2
    assert sum(way.taken for way in opened) > len(BODY)


async def test_a_side_that_pauses(opened: list[Conduit]) -> None:
    """Neither an upstream that is slow at times nor a client that is loses a byte."""

    async def slow(talk: Talk) -> None:
        await talk.head()
        await talk.say(HEAD)
        for at in range(0, len(BODY), 3 * MIB):
            await talk.say(BODY[at : at + 3 * MIB])
            await asyncio.sleep(0.05)
        await talk.closed()

    async with gateway(slow) as stage, stage.server.client() as client:
        await client.send(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        body = b""
        while len(body) < len(BODY):
            body += await client.reader.read(MIB)
            await asyncio.sleep(0.01)
        assert body == BODY
    assert opened


async def test_little_by_little(opened: list[Conduit]) -> None:
    """However little comes after much, it does not wait for more."""
    received = asyncio.Queue[int]()

    async def trickle(talk: Talk) -> None:
        await talk.head()
        await talk.say(HEAD + BODY[: 3 * MIB])
        for at in range(3 * MIB, 3 * MIB + 10_000, 1000):
            assert await received.get() == at
            await talk.say(BODY[at : at + 1000])
        assert await received.get() == 3 * MIB + 10_000
        await talk.say(BODY[3 * MIB + 10_000 :])
        await talk.closed()

    async with gateway(trickle) as stage, stage.server.client() as client, asyncio.timeout(PATIENCE_S):
        await client.send(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        body = await client.reader.readexactly(3 * MIB)
        for _ in range(10):
            received.put_nowait(len(body))
            body += await client.reader.readexactly(1000)
        received.put_nowait(len(body))
        assert body + await client.reader.readexactly(len(BODY) - len(body)) == BODY
    (way,) = opened
    assert way.given > 3 * MIB + 10_000 - MIB


async def test_an_upstream_that_ends_too_early(opened: list[Conduit]) -> None:
    """What came reaches the client, whose connection then ends before the body does."""
    async with gateway(replying_with(BODY[: 8 * MIB], then=Talk.hang_up)) as stage, stage.server.client() as client:
        assert await download(client) == BODY[: 8 * MIB]
        ended = await stage.ended()
    assert opened
    assert ended is ResponseAborted
    assert stage.exchanges[0].code == "bad_response"
    assert stage.exchanges[0].bytes_out == 8 * MIB


async def test_an_upstream_that_falls_silent(opened: list[Conduit]) -> None:
    """It is given the time it would have had anyway."""
    async with gateway(replying_with(BODY[: 8 * MIB]), idle_s=0.3) as stage, stage.server.client() as client:
        assert await download(client) == BODY[: 8 * MIB]
        ended = await stage.ended()
    assert opened
    assert ended is ResponseAborted
    assert stage.exchanges[0].code == "upstream_timeout"


@pytest.mark.parametrize("limits", [{"idle_s": 0.3}, {"keep_alive": "300ms"}], ids=["idle", "keep_alive"])
async def test_a_client_that_does_not_read(limits: dict[str, Any], opened: list[Conduit]) -> None:
    """It is cut off by whichever limit it meets first."""
    async with gateway(replying_with(BODY * 4), **limits) as stage, stage.server.client() as client:
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no public way
        await client.send(GET)
        assert await stage.ended() is not None
    assert opened


async def test_a_client_that_leaves(opened: list[Conduit]) -> None:
    """The upstream's connection is closed at once."""
    left = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(HEAD + BODY[: 4 * MIB])
        await talk.closed()
        left.set()

    async with gateway(script) as stage:
        async with stage.server.client() as client:
            await client.send(GET)
            async with asyncio.timeout(PATIENCE_S):
                while not opened:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_S):
            await left.wait()
        assert await stage.ended() is asyncio.CancelledError


async def test_an_upload_that_stops(opened: list[Conduit]) -> None:
    """408 after the time for bodies, and the upstream's connection is closed."""
    async with gateway(counting, body_timeout="300ms") as stage, stage.server.client() as client:
        await client.send(PUT + BODY[: 6 * MIB])
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.code) == (408, "request_timeout")
    assert opened


async def test_an_upload_that_breaks_off(opened: list[Conduit]) -> None:
    """The client is gone: so is the request, upstream too."""
    async with gateway(counting) as stage:
        async with stage.server.client() as client:
            await client.send(PUT + BODY[: 6 * MIB])
        assert await stage.ended() is asyncio.CancelledError
    assert opened


async def test_an_upstream_that_does_not_read(opened: list[Conduit]) -> None:
    """504 after the time it is given."""
    over = asyncio.Event()

    async def deaf(talk: Talk) -> None:
        await talk.head()
        await over.wait()

    async with gateway(deaf, idle_s=0.3) as stage, stage.server.client() as client:
        sending = asyncio.create_task(client.send(PUT + BODY))
        answer = await client.answer()
        over.set()
        assert answer is not None
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_an_early_answer(opened: list[Conduit]) -> None:
    """The upload stops, the client gets the answer."""

    async def refusing(talk: Talk) -> None:
        await talk.head()
        await talk.reader.readexactly(6 * MIB)
        await talk.say(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        await talk.closed()

    async with gateway(refusing) as stage, stage.server.client() as client:
        await client.send(PUT + BODY[: 6 * MIB])
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.body) == (403, b"no")
    assert opened


async def test_somebody_between(opened: list[Conduit]) -> None:
    """Who wraps `send` sees every byte."""
    seen = []

    def between(send: Any) -> Any:
        async def noting(message: dict[str, Any]) -> None:
            seen.append(message.get("body", b""))
            await send(message)

        return noting

    async with gateway(replying_with(BODY), between=between) as stage, stage.server.client() as client:
        assert await download(client) == BODY
    assert b"".join(seen) == BODY
    assert not opened


async def test_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch, opened: list[Conduit]) -> None:
    """Beyond the bound, and where a pipe cannot be had, the body goes the ordinary way."""
    async with gateway(replying_with(BODY)) as stage, stage.server.client() as client:
        monkeypatch.setattr(conduit, "MAX_OPEN", 0)
        assert await download(client) == BODY

    def none(flags: int) -> tuple[int, int]:
        raise OSError(24, "too many open files")

    async with gateway(replying_with(BODY)) as stage, stage.server.client() as client:
        monkeypatch.setattr(conduit, "MAX_OPEN", 1)
        monkeypatch.setattr(os, "pipe2", none)
        assert await download(client) == BODY
    assert not opened


async def test_a_system_without_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused call takes nothing, and the body goes the ordinary way."""

    def refused(*arguments: object, **options: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "splice", refused)
    async with gateway(replying_with(BODY)) as stage, stage.server.client() as client:
        assert await download(client) == BODY


class _Wire:
    """As much of a transport as is asked for its socket."""

    def __init__(self, **extra: object) -> None:
        self._extra = extra

    def get_extra_info(self, name: str) -> object:
        return self._extra.get(name)


async def test_tls_is_never_spliced(opened: list[Conduit]) -> None:
    """What a TLS transport writes is not what goes over its socket."""
    plain: Any = _Wire(socket=object())
    tls: Any = _Wire(socket=object(), sslcontext=object())
    loop = asyncio.get_running_loop()
    assert open_conduit(tls, plain, 2 * MIB, loop) is None
    assert open_conduit(plain, tls, 2 * MIB, loop) is None
    assert not opened
