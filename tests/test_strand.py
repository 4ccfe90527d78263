"""A strand keeps what a task promises, and takes its steps at once where it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from gateway.strand import Bell, Strand

pytestmark = pytest.mark.asyncio


class Scene:
    """Strands of one loop, what they did in order, and what the loop was told of failures."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.strands: set[Strand] = set()
        self.told: list[Any] = []
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def strand(self, work: Coroutine[Any, Any, None]) -> Strand:
        """A strand that has not started."""
        return Strand(work, self.loop, self.strands)

    async def outside(self, act: Callable[[], object]) -> None:
        """Do something as the loop's own callbacks do: with no task being stepped."""
        done = self.loop.create_future()

        def call() -> None:
            act()
            done.set_result(None)

        self.loop.call_soon(call)
        await done


async def test_first_step_is_taken_at_once() -> None:
    """Started from a callback of the loop, a strand that waits for nothing has ended when `start` returns."""
    scene = Scene()

    async def work() -> None:
        scene.told.append("ran")

    def start() -> None:
        strand = scene.strand(work())
        strand.start()
        scene.told += [strand.done(), set(scene.strands)]

    await scene.outside(start)
    assert scene.told == ["ran", True, set()]


async def test_never_inside_another() -> None:
    """Started or resumed while a task or a strand is being stepped, it waits for the loop's next turn."""
    scene = Scene()

    async def inner() -> None:
        scene.told.append("inner")

    async def outer() -> None:
        scene.strand(inner()).start()
        scene.told.append("outer")

    scene.strand(outer()).start()  # by this test's own task
    assert scene.told == []
    await asyncio.gather(*scene.strands)
    await asyncio.sleep(0)
    assert scene.told == ["outer", "inner"]


async def test_start_soon_waits_for_the_next_turn() -> None:
    """`start_soon` never steps at once, not even where `start` would."""
    scene = Scene()

    async def work() -> None:
        scene.told.append("ran")

    def start() -> None:
        scene.strand(work()).start_soon()
        scene.told.append("started")

    await scene.outside(start)
    assert scene.told == ["started", "ran"]


async def test_bell_resumes_at_once() -> None:
    """A parked strand goes on inside `ring`; a bell that nobody waits for does nothing."""
    scene = Scene()
    bell = Bell(scene.loop)

    async def work() -> None:
        await bell.wait()
        scene.told.append("rung")

    def ring() -> None:
        bell.ring()
        scene.told.append("after")
        bell.ring()

    bell.ring()
    await scene.outside(lambda: scene.strand(work()).start())
    assert bell.is_awaited
    await scene.outside(ring)
    assert scene.told == ["rung", "after"]
    assert not bell.is_awaited
    assert not scene.strands


async def test_long_chains_stay_flat() -> None:
    """Ten thousand strands that wake one another do so without nesting."""
    scene = Scene()
    bells = [Bell(scene.loop) for _ in range(10_000)]

    async def work(at: int) -> None:
        await bells[at].wait()
        if at + 1 < len(bells):
            bells[at + 1].ring()
        else:
            scene.told.append("last")

    for at in range(len(bells)):
        scene.strand(work(at)).start_soon()
    await asyncio.sleep(0)
    await scene.outside(bells[0].ring)
    await asyncio.gather(*scene.strands)
    assert scene.told == ["last"]


async def test_bell_serves_tasks() -> None:
    """A task can wait for a bell too, and may be cancelled meanwhile."""
    bell = Bell(asyncio.get_running_loop())

    async def work() -> str:
        await bell.wait()
        return "rung"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    bell.ring()
    bell.ring()
    assert await task == "rung"
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bell.is_awaited


async def test_futures_timeouts_and_groups_work_inside() -> None:
    """What asyncio offers a task it offers a strand: futures, sleeps, `timeout`, `TaskGroup`, `current_task`."""
    scene = Scene()

    async def work() -> None:
        me: object = asyncio.current_task()
        scene.told.append(type(me) is Strand)
        await asyncio.sleep(0)
        scene.told.append(await asyncio.to_thread(lambda: "thread"))
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            scene.told.append("timeout")
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, "child"))
        scene.told.append(child.result())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                await asyncio.Event().wait()
        except* ValueError:
            scene.told.append("group")
        failing: asyncio.Future[None] = scene.loop.create_future()
        failing.set_exception(ValueError())
        try:
            await failing
        except ValueError:
            scene.told.append("future")

    await scene.outside(lambda: scene.strand(work()).start())
    await asyncio.gather(*scene.strands)
    assert scene.told == [True, "thread", "timeout", "child", "group", "future"]
    assert asyncio.current_task() is not None


async def _fail() -> None:
    raise ValueError


async def _on_event() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("waits_on", ["future", "bell", "nothing yet"])
async def test_cancellation(waits_on: str) -> None:
    """Cancelled, it sees `CancelledError` at its await on a later turn; before its first step it never runs."""
    scene = Scene()
    bell = Bell(scene.loop)
    wait: Callable[[], Awaitable[None]] = bell.wait if waits_on == "bell" else _on_event

    async def work() -> None:
        try:
            scene.told.append("begun")
            await wait()
        except asyncio.CancelledError:
            scene.told.append("cancelled")
            raise
        finally:
            scene.told.append("released")

    strand = scene.strand(work())
    if waits_on == "nothing yet":
        strand.start()
    else:
        await scene.outside(strand.start)
    assert strand.cancel()
    assert not strand.done()
    assert strand.cancelling() == 1
    bell.ring()  # too late: it is to be cancelled
    await strand
    assert scene.told == ([] if waits_on == "nothing yet" else ["begun", "cancelled", "released"])
    assert not scene.strands
    assert not strand.cancel()
    assert scene.failures == []


async def test_cancellation_can_be_taken_back() -> None:
    """A strand that swallows a cancellation and takes it back goes on."""
    scene = Scene()
    bell = Bell(scene.loop)

    async def work() -> None:
        try:
            await bell.wait()
        except asyncio.CancelledError:
            me = asyncio.current_task()
            assert me is not None
            scene.told.append(me.uncancel())
        await bell.wait()
        scene.told.append("went on")

    strand = scene.strand(work())
    await scene.outside(strand.start)
    strand.cancel()
    await asyncio.sleep(0)
    await scene.outside(bell.ring)
    assert scene.told == [0, "went on"]


async def test_cancelled_by_itself() -> None:
    """A strand that cancels itself is cancelled at its next await, whatever that is."""
    scene = Scene()
    bell = Bell(scene.loop)

    async def work(wait: Callable[[], Awaitable[None]]) -> None:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        scene.told.append("goes on")
        try:
            await wait()
        finally:
            scene.told.append("left")

    for wait in (bell.wait, _on_event, lambda: asyncio.sleep(0)):
        await scene.outside(scene.strand(work(wait)).start)
        await asyncio.gather(*scene.strands)
    assert scene.told == ["goes on", "left"] * 3


async def test_failures_are_told() -> None:
    """What a strand raises reaches the loop's exception handler, and its end is noticed."""
    scene = Scene()
    strand = scene.strand(_fail())
    await scene.outside(strand.start)
    await strand
    assert [type(failure["exception"]) for failure in scene.failures] == [ValueError]
    assert strand.done()


async def test_strange_awaitables_are_refused() -> None:
    """Whatever asyncio's own task would refuse to await, a strand refuses."""

    class Strange:
        def __await__(self) -> Any:
            yield "something"

    async def work() -> None:
        await Strange()

    scene = Scene()
    await scene.outside(lambda: scene.strand(work()).start())
    assert [type(failure["exception"]) for failure in scene.failures] == [RuntimeError]


async def test_contexts_are_apart() -> None:
    """What a strand sets in its context is its own, at every step."""
    scene = Scene()
    bell = Bell(scene.loop)
    variable = ContextVar("variable", default="outside")

    async def work() -> None:
        variable.set("inside")
        await bell.wait()
        scene.told.append(variable.get())
        await asyncio.sleep(0)
        scene.told.append(variable.get())

    await scene.outside(lambda: scene.strand(work()).start())
    await scene.outside(bell.ring)
    await asyncio.gather(*scene.strands)
    assert scene.told == ["inside", "inside"]
    assert variable.get() == "outside"
