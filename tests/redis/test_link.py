"""One RESP3 connection: order, deadlines, push frames, and an end that everybody is told of."""

import asyncio
from typing import Any

import pytest

from gateway.redis.address import Credentials, Endpoint
from gateway.redis.link import Link, LinkLost, ReplyError, connect
from tests.redis_server import RedisServer

pytestmark = pytest.mark.asyncio


async def dial(server: RedisServer, **settings: Any) -> Link:
    """A link to a real server."""
    endpoint = Endpoint(server.host, server.port)
    return await connect(endpoint, Credentials(), tls=None, **{"timeout_s": 5.0, **settings})


async def test_concurrent_pipelines_get_their_own_replies(redis_server: RedisServer) -> None:
    """Errors are values in their place, and raised for a single command."""
    link = await dial(redis_server)
    lists = await asyncio.gather(
        *(link.execute(("SET", f"k{n}", n), ("GET", f"k{n}"), ("LPUSH", f"k{n}", 1)) for n in range(50))
    )
    for number, (ok, value, error) in enumerate(lists):
        assert (ok, value) == ("OK", str(number))
        assert isinstance(error, ReplyError)
        assert error.code == "WRONGTYPE"
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        await link.call("LPUSH", "k0", 1)
    link.close()


async def test_any_bytes_survive_in_a_key(redis_server: RedisServer) -> None:
    """Keys that are not UTF-8 come in and go out unchanged."""
    link = await dial(redis_server)
    await link.call("SET", b"\xff\x00 k", "v")
    assert await link.call("KEYS", "*") == ["\udcff\x00 k"]
    assert await link.call("GET", "\udcff\x00 k") == "v"
    link.close()


async def test_invalidations_of_every_sort_are_pushed(redis_server: RedisServer) -> None:
    """SET, DEL, expiry and FLUSHDB, by another connection, for keys under the prefix only."""
    frames: list[Any] = []
    link = await dial(redis_server, on_push=frames.append)
    await link.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "p:")

    async def heard(*commands: tuple[str | int, ...]) -> list[Any]:
        frames.clear()
        for command in commands:
            redis_server.cli(*command)
        while not frames:
            await asyncio.sleep(0.005)
        return list(frames)

    assert await heard(("SET", "q:1", 1), ("SET", "p:1", 1)) == [["invalidate", ["p:1"]]]
    assert await heard(("DEL", "p:1")) == [["invalidate", ["p:1"]]]
    assert ["invalidate", ["p:2"]] in await heard(("SET", "p:2", 1, "PX", 30))
    frames.clear()
    while not frames:
        await asyncio.sleep(0.005)
    assert frames == [["invalidate", ["p:2"]]]  # expired
    assert ["invalidate", None] in await heard(("FLUSHDB",))
    link.close()


async def test_a_server_that_does_not_answer_costs_one_timeout(own_redis: RedisServer) -> None:
    """Every waiting caller is told, and so is everybody who comes later."""
    link = await dial(own_redis, timeout_s=0.05)
    own_redis.freeze()
    outcomes = await asyncio.gather(*(link.call("PING") for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no answer within 50 ms"] * 3
    with pytest.raises(LinkLost, match="no answer within 50 ms"):
        await link.call("PING")
    with pytest.raises(LinkLost):
        await link.wait_until_lost()
    own_redis.thaw()


async def test_a_caller_that_goes_away_leaves_the_link_usable(redis_server: RedisServer) -> None:
    """Its reply is dropped when it comes; the next caller gets its own."""
    link = await dial(redis_server)
    impatient = asyncio.ensure_future(link.call("BLPOP", "empty", "0.05"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await link.call("ECHO", "mine") == "mine"
    link.close()


async def test_a_killed_server_is_noticed_at_once(own_redis: RedisServer) -> None:
    """Without any command under way."""
    link = await dial(own_redis)
    own_redis.kill()
    with pytest.raises(LinkLost):
        await asyncio.wait_for(link.wait_until_lost(), 5)
    assert not link.is_open


async def test_a_peer_that_speaks_something_else_is_left() -> None:
    """An HTTP server, for example."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    with pytest.raises(LinkLost):
        await connect(endpoint, Credentials(), tls=None, timeout_s=1.0)
    server.close()
    await server.wait_closed()
