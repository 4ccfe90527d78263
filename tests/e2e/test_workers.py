"""Processes come and go: a worker that is killed, and a gateway that is told to stop while it is busy."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Callable

import pytest

from tests.e2e.load import Client, client_of_each_worker, read_metrics, until
from tests.edge import Answer, GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, answer_ok, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]


async def counters(gateway: GatewayProcess) -> dict[str, float]:
    """Everything that may only grow, of all workers together."""
    text = (await gateway.admin("/metrics")).raw.decode()
    cumulative = {line.split()[2] for line in text.splitlines() if line.endswith((" counter", " histogram"))}
    suffixes = ("_total", "_bucket", "_sum", "_count")
    return {
        sample: value
        for sample, value in read_metrics(text).items()
        if (name := sample.partition("{")[0]) in cumulative or name.endswith(suffixes)
    }


async def opens(client: Client, target: str = "/open/a") -> bool:
    """Whether a worker has the route that came with the swap."""
    return (await client.get(target)).status == 200


async def test_a_killed_worker_is_replaced_and_nothing_is_forgotten(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """The other worker serves on; a new one comes, with the configuration of now; no counter of the gateway falls."""
    config = config_text(issuer.yaml(), upstream.url, workers=2)
    async with start_gateway(config) as gateway:
        token = issuer.token()
        clients = await client_of_each_worker(gateway)
        victim, survivor = clients
        # A configuration that is newer than the gateway: the replacement has to start with it, too.
        gateway.write(config.replace("/public/**", "/open/**"))
        gateway.signal(signal.SIGHUP)
        for client in clients.values():
            await until(lambda client=client: opens(client), "the swap did not happen")  # type: ignore[misc]  # bound now
            for _ in range(10):
                assert (await client.get("/api/a", token)).status == 200

        async def all_counted() -> bool:
            return await gateway.metric("gateway_requests_total", route="api", status="200") == 20

        await until(all_counted, "the workers' numbers are not added up")
        seen = [await counters(gateway)]
        os.kill(victim, signal.SIGKILL)

        async def replaced() -> bool:
            assert (await clients[survivor].get("/api/a", token)).status == 200  # it has not noticed
            seen.append(await counters(gateway))
            return len(gateway.worker_pids()) == 2 and victim not in gateway.worker_pids()

        await until(replaced, "no new worker")
        successors = await client_of_each_worker(gateway)
        [new] = set(successors) - {survivor}
        assert (await successors[new].get("/api/a", token)).status == 200
        assert await opens(successors[new])
        seen.append(await counters(gateway))
        for earlier, later in itertools.pairwise(seen):
            assert {name: value for name, value in earlier.items() if later.get(name, 0) < value} == {}
        await asyncio.gather(*(client.close() for client in (*clients.values(), *successors.values())))
        assert await gateway.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_end_is_announced_then_orderly_and_bounded(
    workers: int, upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """SIGTERM: unready and still serving; then refused; what is in flight completes; a stream is cut; status 0."""
    go_on = asyncio.Event()

    async def by_path(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in seen.line:
            await go_on.wait()
        if b"/endless" not in seen.line:
            await answer_ok(seen, reader, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"4\r\ntick\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    upstream.script = by_path
    config = config_text(issuer.yaml(), upstream.url, workers=workers, server="  announce: 800ms\n  drain: 1500ms\n")
    async with start_gateway(config) as gateway:
        token = issuer.token()
        slow = asyncio.create_task(gateway.get("/api/slow", token))
        endless = asyncio.create_task(cut_short(gateway, "/api/endless", token))
        await until(lambda: len(upstream.seen) == 2, "the requests did not arrive")
        gateway.signal(signal.SIGTERM)

        async def is_unready() -> bool:
            answer = await gateway.admin("/health/ready")
            return answer.status == 503 and json.loads(answer.body)["status"] == "draining"

        await until(is_unready, "it stayed ready")
        # Announced, not enforced: who has not heard yet is served, over a new connection too.
        assert (await gateway.get("/api/late", token)).status == 200
        assert (await gateway.admin("/health/live")).status == 200

        async def is_refused() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            except OSError:
                return True
            writer.close()
            return False

        await until(is_refused, "the listener stayed open")
        assert not slow.done()
        assert not endless.done()
        go_on.set()
        answer = await slow
        assert (answer.status, answer.body) == (200, b"ok")
        cut = await endless
        assert cut.status == 200
        assert b"tick" in cut.body
        assert not cut.body.endswith(b"0\r\n\r\n")  # it did not end: it was ended, and the client can tell
        assert await gateway.ended() == 0
    # Every request has its line, the ones that ended last included.
    paths = [line["path"] for line in gateway.log_lines()]
    assert sorted(path for path in paths if path.startswith("/api")) == ["/api/endless", "/api/late", "/api/slow"]


async def cut_short(gateway: GatewayProcess, target: str, token: str) -> Answer:
    """One request, read until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    got = b""
    async with asyncio.timeout(20):
        try:
            while piece := await reader.read(65536):
                got += piece
        except ConnectionError:
            pass
    writer.close()
    return Answer(got)


async def test_a_configuration_that_is_wrong_at_the_start_is_status_2(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """Nothing listens, the log names the place, and the exit status tells a service manager not to try again."""
    gateway = start_gateway(config_text(issuer.yaml(), upstream.url).replace("upstream: app", "upstream: nope"))
    await gateway.spawn()
    assert await gateway.ended() == 2
    assert f"{gateway.config_path}:" in gateway.log
