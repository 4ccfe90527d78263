"""A crowd at the door: ``python -m tests.benchmarks.crowd PORT PEOPLE``; ends with its standard input.

So many people register and log in at the same time, each beginning anew as soon as there is an answer; one in four of
those who log in has the password wrong. Who is told to come back later does so, after the seconds that were named.
Prints one line of JSON at the end: answers by what was asked and their status, and the seconds they took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter

from tests.benchmarks.measure import percentile
from tests.edge import Answer, read_answer

_PASSWORD = "correct horse battery"
_DEADLINE_S = 60.0


class Person:
    """Registers, then logs in again and again; every fourth time with another password."""

    def __init__(self, port: int, number: int, answers: Counter[str], served_s: list[float]) -> None:
        self._port, self._number = port, number
        self._answers, self._served_s = answers, served_s
        self._name = ""

    async def go_on(self) -> None:
        """Until cancelled."""
        attempt = 0
        while True:
            registers = attempt % 3 == 0
            if registers:
                self._name = f"person{self._number}-{time.time_ns()}"
            password = "quite another one" if not registers and self._number % 4 == 0 else _PASSWORD
            if await self._try("register" if registers else "login", password):
                attempt += 1

    async def _try(self, name: str, password: str) -> bool:
        """One attempt; False where it has to be repeated, which is then due."""
        started = time.monotonic()
        answer = await post(self._port, f"/auth/{name}", {"username": self._name, "password": password})
        self._answers[f"{name} {answer.status}"] += 1
        if answer.status in (429, 503):
            await asyncio.sleep(float(answer.all(b"retry-after")[0]))
            return False
        if answer.status in (200, 201, 401):
            self._served_s.append(time.monotonic() - started)
        return True


async def post(port: int, path: str, members: dict[str, str]) -> Answer:
    """One request on a connection of its own."""
    body = json.dumps(members).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with asyncio.timeout(_DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head.encode() + body)
            return Answer(await read_answer(reader))
        finally:
            writer.close()


async def crowd(port: int, people: int) -> None:
    """Until standard input ends."""
    answers: Counter[str] = Counter()
    served_s: list[float] = []
    tasks = [asyncio.create_task(Person(port, number, answers, served_s).go_on()) for number in range(people)]
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    served_s.sort()
    print(
        json.dumps(
            {
                "answers": dict(sorted(answers.items())),
                "served": len(served_s),
                "median_s": percentile(served_s, 0.5),
                "longest_s": percentile(served_s, 1.0),
                "failed": [repr(error) for error in failed],
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(crowd(int(sys.argv[1]), int(sys.argv[2])))
