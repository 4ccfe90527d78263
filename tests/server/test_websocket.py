"""An open WebSocket, frame for frame: what passes, what is bounded, how it ends, and what silence leads to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.server import websocket as module
from gateway.server.websocket import Session
from tests.server.test_handshake import Accepting, frame, hello
from tests.server.wire import ANSWER_S, Client, Edge, edge

pytestmark = pytest.mark.asyncio

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def goodbye(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2, "big") + reason


@asynccontextmanager
async def opened(application: Any, **limits: Any) -> AsyncIterator[tuple[Edge, Client]]:
    """A connection after its handshake."""
    async with edge(application, speaks_websocket=True, **limits) as server, server.client() as client:
        await client.send(hello())
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        yield server, client


async def received(client: Client) -> tuple[int, bytes]:
    """Opcode and payload of the next frame of the server, which masks nothing."""
    async with asyncio.timeout(ANSWER_S):
        first, size = await client.reader.readexactly(2)
        assert first & 0x80
        if size == 126:
            size = int.from_bytes(await client.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await client.reader.readexactly(8), "big")
        return first & 0x0F, await client.reader.readexactly(size)


async def ended(application: Accepting) -> dict[str, Any]:
    """The application's last message."""
    await asyncio.wait_for(application.ended.wait(), ANSWER_S)
    return application.messages[-1]


def session(server: Edge) -> Session:
    """The one that is open."""
    [found] = [one for one in server.listener.connections if isinstance(one, Session)]
    return found


async def test_messages_are_whole_whatever_their_frames() -> None:
    """Fragments are joined, control frames between them answered, frames split anywhere."""
    application = Accepting()
    async with opened(application) as (_, client):
        message = frame(b"one ", fin=False) + frame(b"ping", PING) + frame(b"two ", CONT, fin=False) + frame(b"3", CONT)
        for byte in message:
            await client.send(bytes([byte]))
        assert await received(client) == (PONG, b"ping")
        assert await received(client) == (TEXT, b"one two 3")
        await client.send(frame(b"\x00\xff", BINARY) + frame(b"") + frame(b"", BINARY))
        assert [await received(client) for _ in range(3)] == [(BINARY, b"\x00\xff"), (TEXT, b""), (BINARY, b"")]
        await client.send(frame(goodbye(4000, b"bye"), CLOSE))
        assert await received(client) == (CLOSE, goodbye(4000, b"bye"))
        assert await client.is_closed()
        assert await ended(application) == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"x" * 1001), 1009),
        (frame(b"x" * 600, fin=False) + frame(b"x" * 600, CONT), 1009),
        (frame(b"", fin=False) + frame(b"", CONT, fin=False) * 9000, 1009),  # fragments that weigh nothing
        (frame(b"\xff\xfe"), 1007),
        (frame(b"x", CONT), 1002),  # continues nothing
        (frame(b"x", fin=False) + frame(b"y"), 1002),
        (b"\x81\x01x", 1002),  # not masked (RFC 6455 §5.1)
        (frame(b"x", 3), 1002),  # an opcode that means nothing
        (b"\xc1" + frame(b"x")[1:], 1002),  # compressed, which was not negotiated
        (frame(b"x" * 126, PING), 1002),
        (frame(b"x", CLOSE), 1002),
        (frame(goodbye(1005), CLOSE), 1002),
    ],
)
async def test_a_client_that_breaks_the_rules_is_told_which(data: bytes, code: int) -> None:
    """The close frame arrives although the client goes on sending, and the application is told the same code."""
    application = Accepting(max_message=1000)
    async with opened(application) as (_, client):
        await client.send(data + frame(b"more") * 10)
        opcode, payload = await received(client)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        assert await client.is_closed()
        assert (await ended(application))["code"] == code
    assert [message for message in application.messages if message["type"] == "websocket.receive"] == []


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ({"code": 1008, "reason": "token_revoked"}, goodbye(1008, b"token_revoked")),
        ({}, goodbye(1000)),
        ({"code": 1005}, b""),
        ({"code": 4000, "reason": "ä" * 100}, goodbye(4000, ("ä" * 61).encode())),  # cut between two characters
    ],
)
async def test_the_application_closes_with_code_and_reason(message: dict[str, Any], payload: bytes) -> None:
    """The client has a moment to answer; what the application says afterwards goes nowhere."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", **message})
        await send({"type": "websocket.send", "text": "too late"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with opened(application) as (_, client):
        assert await received(client) == (CLOSE, payload)
        await client.send(frame(payload, CLOSE))
        assert await client.is_closed()


async def test_a_client_that_does_not_answer_a_close_is_cut_off() -> None:
    """After the time to linger."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    async with opened(application) as (server, client):
        await received(client)
        one, tick = session(server), server.listener.tick
        one.check_time(tick + server.listener.linger_ticks)
        assert not one._transport.is_closing()
        one.check_time(tick + server.listener.linger_ticks + 2)
        assert await client.is_closed()


async def test_a_client_that_vanishes_is_a_1006() -> None:
    """No goodbye came."""
    application = Accepting()
    async with opened(application) as (_, client):
        client.writer.transport.abort()
        assert await ended(application) == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_an_application_that_leaves_closes_the_websocket() -> None:
    """Whether it returns or fails."""
    for fault in (None, ValueError("a fault")):

        async def application(scope: Any, receive: Any, send: Any, fault: Exception | None = fault) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            if fault is not None:
                raise fault

        async with opened(application) as (_, client):
            assert await received(client) == (CLOSE, goodbye(1011))


async def test_a_slow_application_holds_the_client_back() -> None:
    """What waits for it is bounded, whether it is few large messages or many tiny ones; nothing is lost."""
    for message, count in ((b"x" * 40_000, 200), (b"", 100_000)):
        go = asyncio.Event()
        got = 0

        async def application(scope: Any, receive: Any, send: Any, go: asyncio.Event = go) -> None:
            nonlocal got
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            while (await receive())["type"] == "websocket.receive":
                got += 1

        async with opened(application) as (server, client):
            client.writer.write(frame(message, BINARY) * count + frame(goodbye(1000), CLOSE))
            one = session(server)
            async with asyncio.timeout(ANSWER_S):
                while not one._read_paused:
                    await asyncio.sleep(0)
            before = sum(len(waiting["bytes"]) for waiting in one._messages)
            assert before < module.QUEUED_BYTES + 40_000
            assert len(one._messages) < module.QUEUED_MESSAGES + module.SLICE_BYTES // 6
            go.set()
            assert await received(client) == (CLOSE, goodbye(1000))
            assert got == count


async def test_a_slow_client_holds_the_application_back() -> None:
    """Messages wait in the application, not here; the client that reads again gets them all."""
    sent = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(500):
            await send({"type": "websocket.send", "bytes": b"x" * 100_000})
            sent += 1

    async with opened(application) as (server, client):
        one = session(server)
        async with asyncio.timeout(ANSWER_S):
            while not one._write_paused:
                await asyncio.sleep(0)
        assert sent < 250
        for _ in range(500):
            assert len((await received(client))[1]) == 100_000


async def test_a_client_that_pings_and_does_not_read_is_not_read() -> None:
    """Else the answers would pile up."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": b"x" * 1_000_000})
        await receive()

    async with opened(application) as (server, client):
        one = session(server)
        async with asyncio.timeout(ANSWER_S):
            while not one._write_paused:
                await asyncio.sleep(0)
            client.writer.write(frame(b"x" * 125, PING) * 100)
            while not one._read_paused:
                await asyncio.sleep(0)
        pongs = 0
        for _ in range(200):
            pongs += (await received(client))[0] == PONG
        assert pongs == 100


async def test_silence_is_asked_about_and_then_ended() -> None:
    """A ping after the ping time; without any answer for as long again, the connection is closed."""
    application = Accepting()
    async with opened(application) as (server, client):
        one, now = session(server), server.listener.tick
        pause = one._ping_ticks + 1
        one.check_time(now + pause)
        assert await received(client) == (PING, b"")
        await client.send(frame(b"", PONG))
        async with asyncio.timeout(ANSWER_S):
            while one._pinged:
                await asyncio.sleep(0)
        one.check_time(one._heard + pause)
        assert await received(client) == (PING, b"")
        one.check_time(one._heard + pause)
        assert await received(client) == (CLOSE, goodbye(1011, b"no answer to a ping"))
        assert (await ended(application))["code"] == 1011


async def test_a_websocket_without_messages_is_closed_after_its_idle_time() -> None:
    """Pings do not count as messages; a message either way starts the time anew."""
    application = Accepting(idle_s=60.0)
    async with opened(application) as (server, client):
        one = session(server)
        await client.send(frame(b"hello"))
        assert await received(client) == (TEXT, b"hello")
        one._heard = one._moved + one._idle_ticks + 1  # pings were answered all the time
        one.check_time(one._moved + one._idle_ticks)
        one.check_time(one._moved + one._idle_ticks + 1)
        assert await received(client) == (CLOSE, goodbye(1001, b"idle"))
        assert (await ended(application))["code"] == 1001


async def test_a_client_that_never_reads_is_cut_off() -> None:
    """When its buffer has not moved for the keep-alive time."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            for _ in range(100):
                await send({"type": "websocket.send", "bytes": b"x" * 1_000_000})

    async with opened(application) as (server, client):
        await client.send(frame(b"go"))
        one, listener = session(server), server.listener
        async with asyncio.timeout(ANSWER_S):
            while not one._write_paused:
                await asyncio.sleep(0)
            tick = listener.tick
            while not one._transport.is_closing():
                one.check_time(tick)
                tick += listener.idle_ticks + 1
                await asyncio.sleep(0)
            while listener.connections:
                await asyncio.sleep(0)


async def test_a_process_that_stops_says_so() -> None:
    """1012, service restart: the client may come back at once, to another."""
    application = Accepting()
    async with opened(application) as (server, client):
        session(server).shutdown()
        assert await received(client) == (CLOSE, goodbye(1012, b"going_away"))
        assert await ended(application) == {"type": "websocket.disconnect", "code": 1012, "reason": "going_away"}
