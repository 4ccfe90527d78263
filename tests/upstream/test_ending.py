"""A response that lasts is ended from outside: what the client and the upstream see of it."""

import asyncio
import gc
from typing import Any

import pytest

from gateway.errors import GatewayError, TokenExpired, TokenRevoked
from gateway.upstream import forward as module
from gateway.upstream.forward import ResponseAborted, forward
from gateway.upstream.http1 import Connection
from tests.upstream.scripted import OK, Client, Talk, make_request, serving

pytestmark = pytest.mark.asyncio

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
DEADLINE_S = 5.0


class Watching:
    """Keeps what is entered, and says of every token what it is told to."""

    def __init__(self, verdict: str = "") -> None:
        self.entered: list[Any] = []
        self.left: list[Any] = []
        self.tokens: list[Any] = []
        self.lasting: list[bool] = []
        self.asked = 0
        self._verdict = verdict

    def enter(self, connection: Any, token: Any, *, lasts: bool = False) -> None:
        """Take note."""
        self.lasting.append(lasts)
        self.entered.append(connection)
        self.tokens.append(token)

    def leave(self, connection: Any) -> None:
        """Take note."""
        self.left.append(connection)

    def is_over(self, token: Any) -> str:
        """As told."""
        self.asked += 1
        return self._verdict


async def start(upstream: Any, client: Client, watch: Watching, **changes: Any) -> asyncio.Task[None]:
    """A request in progress."""
    request = make_request(**changes)
    return asyncio.create_task(
        forward(request, upstream, client.receive, client.send, client.exchange, watch, "a token")
    )


async def until_body(client: Client, size: int) -> None:
    """Until the client has so many bytes."""
    async with asyncio.timeout(DEADLINE_S):
        while len(client.body) < size:
            await asyncio.sleep(0)


def streaming(*parts: bytes) -> Any:
    """A script: says this, then nothing more; ends when the gateway closes."""

    async def script(talk: Talk) -> None:
        await talk.request()
        for part in parts:
            await talk.say(part)
        await talk.closed()

    return script


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("code", ["token_revoked", "token_expired", "going_away"])
async def test_an_event_stream_gets_a_last_event(code: str) -> None:
    """It ends in an orderly way, the upstream's connection is closed, and the record says why."""
    watch, client = Watching(), Client()
    async with serving(streaming(EVENTS, chunk(b"data: a\n\n"))) as (_, upstream):
        task = await start(upstream, client, watch)
        await until_body(client, 9)
        [stream] = watch.entered
        assert (stream.kind, watch.tokens, watch.lasting) == ("events", ["a token"], [True])
        stream.end(code)
        stream.end("token_expired")  # the first reason counts
        await asyncio.wait_for(task, DEADLINE_S)
    assert client.body == b'data: a\n\nevent: gateway\ndata: {"code":"%b"}\n\n' % code.encode()
    assert client.is_complete
    assert (client.exchange.status, client.exchange.code) == (200, code)
    assert client.exchange.bytes_out == len(client.body)
    assert watch.left == [stream]


@pytest.mark.parametrize("piece", [b"data: a\n\n", b"data: half an ev"])
async def test_what_was_ended_leaves_nothing_to_the_cyclic_collector(piece: bytes) -> None:
    """The error that ended it was raised, so it holds frames; who kept the error is not kept by them."""
    watch, client = Watching(), Client()
    gc.collect()
    gc.disable()
    try:
        async with serving(streaming(EVENTS, chunk(piece))) as (_, upstream):
            task = await start(upstream, client, watch)
            await until_body(client, len(piece))
            watch.entered.pop().end("token_revoked")
            await asyncio.wait((task,), timeout=DEADLINE_S)
            assert isinstance(task.exception(), ResponseAborted | None)
            del task
            watch.left.clear()
        left = [thing for thing in gc.get_objects() if isinstance(thing, Connection | module._Conversation)]
        assert left == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("head", "piece", "kind"),
    [
        (PLAIN, b"half of it", "response"),
        (EVENTS, chunk(b"data: half an ev"), "events"),
        (EVENTS.replace(b"\r\n\r\n", b"\r\ncontent-encoding: br\r\n\r\n"), chunk(b"\n\n"), "events"),
    ],
)
async def test_any_other_response_is_cut(head: bytes, piece: bytes, kind: str) -> None:
    """What cannot be completed, or take an event, ends as an incomplete message."""
    watch, client = Watching(), Client()
    async with serving(streaming(head, piece)) as (_, upstream):
        task = await start(upstream, client, watch)
        await until_body(client, 1)
        assert watch.entered[0].kind == kind
        watch.entered[0].end("token_revoked")
        with pytest.raises(ResponseAborted):
            await asyncio.wait_for(task, DEADLINE_S)
    assert not client.is_complete
    assert client.exchange.code == "token_revoked"
    assert watch.left == watch.entered


async def test_a_response_whose_client_does_not_read_is_cut_too() -> None:
    """The end does not wait for the client."""

    class Stuck(Client):
        async def send(self, message: dict[str, Any]) -> None:
            await super().send(message)
            if message.get("body"):
                await asyncio.Event().wait()

    watch, client = Watching(), Stuck()
    async with serving(streaming(EVENTS, chunk(b"data: a\n\n"))) as (_, upstream):
        task = await start(upstream, client, watch)
        await until_body(client, 9)
        watch.entered[0].end("token_revoked")
        with pytest.raises(ResponseAborted):
            await asyncio.wait_for(task, DEADLINE_S)
    assert client.exchange.code == "token_revoked"


async def test_a_response_that_is_here_at_once_is_not_watched() -> None:
    """The short path pays nothing; no question is asked about its token either."""
    watch, client = Watching("token_revoked"), Client()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)

    async with serving(script) as (_, upstream):
        await (await start(upstream, client, watch))
    assert (client.status, watch.entered, watch.asked) == (200, [], 0)


@pytest.mark.parametrize(
    ("method", "verdict", "outcome"),
    [
        (b"GET", "token_revoked", TokenRevoked),
        (b"GET", "token_expired", TokenExpired),
        (b"GET", "", None),
        (b"POST", "token_revoked", None),  # it is done: the client must learn how it went
    ],
)
async def test_a_long_poll_is_judged_again_before_it_is_answered(
    method: bytes, verdict: str, outcome: type[GatewayError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was long in coming is refused as a new request would be, if nothing was done by it."""
    monkeypatch.setattr(module, "_LONG_S", -1.0)  # everything was long in coming
    watch, client = Watching(verdict), Client()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)

    async with serving(script) as (_, upstream):
        task = await start(upstream, client, watch, method=method)
        if outcome is None:
            await task
            assert client.status == 200
        else:
            with pytest.raises(outcome):
                await task
            assert client.messages == []
