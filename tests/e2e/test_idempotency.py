"""`Idempotency-Key` through whole gateways: a write that is sent twice is done once, whatever dies in between."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.edge import Answer, GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, config_text
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

PAGE = Path(__file__).parents[2] / "docs/idempotency.md"
ROUTES = """\
  - {name: orders, path: /orders/**, upstream: app, idempotency: {wait: 300ms}}
"""


class Shop:
    """An upstream that counts what it does, and waits where it is told to."""

    def __init__(self, upstream: RecordingUpstream) -> None:
        self.upstream = upstream
        self.done: list[SeenRequest] = []
        self.may_answer = asyncio.Event()
        self.has_come = asyncio.Event()
        upstream.script = self._serve

    async def _serve(self, seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.done.append(seen)
        body = b"order %d" % len(self.done)
        self.has_come.set()
        if seen.line.startswith(b"POST /orders/slow "):
            await self.may_answer.wait()
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest_asyncio.fixture
async def shop(upstream: RecordingUpstream) -> Shop:
    """The upstream, as a shop."""
    return Shop(upstream)


@pytest.fixture
def config(issuer: TestIssuer, shop: Shop, redis_url: str) -> Callable[..., str]:
    """A configuration with the shop's routes; `store` is the denylist's."""

    def text(store: str = redis_url, *, timeout: str = "2s") -> str:
        extra = f"denylist: {{store: '{store}', max_staleness: 60s}}\n"
        extra += f"idempotency: {{lease: 1s, timeout: {timeout}}}\n"
        timeouts = "    timeouts: {head: 10s}\n"
        return config_text(
            issuer.yaml(),
            shop.upstream.url,
            extra=extra,
            routes=ROUTES,
            server="  drain: 3s\n",
            upstream_options=timeouts,
        )

    return text


async def post(
    gateway: GatewayProcess, path: str, token: str, key: str | None, body: bytes = b"one", method: str = "POST"
) -> Answer:
    """One write with a key."""
    fields = [] if key is None else [f"Idempotency-Key: {key}"]
    return await gateway.get(path, token, *fields, method=method, body=body)


async def leave(gateway: GatewayProcess, path: str, token: str, key: str, shop: Shop) -> None:
    """Send a write, and go away once the upstream has it."""
    shop.has_come.clear()
    writer = (await asyncio.open_connection("127.0.0.1", gateway.port))[1]
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
    writer.write(head.encode() + b"Content-Length: 3\r\n\r\none")
    await asyncio.wait_for(shop.has_come.wait(), 10)
    writer.transport.abort()


async def until_answered(gateway: GatewayProcess, path: str, token: str, key: str) -> Answer:
    """What a client gets that repeats its write for as long as it is told to try again."""
    async with asyncio.timeout(20):
        while True:
            answer = await post(gateway, path, token, key)
            if answer.status not in (409, 503):
                return answer
            assert answer.all(b"retry-after")


def is_replayed(answer: Answer) -> bool:
    """Whether the answer was given before."""
    return answer.all(b"idempotent-replayed") == [b"true"]


def played(page: Path) -> list[tuple[str, str]]:
    """The exchanges that a page of the manual shows: request, then response."""
    blocks = re.findall(r"^```text\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return list(zip(blocks[::2], blocks[1::2], strict=True))


def is_like(expected: str, answer: Answer) -> bool:
    """Status, each field that is shown, and the body; `…` stands for anything."""
    head, _, body = expected.rstrip("\n").partition("\n\n")
    status, *fields = head.split("\n")
    pattern = re.escape(body).replace("…", ".*")
    return (
        answer.status == int(status.split(" ")[1])
        and all(
            answer.all(name.lower().encode()) == [value.encode()] for name, value in (f.split(": ") for f in fields)
        )
        and is_replayed(answer) == ("Idempotent-Replayed: true" in fields)
        and re.fullmatch(pattern, answer.body.decode().strip()) is not None
    )


async def test_the_manual_is_played_out(
    upstream: RecordingUpstream, issuer: TestIssuer, redis_url: str, start_gateway: Callable[..., GatewayProcess]
) -> None:
    """The page's routes, and its exchanges in their order, each repetition with a new token; the backend has one."""

    async def create(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(upstream.seen)
        body = b'{"id": %d}' % number
        head = b"HTTP/1.1 201 Created\r\nLocation: /api/orders/%d\r\nSet-Cookie: a=b\r\n" % number
        writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    upstream.script = create
    text = PAGE.read_text(encoding="utf-8")
    sections = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    routes = [{**route, "upstream": "app"} for section in sections for route in section.get("routes", [])]
    written = "".join(f"  - {json.dumps(route)}\n" for route in routes)
    extra = f"denylist: {{store: '{redis_url}'}}\n"
    async with start_gateway(config_text(issuer.yaml(), upstream.url, extra=extra, routes=written)) as gateway:
        for request, expected in played(PAGE):
            head, _, body = request.partition("\n\n")
            line, *fields = head.split("\n")
            method, target, _ = line.split(" ")
            answer = await gateway.get(target, issuer.token(), *fields, method=method, body=body.strip().encode())
            assert is_like(expected, answer), f"{request}\n{answer.raw!r}"
        assert [seen.all(b"idempotency-key") for seen in upstream.seen] == [[b'"8e03978e-40d5-43dd-bc93-6894a57f9324"']]
        assert await gateway.metric("gateway_idempotency_requests_total", outcome="replayed") == 1


async def test_one_user_on_a_bad_connection(
    start_gateway: Callable[..., GatewayProcess],
    config: Callable[..., str],
    issuer: TestIssuer,
    shop: Shop,
    redis_server: RedisServer,
) -> None:
    """Who leaves finds the answer; another user's key is another key; a revoked token gets no replay."""
    token = issuer.token(jti="stolen")
    async with start_gateway(config()) as gateway:
        await leave(gateway, "/orders/slow", token, "k", shop)
        early = await post(gateway, "/orders/slow", token, "k")
        assert (early.status, early.code) == (409, "idempotency_key_in_use")
        assert early.all(b"retry-after")
        waiting = asyncio.create_task(until_answered(gateway, "/orders/slow", token, "k"))
        shop.may_answer.set()
        answer = await waiting
        assert (answer.status, answer.body, is_replayed(answer)) == (201, b"order 1", True)
        assert await gateway.metric("gateway_idempotency_outlived_total") == 1
        other = await post(gateway, "/orders/slow", issuer.token(sub="user-2"), "k")
        assert (other.body, is_replayed(other)) == (b"order 2", False)

        redis_server.cli("SET", "gateway:deny:token:main:stolen", "1", "EX", 60)
        for _ in range(500):
            refused = await post(gateway, "/orders/slow", token, "k")
            if refused.status == 401:
                break
            await asyncio.sleep(0.01)  # until the word has come
        assert (refused.code, is_replayed(refused)) == ("token_revoked", False)
        assert is_replayed(await post(gateway, "/orders/slow", issuer.token(), "k"))
        assert len(shop.done) == 2
        names = redis_server.cli("KEYS", "gateway:idem:*").split()
        assert len(names) == 2
        assert not any("user" in name or name.endswith("k") for name in names)


async def test_gateways_of_one_machine_that_end_in_the_middle(
    tmp_path: Path,
    start_gateway: Callable[..., GatewayProcess],
    config: Callable[..., str],
    issuer: TestIssuer,
    shop: Shop,
) -> None:
    """They share a file beside the denylist's. One that stops waits for an answer; one that dies locks no key."""
    token = issuer.token()
    stopped, killed, third = (start_gateway(config(f"sqlite://{tmp_path}/deny.db")) for _ in range(3))
    await asyncio.gather(*(gateway.start() for gateway in (stopped, killed, third)))
    at_once = [until_answered(gateway, "/orders/new", token, "k") for gateway in (stopped, killed, third) * 2]
    assert sorted(map(is_replayed, await asyncio.gather(*at_once))) == [False, *[True] * 5]

    await leave(stopped, "/orders/slow", token, "stopped", shop)
    await leave(killed, "/orders/slow", token, "killed", shop)
    stopping = asyncio.create_task(stopped.stop())
    await killed.stop(signal.SIGKILL)
    shop.may_answer.set()
    assert await stopping == 0
    answer = await until_answered(third, "/orders/slow", token, "stopped")
    assert (answer.body, is_replayed(answer)) == (b"order 2", True)
    answer = await until_answered(third, "/orders/slow", token, "killed")
    assert (answer.body, is_replayed(answer)) == (b"order 4", False)
    assert is_replayed(await post(third, "/orders/slow", token, "killed"))

    kept = tmp_path / "deny.idempotency.db"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not any(b"user-1" in file.read_bytes() for file in tmp_path.glob("deny.idempotency.db*"))


async def test_without_the_store_nothing_is_forwarded(
    own_redis: RedisServer,
    start_gateway: Callable[..., GatewayProcess],
    config: Callable[..., str],
    issuer: TestIssuer,
    shop: Shop,
) -> None:
    """Frozen or dead: 503, at once. An answer given meanwhile is kept when the store is back."""
    token = issuer.token()
    async with start_gateway(config(own_redis.url, timeout="250ms")) as gateway:
        in_flight = asyncio.create_task(post(gateway, "/orders/slow", token, "early"))
        await asyncio.wait_for(shop.has_come.wait(), 10)
        own_redis.freeze()
        refused = await post(gateway, "/orders/new", token, "k")
        assert (refused.status, refused.code) == (503, "idempotency_unavailable")
        assert refused.all(b"retry-after")
        shop.may_answer.set()
        assert (await in_flight).status == 201
        own_redis.thaw()
        answer = await until_answered(gateway, "/orders/slow", token, "early")
        assert (answer.status, is_replayed(answer)) == (201, True)

        own_redis.kill()
        assert (await post(gateway, "/orders/new", token, "k")).code == "idempotency_unavailable"
        assert (await post(gateway, "/orders/new", token, None)).status == 201
        assert len(shop.done) == 2
