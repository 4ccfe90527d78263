"""`Idempotency-Key` through whole gateways: a write that is sent twice is done once, whatever dies in between."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.edge import Answer, GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, config_text
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

ROUTES = """\
  - {name: orders, path: /orders/**, upstream: app, idempotency: {wait: 300ms, max_answer: 64KiB, max_body: 64KiB}}
  - {name: payments, path: /payments, upstream: app, idempotency: {mode: required, when_unknown: refuse, wait: 0s}}
"""


class Shop:
    """An upstream that counts what it does, and waits where it is told to."""

    def __init__(self, upstream: RecordingUpstream) -> None:
        self.upstream = upstream
        self.done: list[SeenRequest] = []
        self.may_answer = asyncio.Event()
        self.has_come = asyncio.Event()
        self.answers: dict[bytes, bytes] = {}  # by path
        upstream.script = self._serve

    async def _serve(self, seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = seen.line.split(b" ")[1].partition(b"?")[0]
        self.done.append(seen)
        self.has_come.set()
        if path == b"/orders/slow":
            await self.may_answer.wait()
        if path == b"/orders/dropped":
            writer.close()
            return
        body = b"order %d" % len(self.done)
        head = self.answers.get(path, b"HTTP/1.1 201 Created\r\nLocation: /orders/%d" % len(self.done))
        writer.write(b"%b\r\nSet-Cookie: upstream=1\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))


@pytest_asyncio.fixture
async def shop(upstream: RecordingUpstream) -> Shop:
    """The upstream, as a shop."""
    return Shop(upstream)


@pytest.fixture
def config(issuer: TestIssuer, shop: Shop, redis_url: str) -> Callable[..., str]:
    """A configuration with the shop's routes; `store` is the denylist's."""

    def text(store: str = redis_url, *, workers: int = 1) -> str:
        extra = f"denylist: {{store: '{store}', max_staleness: 60s}}\nidempotency: {{lease: 1s}}\n"
        timeouts = "    timeouts: {head: 10s}\n"
        return config_text(
            issuer.yaml(),
            shop.upstream.url,
            extra=extra,
            routes=ROUTES,
            workers=workers,
            server="  drain: 3s\n",
            upstream_options=timeouts,
        )

    return text


@pytest_asyncio.fixture
async def gateway(
    start_gateway: Callable[..., GatewayProcess], config: Callable[..., str]
) -> AsyncIterator[GatewayProcess]:
    """A running gateway with an empty Redis."""
    async with start_gateway(config()) as started:
        yield started


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


def is_replayed(answer: Answer) -> bool:
    """Whether the answer was given before."""
    return answer.all(b"idempotent-replayed") == [b"true"]


async def test_a_repetition_gets_the_answer_that_was_given(
    gateway: GatewayProcess, issuer: TestIssuer, shop: Shop
) -> None:
    """Status, fields and body, without the cookie; with a new token of the same user, the key quoted or bare."""
    key = uuid.uuid4().hex
    first = await post(gateway, "/orders/new?a=1", issuer.token(), f'"{key}"')
    again = await post(gateway, "/orders/new?a=1", issuer.token(), key)
    assert (first.status, first.body, is_replayed(first)) == (201, b"order 1", False)
    assert (again.status, again.body, is_replayed(again)) == (201, b"order 1", True)
    assert first.all(b"set-cookie") == [b"upstream=1"]
    assert again.all(b"set-cookie") == []
    assert again.all(b"location") == first.all(b"location") == [b"/orders/1"]
    assert len(again.all(b"x-request-id")) == len(again.all(b"date")) == 1
    assert again.all(b"x-request-id") != first.all(b"x-request-id")
    assert [seen.all(b"idempotency-key") for seen in shop.done] == [[f'"{key}"'.encode()]]
    assert await gateway.metric("gateway_idempotency_requests_total", outcome="replayed") == 1


async def test_a_key_belongs_to_one_user_and_one_request(
    gateway: GatewayProcess, issuer: TestIssuer, shop: Shop
) -> None:
    """Another user's is another record; another body, target or method is refused, and nothing is forwarded."""
    mine, theirs = issuer.token(), issuer.token(sub="user-2")
    assert (await post(gateway, "/orders/new", mine, "k")).body == b"order 1"
    assert (await post(gateway, "/orders/new", theirs, "k")).body == b"order 2"
    assert (await post(gateway, "/orders/new", mine, "k")).body == b"order 1"
    for path, body, method in (
        ("/orders/new", b"two", "POST"),
        ("/orders/new?x", b"one", "POST"),
        ("/orders/new", b"one", "PUT"),
    ):
        refused = await post(gateway, path, mine, "k", body, method)
        assert (refused.status, refused.code) == (422, "idempotency_key_reused")
    assert len(shop.done) == 2


async def test_what_is_asked_of_a_request(gateway: GatewayProcess, issuer: TestIssuer, shop: Shop) -> None:
    """A key where it is required, of a form that can be read, and a body that can be held; reads need none of it."""
    token = issuer.token()
    assert (await post(gateway, "/payments", token, None)).code == "idempotency_key_missing"
    for key in ('"open', '""', "a b", "k" * 256):
        assert (await post(gateway, "/payments", token, key)).code == "bad_request"
    assert (await post(gateway, "/orders/new", token, "k", b"x" * 70_000)).status == 413
    assert shop.done == []
    for _ in range(2):
        assert (await post(gateway, "/orders/new", token, None)).status == 201
        assert (await gateway.get("/orders/new", token, "Idempotency-Key: k")).status == 201
    assert len(shop.done) == 4


@pytest.mark.parametrize("status", [b"500 No", b"503 No", b"429 No", b"401 No"])
async def test_an_answer_that_decides_nothing_is_not_kept(
    gateway: GatewayProcess, issuer: TestIssuer, shop: Shop, status: bytes
) -> None:
    """The client may ask again, and then the upstream is asked."""
    shop.answers[b"/orders/new"] = b"HTTP/1.1 " + status
    token = issuer.token()
    for count in (1, 2):
        answer = await post(gateway, "/orders/new", token, "k")
        assert (answer.status, is_replayed(answer)) == (int(status[:3]), False)
        assert len(shop.done) == count
    shop.answers[b"/orders/new"] = b"HTTP/1.1 404 Not Found"
    assert (await post(gateway, "/orders/new", token, "k")).status == 404
    assert is_replayed(await post(gateway, "/orders/new", token, "k"))


async def test_a_revoked_token_gets_no_replay(
    gateway: GatewayProcess, issuer: TestIssuer, redis_server: RedisServer
) -> None:
    """A repetition passes every check that a request passes."""
    token = issuer.token(jti="stolen")
    assert (await post(gateway, "/orders/new", token, "k")).status == 201
    redis_server.cli("SET", "gateway:deny:token:main:stolen", "1", "EX", 60)
    for _ in range(200):
        refused = await post(gateway, "/orders/new", token, "k")
        if refused.status == 401:
            break
        await asyncio.sleep(0.01)
    assert (refused.code, is_replayed(refused)) == ("token_revoked", False)
    assert is_replayed(await post(gateway, "/orders/new", issuer.token(), "k"))


async def test_a_client_that_goes_away_finds_its_answer(
    gateway: GatewayProcess, issuer: TestIssuer, shop: Shop
) -> None:
    """In flight its repetition waits, then is told to; afterwards it gets the answer of the first."""
    token = issuer.token()
    await leave(gateway, "/orders/slow", token, "k", shop)
    early = await post(gateway, "/orders/slow", token, "k")
    assert (early.status, early.code) == (409, "idempotency_key_in_use")
    assert early.all(b"retry-after")
    waiting = asyncio.create_task(post(gateway, "/orders/slow", token, "k"))
    await asyncio.sleep(0.05)
    shop.may_answer.set()
    answer = await waiting
    assert (answer.status, answer.body, is_replayed(answer)) == (201, b"order 1", True)
    assert len(shop.done) == 1
    assert await gateway.metric("gateway_idempotency_outlived_total") == 1


async def test_a_gateway_that_stops_waits_for_an_answer_that_nobody_waits_for(
    start_gateway: Callable[..., GatewayProcess], config: Callable[..., str], issuer: TestIssuer, shop: Shop
) -> None:
    """The client has gone, the process is told to stop, the upstream answers: another gateway has the answer."""
    token = issuer.token()
    async with start_gateway(config()) as first, start_gateway(config()) as second:
        await leave(first, "/orders/slow", token, "k", shop)
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(0.3)
        shop.may_answer.set()
        assert await stopping == 0
        answer = await post(second, "/orders/slow", token, "k")
        assert (answer.body, is_replayed(answer)) == (b"order 1", True)


async def test_a_gateway_that_is_killed_locks_no_key(
    start_gateway: Callable[..., GatewayProcess], config: Callable[..., str], issuer: TestIssuer, shop: Shop
) -> None:
    """Once the lease is over the write is forwarded again, or refused where the route says so."""
    token = issuer.token()
    shop.answers[b"/payments"] = b"HTTP/1.1 201 Created"
    async with start_gateway(config()) as first, start_gateway(config()) as second:
        await leave(first, "/orders/slow", token, "k", shop)
        await first.stop(signal.SIGKILL)
        assert (await post(second, "/orders/slow", token, "k")).code == "idempotency_key_in_use"
        shop.may_answer.set()
        for _ in range(10):
            answer = await post(second, "/orders/slow", token, "k")
            if answer.status == 201:
                break
        assert (answer.body, is_replayed(answer)) == (b"order 2", False)
        assert is_replayed(await post(second, "/orders/slow", token, "k"))


async def test_an_outcome_that_nobody_knows(gateway: GatewayProcess, issuer: TestIssuer, shop: Shop) -> None:
    """The upstream has the request and says nothing: forwarded again, or refused where the route says so."""
    token = issuer.token()
    assert (await post(gateway, "/orders/dropped", token, "k")).code == "connect_failed"
    assert (await post(gateway, "/orders/dropped", token, "k")).code == "connect_failed"
    assert len(shop.done) == 2

    async def hang_up(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shop.done.append(seen)
        writer.close()

    shop.upstream.script = hang_up
    assert (await post(gateway, "/payments", token, "p")).code == "connect_failed"
    assert (await post(gateway, "/payments", token, "p")).code == "idempotency_outcome_unknown"
    assert len(shop.done) == 3
    # Surely not handled: nobody listens.
    await shop.upstream.close()
    assert (await post(gateway, "/payments", token, "q")).code == "connect_failed"
    await shop.upstream.listen()
    await asyncio.sleep(0.6)  # the endpoint's back-off, which is counted and not signalled
    shop.upstream.script = shop._serve
    assert (await post(gateway, "/payments", token, "q")).status == 201


async def test_without_the_store_nothing_is_forwarded(
    own_redis: RedisServer,
    start_gateway: Callable[..., GatewayProcess],
    config: Callable[..., str],
    issuer: TestIssuer,
    shop: Shop,
) -> None:
    """Frozen or dead: 503, at once. An answer given meanwhile is kept when the store is back."""
    token = issuer.token()
    async with start_gateway(config(own_redis.url)) as gateway:
        in_flight = asyncio.create_task(post(gateway, "/orders/slow", token, "early"))
        await asyncio.wait_for(shop.has_come.wait(), 10)
        own_redis.freeze()
        refused = await post(gateway, "/orders/new", token, "k")
        assert (refused.status, refused.code) == (503, "idempotency_unavailable")
        assert refused.all(b"retry-after")
        shop.may_answer.set()
        assert (await in_flight).status == 201
        own_redis.thaw()
        answer = await post(gateway, "/orders/slow", token, "early")
        assert (answer.status, is_replayed(answer)) == (201, True)

        own_redis.kill()
        assert (await post(gateway, "/orders/new", token, "k")).code == "idempotency_unavailable"
        assert (await post(gateway, "/orders/new", token, None)).status == 201
        assert len(shop.done) == 2


async def test_workers_of_one_machine_share_a_file(
    tmp_path: Path, start_gateway: Callable[..., GatewayProcess], config: Callable[..., str], issuer: TestIssuer
) -> None:
    """With the embedded denylist the answers stand in a file beside it, for this user's eyes alone."""
    token = issuer.token()
    async with start_gateway(config(f"sqlite://{tmp_path}/deny.db", workers=2)) as gateway:
        for number in range(6):
            answers = await asyncio.gather(*(post(gateway, "/orders/new", token, f"k{number}") for _ in range(4)))
            assert sorted(map(is_replayed, answers)) == [False, True, True, True]
            assert len({answer.body for answer in answers}) == 1
    kept = tmp_path / "deny.idempotency.db"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert b"user-1" not in kept.read_bytes()
