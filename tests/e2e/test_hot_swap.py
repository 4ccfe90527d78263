"""Under steady load the configuration is swapped and keys are rotated, and no request notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.load import Client, SteadyLoad, client_of_each_worker, unstalled, until
from tests.edge import GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, answer_ok, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]

SWAPS = 20
ROTATIONS = 5
WORKERS = 2


class File:
    """The four ways in which a configuration file changes. Some wait to be noticed, most are followed by a SIGHUP."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._path = gateway.config_path
        self._mounted = 0

    def change(self, number: int, text: str) -> str:
        """Change the file in the way whose turn it is, and say which that was."""
        text = text.replace("{port}", str(self._gateway.port)).replace("{admin}", str(self._gateway.admin_port))
        way = ("written in place", "renamed over", "symlink swapped", "SIGHUP")[number % 4]
        if way == "renamed over":
            self._rename_over(text)
        elif way == "symlink swapped":
            self._swap_symlink(text)
        else:
            self._path.write_text(text)
        # The first two rounds have to be noticed without being told.
        if way == "SIGHUP" or number >= 8:
            self._gateway.signal(signal.SIGHUP)
        return way

    def _rename_over(self, text: str) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(text)
        part.replace(self._path)

    def _swap_symlink(self, text: str) -> None:
        """As Kubernetes updates a ConfigMap: file → ..data/file, ..data → a folder, and only ..data is replaced."""
        self._mounted += 1
        data = self._path.parent / "..data"
        folder = self._path.parent / f"..{self._path.stem}-{self._mounted}"
        folder.mkdir()
        (folder / self._path.name).write_text(text)
        link = data.with_name("..data_tmp")
        link.symlink_to(folder.name)
        link.replace(data)
        if not self._path.is_symlink() or os.readlink(self._path) != f"..data/{self._path.name}":
            file_link = self._path.with_suffix(".link")
            file_link.symlink_to(f"..data/{self._path.name}")
            file_link.replace(self._path)


def with_route(issuer: TestIssuer, upstream: RecordingUpstream, number: int, *, workers: int = WORKERS) -> str:
    """The configuration number `number`: one public route of its own; every other swap also moves the upstream."""
    routes = f"  - {{name: swap-{number}, path: /swap/{number}, upstream: app, auth: none}}\n"
    options = "    pool: {size: 64}\n" if number % 2 else ""
    return config_text(issuer.yaml(), upstream.url, routes=routes, upstream_options=options, workers=workers)


async def all_serve(clients: list[Client], number: int) -> None:
    """Wait until every worker knows the new route and has forgotten the one before."""

    async def swapped() -> bool:
        new = [(await client.get(f"/swap/{number}")).status for client in clients]
        return new == [200] * len(clients)

    await until(swapped, f"generation {number} is not in force")
    for client in clients:
        answer = await client.get(f"/swap/{number - 1}")
        assert (answer.status, answer.code) == (404, "no_route")


async def test_twenty_swaps_and_five_rotations_fail_no_request(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """Two workers, four busy clients, every way to change a file, keys that change every fourth time: all 200."""
    gateway = start_gateway(with_route(issuer, upstream, 0))
    await gateway.start()
    file = File(gateway)
    clients = list((await client_of_each_worker(gateway)).values())
    current = [issuer.token()]
    ways: dict[str, int] = {}
    async with (
        unstalled(gateway, "swaps and rotations under load"),
        SteadyLoad(gateway, "/api/orders", lambda: current[0]) as load,
    ):
        for number in range(1, SWAPS + 1):
            way = file.change(number, with_route(issuer, upstream, number))
            ways[way] = ways.get(way, 0) + 1
            await all_serve(clients, number)
            if number % (SWAPS // ROTATIONS) == 0:
                issuer.rotate(f"k-{number}")
                current[0] = issuer.token()
                for client in clients:  # whichever worker the load is connected to
                    assert (await client.get("/api/orders", current[0])).status == 200
    print(f"\n{load.answers.total()} requests during {ways} and {ROTATIONS} rotations; failed: {len(load.failures)}")
    assert load.failures == []
    assert load.answers[200] > 500

    async def all_counted() -> bool:  # the workers share their numbers once a second
        ok = await gateway.metric("gateway_config_reloads_total", outcome="ok")
        keys = await gateway.metric("gateway_keys", issuer="main")  # of the worker with the fewest
        return ok >= SWAPS * WORKERS and keys == 1 + ROTATIONS

    await until(all_counted, "not every worker has counted every swap and every key")
    assert await gateway.metric("gateway_config_generation") > SWAPS
    assert await gateway.metric("gateway_config_reloads_total", outcome="refused") == 0
    await asyncio.gather(*(client.close() for client in clients))


def says(gateway: GatewayProcess, since: int, *words: str) -> Callable[[], object]:
    """Asks whether the log has all of these words since it had that many characters."""
    return lambda: all(word in gateway.log[since:] for word in words)


async def test_a_broken_file_changes_nothing_and_says_why(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """Not YAML, an unknown key or upstream, a file that is gone: the log says where, and a metric counts it."""
    good = with_route(issuer, upstream, 1, workers=1)
    broken = {
        "not YAML": (good.replace("routes:\n", "routes: [\n"), ""),
        "an unknown key": (good.replace("upstream: app\n    auth: none", "upstraem: app"), "did you mean `upstream`"),
        "an unknown upstream": (good.replace("upstream: app, auth", "upstream: ap, auth"), "swap-1"),
    }
    async with start_gateway(good) as gateway:
        token = issuer.token()
        async with SteadyLoad(gateway, "/api/orders", lambda: token, clients=2) as load:
            for count, (what, (text, word)) in enumerate(broken.items(), 1):
                assert text != good, what
                said = len(gateway.log)
                gateway.write(text)
                gateway.signal(signal.SIGHUP)
                await until(refused(gateway, count), f"{what}: not counted")
                await until(says(gateway, said, f"{gateway.config_path}:", word), f"{what}: not said where")
                await until(says(gateway, said, "ERROR gateway.app the changed configuration is not used"), what)
                assert (await gateway.get("/swap/1")).status == 200
            assert (await gateway.admin("/health/ready")).status == 200
            gateway.config_path.unlink()
            await until(refused(gateway, len(broken) + 1), "a file that is gone is not counted")
            assert (await gateway.get("/swap/1")).status == 200
            # And a good one is taken again.
            gateway.write(with_route(issuer, upstream, 2, workers=1))
            await until(lambda: is_served(gateway, "/swap/2"), "the repaired file is not in force")
        assert load.failures == []


def refused(gateway: GatewayProcess, count: int) -> Callable[[], object]:
    """Asks whether so many files have been refused."""

    async def ask() -> bool:
        return await gateway.metric("gateway_config_reloads_total", outcome="refused") >= count

    return ask


async def is_served(gateway: GatewayProcess, target: str) -> bool:
    """Whether a public route is there."""
    return (await gateway.get(target)).status == 200


async def test_what_a_swap_removes_finishes_what_it_has_begun(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """A response in progress survives the removal of its route, its upstream and its issuer, to the last byte."""
    go_on = asyncio.Event()

    async def in_two_halves(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/long" not in seen.line:
            await answer_ok(seen, reader, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await writer.drain()
        await go_on.wait()
        writer.write(b" last")

    other = await RecordingUpstream.start()
    upstream.script = in_two_halves
    try:
        async with start_gateway(config_text(issuer.yaml(), upstream.url)) as gateway:
            client = await Client.connect(gateway)
            long = asyncio.create_task(client.get("/api/long", issuer.token()))
            await until(lambda: len(upstream.seen) == 1, "the request did not arrive")
            old, new = "  - name: public\n", "  - {name: swapped, path: /swapped, upstream: app, auth: none}\n"
            text = config_text("  {}\n", other.url).replace(old, new + old)
            start, end = text.index("  - name: api\n"), text.index(new)
            gateway.write(text[:start] + text[end:])
            gateway.signal(signal.SIGHUP)
            await until(lambda: is_served(gateway, "/swapped"), "the swap did not happen")
            assert (await gateway.get("/api/long", issuer.token())).status == 404
            assert len(other.seen) >= 1  # the name now means another backend
            assert upstream.connections == 1
            assert not long.done()
            go_on.set()
            answer = await long
            assert (answer.status, answer.body) == (200, b"first last")
            # The same connection goes on with the new generation, and the old one lets go of its backend.
            assert (await client.get("/swapped")).status == 200
            await until(lambda: upstream.open_connections == 0, "the connection to the removed backend is kept")
            await client.close()
    finally:
        await other.close()


async def test_sections_that_need_a_restart_are_named(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """A change of the static half is not in force; the log says so, and the dynamic half of the same file is."""
    async with start_gateway(with_route(issuer, upstream, 1, workers=1)) as gateway:
        gateway.write(with_route(issuer, upstream, 2, workers=3))
        gateway.signal(signal.SIGHUP)
        await until(lambda: is_served(gateway, "/swap/2"), "the dynamic half is not in force")
        assert "changes to server need a restart" in gateway.log
        assert gateway.worker_pids() == [gateway.pid]


async def test_a_new_issuer_and_its_keys_are_there_with_the_swap(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start, tmp_path: Path
) -> None:
    """Keys are loaded before the swap, so that no token waits; those of unchanged issuers are not asked for again."""
    second = await TestIssuer.start()
    try:
        async with start_gateway(config_text(issuer.yaml(), upstream.url)) as gateway:
            old, new = issuer.token(), second.token()
            assert (await gateway.get("/api/a", old)).status == 200
            assert (await gateway.get("/api/a", new)).code == "token_invalid"
            fetches = issuer.fetches
            both = issuer.yaml() + second.yaml().replace("main:", "second:")
            async with unstalled(gateway, "a new issuer"):
                gateway.write(config_text(both, upstream.url))
                gateway.signal(signal.SIGHUP)
                await until(lambda: is_ok(gateway, new), "the new issuer's token is not accepted")
                assert (await gateway.get("/api/a", old)).status == 200
            assert (second.fetches, issuer.fetches) == (1, fetches)
            # And with its section the issuer is gone.
            gateway.write(config_text(issuer.yaml(), upstream.url))
            gateway.signal(signal.SIGHUP)
            await until(lambda: is_refused(gateway, new), "a removed issuer's token is accepted")
            assert (await gateway.get("/api/a", old)).status == 200
    finally:
        await second.close()


async def is_ok(gateway: GatewayProcess, token: str) -> bool:
    """Whether a token is accepted."""
    return (await gateway.get("/api/a", token)).status == 200


async def is_refused(gateway: GatewayProcess, token: str) -> bool:
    """Whether a token is invalid here."""
    return (await gateway.get("/api/a", token)).code == "token_invalid"
