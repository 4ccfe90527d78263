"""The connections to one endpoint: bounded, reused last in first out, aged, handed on, closed."""

import asyncio
from typing import Any

import pytest

from gateway.errors import ConnectFailed, NoEndpoint
from gateway.upstream.endpoints import Upstream
from gateway.upstream.pool import Pool
from tests.upstream.scripted import OK, Client, Talk, fetch, serving

pytestmark = pytest.mark.asyncio


class Gate:
    """An upstream that answers each request when it is let, or never."""

    def __init__(self, answer: bytes = OK) -> None:
        self.open = asyncio.Event()
        self.arrived = 0
        self.answer = answer

    async def script(self, talk: Talk) -> None:
        """Serve one connection."""
        while True:
            await talk.request()
            self.arrived += 1
            await self.open.wait()
            await talk.say(self.answer)

    async def until(self, requests: int) -> None:
        """Wait until this many requests have arrived."""
        while self.arrived < requests:
            await asyncio.sleep(0.001)


def _pool(upstream: Upstream) -> Pool:
    return upstream.endpoints[0].pool


async def _until_waiting(pool: Pool, count: int) -> None:
    while pool.waiting != count:
        await asyncio.sleep(0.001)


async def test_the_number_of_connections_is_bounded() -> None:
    """More requests than connections wait for one to come back, and all are served."""
    gate = Gate()
    async with serving(gate.script, pool={"size": 2, "wait": "5s"}) as (server, upstream):
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(6)]
        await gate.until(2)
        await _until_waiting(_pool(upstream), 4)
        assert _pool(upstream).open_connections == 2
        gate.open.set()
        assert [client.status for client in await asyncio.gather(*tasks)] == [200] * 6
        assert (server.connections, _pool(upstream).idle_connections) == (2, 2)


async def test_connections_that_are_not_kept_give_their_place_to_waiting_requests() -> None:
    """Each closed connection lets one waiting request connect."""
    gate = Gate(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    async with serving(gate.script, pool={"size": 1, "wait": "5s"}) as (server, upstream):
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(4)]
        await gate.until(1)
        await _until_waiting(_pool(upstream), 3)
        gate.open.set()
        assert [client.status for client in await asyncio.gather(*tasks)] == [200] * 4
        assert (server.connections, _pool(upstream).open_connections) == (4, 0)


async def test_a_wait_that_is_too_long_ends_as_no_endpoint() -> None:
    """503 after `wait`; the request that holds the connection is not disturbed."""
    gate = Gate()
    async with serving(gate.script, pool={"size": 1}) as (_, upstream):
        holding = asyncio.create_task(fetch(upstream, head_timeout_s=1e9))
        await gate.until(1)
        waiting = asyncio.create_task(fetch(upstream))
        await _until_waiting(_pool(upstream), 1)
        _pool(upstream).sweep(1e8)
        with pytest.raises(NoEndpoint):
            await waiting
        assert _pool(upstream).refused_full == 1
        gate.open.set()
        assert (await holding).status == 200


@pytest.mark.parametrize("kept", [True, False])
async def test_a_request_cancelled_at_its_turn_passes_the_turn_on(kept: bool) -> None:
    """Neither a connection nor a place for one is lost with a client that goes away at the wrong moment."""
    gate = Gate(OK if kept else OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    async with serving(gate.script, pool={"size": 1, "wait": "5s"}) as (_, upstream):
        pool = _pool(upstream)
        holding = asyncio.create_task(fetch(upstream))
        await gate.until(1)
        first, second = asyncio.create_task(fetch(upstream)), asyncio.create_task(fetch(upstream))
        await _until_waiting(pool, 2)
        turn = pool._waiters[0][1]
        turn.add_done_callback(lambda _: first.cancel())  # in the same moment as its turn comes
        gate.open.set()
        assert (await holding).status == 200
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).status == 200
        assert (pool.waiting, pool._connecting) == (0, 0)
        assert pool.open_connections == pool.idle_connections == kept


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    """A client that goes away while waiting does not get a connection later."""
    gate = Gate()
    async with serving(gate.script, pool={"size": 1, "wait": "5s"}) as (_, upstream):
        holding = asyncio.create_task(fetch(upstream))
        await gate.until(1)
        waiting = asyncio.create_task(fetch(upstream))
        await _until_waiting(_pool(upstream), 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open.set()
        await holding
        assert (_pool(upstream).idle_connections, _pool(upstream).waiting, gate.arrived) == (1, 0, 1)


async def test_the_last_used_connection_is_used_first_and_the_others_age() -> None:
    """Idle connections beyond their time are closed, oldest first."""
    gate = Gate()
    async with serving(gate.script, pool={"idle": "30s"}) as (_, upstream):
        pool = _pool(upstream)
        tasks = [asyncio.create_task(fetch(upstream)) for _ in range(3)]
        await gate.until(3)
        gate.open.set()
        await asyncio.gather(*tasks)
        last = list(pool._idle)[-1]
        await fetch(upstream)
        assert list(pool._idle)[-1] is last
        for age, connection in enumerate(list(pool._idle)):
            connection.idle_since = 1000.0 + age
        pool.expire_idle(1030.0)
        assert pool.idle_connections == 2
        pool.expire_idle(1031.5)
        assert list(pool._idle) == [last]
        assert pool.open_connections == 1


async def test_an_idle_time_of_zero_keeps_nothing() -> None:
    """`pool.idle: 0s` means one request per connection."""
    gate = Gate()
    gate.open.set()
    async with serving(gate.script, pool={"idle": "0s"}) as (server, upstream):
        await fetch(upstream)
        await fetch(upstream)
        assert (server.connections, _pool(upstream).open_connections) == (2, 0)


async def test_an_upstream_that_closes_an_idle_connection_is_noticed() -> None:
    """The connection leaves the pool before a request could meet it."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)

    async with serving(script) as (_, upstream):
        await fetch(upstream)
        while _pool(upstream).open_connections:
            await asyncio.sleep(0.001)
        assert _pool(upstream).idle_connections == 0


async def test_closing_lets_requests_end() -> None:
    """Idle connections close at once, busy ones when their response is complete."""
    gate = Gate()
    async with serving(gate.script) as (_, upstream):
        task = asyncio.create_task(fetch(upstream))
        await gate.until(1)
        closing = asyncio.create_task(upstream.close(60))
        await asyncio.sleep(0)
        assert not closing.done()
        gate.open.set()
        assert (await task).status == 200
        await closing
        assert _pool(upstream).open_connections == 0


async def test_closing_ends_what_does_not_end_by_itself() -> None:
    """After the grace nothing is left open."""
    gate = Gate()
    async with serving(gate.script) as (_, upstream):
        task = asyncio.create_task(fetch(upstream))
        await gate.until(1)
        await upstream.close(0.01)
        with pytest.raises(ConnectFailed):
            await task
        assert _pool(upstream).open_connections == 0
        gate.open.set()


async def test_a_request_of_an_old_generation_can_still_connect() -> None:
    """A pool that is being closed serves those who already chose it, and keeps nothing."""
    gate = Gate()
    gate.open.set()
    async with serving(gate.script) as (_, upstream):
        await upstream.close(0)
        assert (await fetch(upstream)).status == 200
        assert _pool(upstream).open_connections == 0


async def test_the_timer_rests_when_nothing_is_pending() -> None:
    """No request, no sweep: an idle gateway does not wake up for its pools."""
    gate = Gate()
    gate.open.set()
    async with serving(gate.script) as (_, upstream):
        await fetch(upstream)
        pool = _pool(upstream)
        assert pool._sweep is not None
        pool._sweep.cancel()
        pool._tick()
        assert pool._sweep is None
        await fetch(upstream)
        assert pool._sweep is not None


async def test_many_requests_at_once_leave_nothing_behind() -> None:
    """A crowd, part of which leaves early, ends with every place free and nobody waiting."""
    gate = Gate()
    async with serving(gate.script, pool={"size": 8, "wait": "30s"}) as (_, upstream):
        tasks: list[asyncio.Task[Client]] = [asyncio.create_task(fetch(upstream)) for _ in range(200)]
        await gate.until(8)
        await _until_waiting(_pool(upstream), 192)
        for task in tasks[::3]:
            task.cancel()
        gate.open.set()
        results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(result, "status", None) for result in results[1::3]] == [200] * len(results[1::3])
        pool = _pool(upstream)
        assert (pool.waiting, pool._connecting) == (0, 0)
        assert pool.open_connections == pool.idle_connections <= 8
