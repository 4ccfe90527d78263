"""What a turn of the loop writes leaves at its end, in order, and never later."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.outbox import HELD_BYTES, HELD_WRITES, Outbox, Outgoing

pytestmark = pytest.mark.asyncio


class Recorder(asyncio.Transport):
    """A transport that keeps what it was given, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        """As the test says."""
        return self.closing


def ways(count: int) -> tuple[list[Recorder], list[Outgoing], Outbox]:
    """So many transports behind one outbox."""
    outbox, loop = Outbox(), asyncio.get_running_loop()
    transports = [Recorder() for _ in range(count)]
    return transports, [Outgoing(transport, outbox, loop) for transport in transports], outbox


async def test_leaves_when_the_turn_ends() -> None:
    """Nothing is written while the turn lasts, and everything once it has ended."""
    transports, outgoing, _ = ways(2)
    outgoing[0].write(b"one")
    outgoing[1].write(b"two")
    assert [each.written for each in transports] == [[], []]
    await asyncio.sleep(0)
    assert [each.written for each in transports] == [[b"one"], [b"two"]]


async def test_writes_of_one_turn_are_one() -> None:
    """Of one transport, in the order in which they came."""
    (transport,), (outgoing,), _ = ways(1)
    for piece in (b"a", b"", b"b", b"c"):
        outgoing.write(piece)
    await asyncio.sleep(0)
    outgoing.write(b"d")
    await asyncio.sleep(0)
    assert transport.written == [b"abc", b"d"]


async def test_long_ones_do_not_wait() -> None:
    """Nor does what was written before them; nothing is overtaken."""
    (transport,), (outgoing,), _ = ways(1)
    long = b"x" * HELD_BYTES
    outgoing.write(b"head")
    outgoing.write(long)
    assert transport.written == [b"head", long]
    outgoing.write(long)  # as much as is held at the most
    assert transport.written == [b"head", long]
    outgoing.write(b"x")
    assert transport.written == [b"head", long, long, b"x"]
    await asyncio.sleep(0)
    assert transport.written == [b"head", long, long, b"x"]


async def test_many_do_not_wait_for_one_another() -> None:
    """A turn that answers many lets some of them out before it ends."""
    transports, outgoing, _ = ways(HELD_WRITES + 1)
    for each in outgoing:
        each.write(b"answer")
    assert [each.written for each in transports] == [[b"answer"]] * HELD_WRITES + [[]]
    await asyncio.sleep(0)
    assert all(each.written == [b"answer"] for each in transports)


async def test_let_out_by_hand() -> None:
    """Whoever is about to do something else with the transport lets out what is held, once."""
    (transport,), (outgoing,), outbox = ways(1)
    outgoing.write(b"before")
    outgoing.let_out()
    transport.write(b"past it")
    outgoing.write(b"after")
    outbox.empty()
    await asyncio.sleep(0)
    assert transport.written == [b"before", b"past it", b"after"]


async def test_closed_meanwhile() -> None:
    """A transport that is closed when the turn ends gets nothing; the others get theirs."""
    transports, outgoing, _ = ways(2)
    for each in outgoing:
        each.write(b"answer")
    transports[0].closing = True
    await asyncio.sleep(0)
    assert [each.written for each in transports] == [[], [b"answer"]]


async def test_one_that_fails_keeps_nobody_waiting() -> None:
    """The loop is told, and the others get theirs."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    transports, outgoing, _ = ways(2)
    broken = RuntimeError("no more")

    def write(_: object) -> None:
        raise broken

    transports[0].write = write  # type: ignore[method-assign, assignment]
    for each in outgoing:
        each.write(b"answer")
    await asyncio.sleep(0)
    assert told == [broken]
    assert transports[1].written == [b"answer"]


async def test_through_a_socket() -> None:
    """With a transport of the loop, the other side has it all, in one piece."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        outgoing = Outgoing(transport, Outbox(), loop)
        outgoing.write(b"first, ")
        outgoing.write(b"second")
        assert await asyncio.wait_for(loop.sock_recv(theirs, 100), 5) == b"first, second"
        transport.close()
