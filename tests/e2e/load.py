"""Clients that stay: keep-alive connections, one to each worker, a steady load, and a look at the machine itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.telemetry.metrics import SHARE_S
from tests.edge import ANSWER_DEADLINE_S, Answer, GatewayProcess, read_answer

_BOUNDS_S = (
    0.05,
    0.1,
    0.25,
)  # of the gateway's histogram of stalls; the first is what no request may wait for the loop
_MOST_TRIES = 400  # connections opened in search of a worker


class Client:
    """One keep-alive connection. `get` one request after the other; what ends the connection is an empty answer."""

    def __init__(self, gateway: GatewayProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._gateway, self._reader, self._writer = gateway, reader, writer

    @classmethod
    async def connect(cls, gateway: GatewayProcess) -> Self:
        """A new connection to the gateway."""
        return cls(gateway, *await asyncio.open_connection("127.0.0.1", gateway.port))

    async def get(self, target: str, token: str | None = None) -> Answer:
        """One request and its answer."""
        credential = f"Authorization: Bearer {token}\r\n" if token else ""
        self._writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n{credential}\r\n".encode())
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            try:
                return Answer(await read_answer(self._reader))
            except (ConnectionError, asyncio.IncompleteReadError):
                return Answer(b"")

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def served_by(self, pids: list[int]) -> int | None:
        """The process at the other end, as the kernel's tables have it; None if none of these accepted it (yet)."""
        port: int = self._writer.get_extra_info("sockname")[1]
        ends = f"0100007F:{self._gateway.port:04X}", f"0100007F:{port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines():
            fields = line.split()
            if (fields[1], fields[2]) == ends:
                return next((pid for pid in pids if _has_socket(pid, f"socket:[{fields[9]}]")), None)
        return None


def _has_socket(pid: int, name: str) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(entry.readlink()) == name:
                return True
    return False


async def client_of_each_worker(gateway: GatewayProcess) -> dict[int, Client]:
    """A connection to every worker, by process id. Which worker accepts is up to the kernel, so it may take several."""
    pids = gateway.worker_pids()
    found: dict[int, Client] = {}
    for _ in range(_MOST_TRIES):
        client = await Client.connect(gateway)
        await client.get("/nowhere")  # answered, so accepted
        pid = client.served_by(pids)
        if pid is None or pid in found:
            await client.close()
        else:
            found[pid] = client
        if len(found) == len(pids):
            return found
    raise AssertionError(f"only {sorted(found)} of {pids} ever accepted a connection")


class SteadyLoad:
    """`async with`: clients that ask without end, each waiting a little between two requests, until the block ends.

    `answers` counts what came back, `failures` holds everything that was not a 200, in words.
    """

    def __init__(
        self,
        gateway: GatewayProcess,
        target: str,
        token: Callable[[], str | None],
        *,
        clients: int = 4,
        pause_s: float = 0.004,
    ) -> None:
        self._gateway, self._target, self._token = gateway, target, token
        self._clients, self._pause_s = clients, pause_s
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask_on()) for _ in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _ask_on(self) -> None:
        client = await Client.connect(self._gateway)
        try:
            while not self._over.is_set():
                answer = await client.get(self._target, self._token())
                self.answers[answer.status] += 1
                if answer.status != 200:
                    self.failures.append(answer.raw.decode(errors="replace") or "the connection was closed")
                    await client.close()
                    client = await Client.connect(self._gateway)
                await asyncio.sleep(self._pause_s)
        finally:
            await client.close()


_BYSTANDER = """
import json, select, sys, time
longest = 0.0
while True:
    before = time.monotonic()
    over = select.select([sys.stdin], [], [], 0.025)[0]
    if over:
        break
    longest = max(longest, time.monotonic() - before - 0.025)
print(json.dumps(longest))
"""


@contextlib.asynccontextmanager
async def unstalled(gateway: GatewayProcess, what: str) -> AsyncIterator[None]:
    """Asserts that the gateway's event loop never stalled over 50 ms meanwhile, by its own measurement.

    On a machine that is busy with other things a process may simply not run for so long. A bystander, which does
    nothing but sleep and look at the clock, tells those apart: a stall counts unless the bystander, too, was held up
    for at least half as long.
    """
    bystander = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BYSTANDER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    if len(gateway.worker_pids()) > 1:
        await asyncio.sleep(SHARE_S + 0.1)  # until what each worker met at its start is in the numbers of all
    try:
        before = await _stalls(gateway)
        yield
        after = await _stalls(gateway)
    finally:
        out, _ = await asyncio.wait_for(bystander.communicate(b""), ANSWER_DEADLINE_S)
    held_up_s: float = json.loads(out)
    met = {bound: after[bound] - before[bound] for bound in _BOUNDS_S}
    longest = await gateway.metric("gateway_loop_stall_max_seconds")
    print(
        f"\n{what}: loop stalls over {met}; longest within a minute, start-up included, {longest * 1000:.1f} ms;"
        f" bystander held up for {held_up_s * 1000:.1f} ms at most"
    )
    for bound, count in met.items():
        assert count == 0 or held_up_s > bound / 2, f"{what}: the loop stalled over {bound * 1000:.0f} ms {count} times"


async def _stalls(gateway: GatewayProcess) -> dict[float, int]:
    """How many stalls exceeded each bound so far."""
    values = read_metrics((await gateway.admin("/metrics")).raw.decode())
    total = values["gateway_loop_stall_seconds_count"]
    return {bound: int(total - values[f'gateway_loop_stall_seconds_bucket{{le="{bound:g}"}}']) for bound in _BOUNDS_S}


def read_metrics(exposition: str) -> dict[str, float]:
    """Every sample of one scrape, by its name with labels."""
    lines = (line for line in exposition.splitlines() if line.startswith("gateway_"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def until(true: Callable[[], object], what: str, deadline_s: float = 10.0) -> None:
    """Wait for something in another process to become true; `true` may be a coroutine function."""
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                found = true()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


async def run_cli(*args: str) -> str:
    """`python -m gateway …` in a process of its own; what it printed. AssertionError unless it ends with 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *args),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(os.environ),
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, out.decode()
    return out.decode()
