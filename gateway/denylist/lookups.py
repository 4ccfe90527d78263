"""Look-ups of one turn of the event loop, sharing one round trip to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.denylist.contract import StoreError, StoreUnavailable

Values = list[bytes | None]


class Lookups:
    """Collects keys until the loop's next turn, reads each once, and gives every caller its own."""

    def __init__(self, read: Callable[[list[str]], Awaitable[dict[str, bytes | None]]], timeout_s: float) -> None:
        """`read` gives the values of distinct keys, and raises `StoreError` only."""
        self._read = read
        self._timeout_s = timeout_s
        self._waiting: list[tuple[Sequence[str], asyncio.Future[Values]]] = []
        self._tasks: set[asyncio.Task[None]] = set()  # the loop holds tasks only weakly

    async def ask(self, keys: Sequence[str]) -> Values:
        """The values in the order of the keys; None: no entry. Raises `StoreError`, at the latest after the timeout."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Values] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((keys, answer))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as late:
            raise StoreUnavailable("the store did not answer in time") from late

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._answer(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, waiting: list[tuple[Sequence[str], asyncio.Future[Values]]]) -> None:
        distinct = list(dict.fromkeys(key for keys, _ in waiting for key in keys))
        try:
            values = await self._read(distinct)
        except StoreError as fault:
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(type(fault)(*fault.args))
            return
        for keys, answer in waiting:
            if not answer.done():
                answer.set_result([values[key] for key in keys])
