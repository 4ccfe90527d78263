"""Redis, the key server or the upstream fails: the stated answer, the number that shows it, and everything works after.

During all of it the event loop stays free: its longest stall is asked for after each story (`unstalled`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.load import run_cli, unstalled, until
from tests.edge import Answer, GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, answer_ok, config_text
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]


async def agree(ask: Callable[[], Awaitable[Answer]], status: int, code: str = "") -> Answer:
    """Ask until the answer is this one."""
    last: list[Answer] = []

    async def agreed() -> bool:
        last[:] = [await ask()]
        return (last[0].status, last[0].code) == (status, code)

    try:
        await until(agreed, "")
    except AssertionError:
        raise AssertionError(f"expected {status} {code}, got {last[0].raw!r}") from None
    return last[0]


# --- Redis -----------------------------------------------------------------------------------------------------------

LENIENT = "  - {name: lenient, path: /lenient/**, upstream: app, denylist: {when_stale: allow}}\n"


def denylist(server: RedisServer, when_stale: str = "refuse", snapshot: str = "") -> str:
    """The section, with a staleness that a test can wait for."""
    return (
        f'denylist: {{store: "{server.url}", max_staleness: 600ms, timeout: 100ms, when_stale: {when_stale}'
        + (f', snapshot: "{snapshot}"' if snapshot else "")
        + "}\n"
    )


@pytest.mark.parametrize("outage", ["killed", "frozen"])
async def test_an_unreachable_redis_makes_the_denylist_stale_and_nothing_else(
    outage: str, upstream: RecordingUpstream, issuer: TestIssuer, own_redis: RedisServer, start_gateway: Start
) -> None:
    """Where the route refuses: 503 with Retry-After; where it allows: what was known decides. All heals by itself."""
    config = config_text(issuer.yaml(), upstream.url, extra=denylist(own_redis), routes=LENIENT)
    async with start_gateway(config) as gateway, unstalled(gateway, f"Redis {outage}"):
        good, revoked = issuer.token(), issuer.token(jti="gone")
        await run_cli("revoke", "--config", str(gateway.config_path), "token", "main", "gone")
        await agree(lambda: gateway.get("/api/orders", revoked), 401, "token_revoked")
        assert (await gateway.get("/api/orders", good)).status == 200

        own_redis.kill() if outage == "killed" else own_redis.freeze()
        # Until the declared staleness is reached everything goes on; then the routes differ.
        stale = await agree(lambda: gateway.get("/api/orders", good), 503, "denylist_stale")
        assert stale.all(b"retry-after") == [b"5"]
        assert stale.all(b"www-authenticate") == []  # signing in again would not help
        assert (await gateway.get("/lenient/orders", good)).status == 200
        # What is known to be revoked is said to be revoked, on both: a 503 would make the client try again for ever.
        for path in ("/api/orders", "/lenient/orders"):
            answer = await gateway.get(path, revoked)
            assert (answer.status, answer.code) == (401, "token_revoked")
        assert (await gateway.get("/public/a")).status == 200  # needs no denylist

        assert await gateway.metric("gateway_requests_total", code="denylist_stale", route="api", status="503") >= 1
        assert await gateway.metric("gateway_denylist_staleness_seconds") > 0.6
        await until(lambda: gateway.metric("gateway_denylist_connection_losses_total"), "the loss is not counted")
        assert await gateway.metric("gateway_denylist_troubles") >= 1
        ready = await gateway.admin("/health/ready")
        assert ready.status == 200  # taking every gateway out of service would help nobody
        assert b"degraded" in ready.body

        own_redis.restart() if outage == "killed" else own_redis.thaw()
        await agree(lambda: gateway.get("/api/orders", good), 200)
        # A Redis that comes back empty has lost a revocation that still holds: it is denied here and written back.
        answer = await gateway.get("/api/orders", revoked)
        assert (answer.status, answer.code) == (401, "token_revoked")
        assert await gateway.metric("gateway_denylist_written_back_total") == (outage == "killed")
        assert own_redis.cli("EXISTS", "gateway:deny:token:main:gone") == "1"
        assert await gateway.metric("gateway_denylist_troubles") == 0
        own_redis.cli("DEL", "gateway:deny:token:main:gone")
        await agree(lambda: gateway.get("/api/orders", revoked), 200)


async def test_a_short_freeze_of_redis_is_not_noticed_by_clients(
    upstream: RecordingUpstream, issuer: TestIssuer, own_redis: RedisServer, start_gateway: Start
) -> None:
    """With `when_stale: allow` for all routes nobody is refused, and what changed meanwhile is in force afterwards."""
    config = config_text(issuer.yaml(), upstream.url, extra=denylist(own_redis, "allow"))
    async with start_gateway(config) as gateway, unstalled(gateway, "Redis frozen, allowed"):
        token = issuer.token(jti="later")
        own_redis.freeze()
        revoking = asyncio.create_task(
            asyncio.to_thread(own_redis.cli, "SET", "gateway:deny:token:main:later", 1, "EX", 60, timeout_s=20)
        )
        try:

            async def is_stale() -> bool:
                assert (await gateway.get("/api/orders", token)).status == 200
                return await gateway.metric("gateway_denylist_staleness_seconds") > 0.7

            await until(is_stale, "the staleness does not grow")
            assert (await gateway.get("/api/orders", token)).status == 200
        finally:
            own_redis.thaw()
            await revoking
        await agree(lambda: gateway.get("/api/orders", token), 401, "token_revoked")


async def test_a_gateway_that_starts_while_redis_is_down_denies_what_it_knew(
    upstream: RecordingUpstream, issuer: TestIssuer, own_redis: RedisServer, start_gateway: Start, tmp_path: Path
) -> None:
    """The snapshot carries the denylist over a restart; a route that refuses staleness refuses until Redis is back."""
    snapshot = tmp_path / "denylist.snapshot"
    config = config_text(issuer.yaml(), upstream.url, extra=denylist(own_redis, snapshot=str(snapshot)), routes=LENIENT)
    good, revoked = issuer.token(), issuer.token(jti="gone")
    async with start_gateway(config) as before:
        own_redis.cli("SET", "gateway:deny:token:main:gone", 1, "EX", 60)
        await agree(lambda: before.get("/api/orders", revoked), 401, "token_revoked")
    assert snapshot.exists()  # written at the end at the latest
    own_redis.kill()
    gateway = start_gateway(config)
    await gateway.spawn()
    await gateway.wait_ready("/health/live")
    async with unstalled(gateway, "started without Redis"):
        assert (await gateway.get("/lenient/orders", good)).status == 200
        answer = await gateway.get("/lenient/orders", revoked)
        assert (answer.status, answer.code) == (401, "token_revoked")
        await agree(lambda: gateway.get("/api/orders", good), 503, "denylist_stale")
        assert (await gateway.admin("/health/ready")).status == 503  # it has never been in contact
        own_redis.restart()
        await agree(lambda: gateway.get("/api/orders", good), 200)
        assert (await gateway.admin("/health/ready")).status == 200
        answer = await gateway.get("/api/orders", revoked)
        assert (answer.status, answer.code) == (401, "token_revoked")


# --- the key server --------------------------------------------------------------------------------------------------


async def _slow() -> bytes:
    await asyncio.sleep(5)
    return b""


async def _html() -> bytes:
    body = b"<html>" + b"x" * 1000
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def _noise() -> bytes:
    return bytes(range(256)) * 40


async def _error() -> bytes:
    return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


async def _empty_set() -> bytes:
    return b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys": []}'[:-1]


KEY_FAULTS: dict[str, Callable[[], Awaitable[bytes]] | None] = {
    "down": None,
    "slow": _slow,
    "html": _html,
    "noise": _noise,
    "error": _error,
    "empty": _empty_set,
}


async def break_keys(issuer: TestIssuer, fault: str) -> None:
    """Make the key server of an issuer fail in one way."""
    issuer.respond = KEY_FAULTS[fault]
    if fault == "down":
        await issuer.close()


async def repair_keys(issuer: TestIssuer, fault: str) -> None:
    """Make it work again."""
    issuer.respond = None
    if fault == "down":
        await issuer.listen()


@pytest_asyncio.fixture
async def issuers() -> AsyncIterator[dict[str, TestIssuer]]:
    """One issuer for each way to fail, all well so far."""
    found = {fault: await TestIssuer.start() for fault in KEY_FAULTS}
    yield found
    for each in found.values():
        await each.close()


def issuers_yaml(issuers: dict[str, TestIssuer]) -> str:
    """Their section; `timeout` is one that a test can wait for."""
    sections = (each.yaml().replace("  main:", f"  {name}:") + "    timeout: 300ms\n" for name, each in issuers.items())
    return "".join(sections)


async def test_a_key_server_that_fails_at_the_start_is_waited_for(
    upstream: RecordingUpstream, issuers: dict[str, TestIssuer], start_gateway: Start
) -> None:
    """Down, slow, or answering nonsense: 503 with Retry-After for its tokens alone, unready, well again by itself."""
    for fault, issuer in issuers.items():
        await break_keys(issuer, fault)
    gateway = start_gateway(config_text(issuers_yaml(issuers), upstream.url))
    await gateway.spawn()
    await gateway.wait_ready("/health/live")
    async with unstalled(gateway, "key servers failing from the start"):
        for fault, issuer in issuers.items():
            answer = await gateway.get("/api/orders", issuer.token())
            assert (answer.status, answer.code, answer.all(b"retry-after")) == (503, "keys_unavailable", [b"5"]), fault
            assert await gateway.metric("gateway_keys_loads_total", issuer=fault, outcome="failed") >= 1
            assert await gateway.metric("gateway_keys", issuer=fault) == 0
            assert f"issuer {fault}: keys not loaded" in gateway.log
        assert await gateway.metric("gateway_requests_total", code="keys_unavailable") == len(issuers)
        assert (await gateway.get("/public/a")).status == 200
        assert (await gateway.admin("/health/ready")).status == 503
        for fault, issuer in issuers.items():
            await repair_keys(issuer, fault)
        for issuer in issuers.values():
            token = issuer.token()
            await agree(lambda token=token: gateway.get("/api/orders", token), 200)  # type: ignore[misc]  # bound now
        assert (await gateway.admin("/health/ready")).status == 200


async def test_a_key_server_that_fails_later_takes_no_key_away(
    upstream: RecordingUpstream, issuers: dict[str, TestIssuer], start_gateway: Start
) -> None:
    """Known keys go on verifying, new tokens too; a key that was never fetched is refused until the server is back."""
    async with (
        start_gateway(config_text(issuers_yaml(issuers), upstream.url)) as gateway,
        unstalled(gateway, "key servers failing later"),
    ):
        for fault, issuer in issuers.items():
            old = issuer.token()
            assert (await gateway.get("/api/orders", old)).status == 200
            await break_keys(issuer, fault)
            new_of_old_key = issuer.token(sub="new")
            issuer.rotate("k2")
            of_new_key = issuer.token()
            refused = await gateway.get("/api/orders", of_new_key)
            assert (refused.status, refused.code) == (401, "token_invalid"), fault
            for token in (old, new_of_old_key):
                assert (await gateway.get("/api/orders", token)).status == 200, fault
            assert await gateway.metric("gateway_keys_loads_total", issuer=fault, outcome="failed") >= 1
            assert await gateway.metric("gateway_keys", issuer=fault) == 1
            await repair_keys(issuer, fault)
            await agree(lambda token=of_new_key: gateway.get("/api/orders", token), 200)  # type: ignore[misc]
            assert (await gateway.get("/api/orders", old)).status == 200
        assert (await gateway.admin("/health/ready")).status == 200


# --- the upstream ----------------------------------------------------------------------------------------------------

TIMES = """\
    timeouts: {connect: 300ms, head: 400ms, idle: 400ms}
    pool: {size: 4, wait: 200ms}
"""
BODY_TIMEOUT = "  limits: {body_timeout: 500ms}\n"


@dataclass(frozen=True)
class Fault:
    """One way an upstream fails: what it writes, and then whether it hangs or closes."""

    writes: bytes
    hangs: bool
    status: int  # to the client
    code: str  # to the client, or in the record where the response had begun
    metric: str  # of the upstream, that grows by one
    partial: bytes | None = None  # of the body, that the client got; None: the response never began


FAULTS = {
    "silent": Fault(b"", True, 504, "upstream_timeout", "timeouts"),
    "hangs-mid-head": Fault(b"HTTP/1.1 200 OK\r\nContent-", True, 504, "upstream_timeout", "timeouts"),
    "closes-at-once": Fault(b"", False, 502, "connect_failed", ""),
    "dies-mid-head": Fault(b"HTTP/1.1 200 OK\r\nContent-", False, 502, "bad_response", "bad_responses"),
    "garbage": Fault(b"\x16\x03\x01 this is not HTTP\r\n\r\n", True, 502, "bad_response", "bad_responses"),
    "two-lengths": Fault(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        True,
        502,
        "bad_response",
        "bad_responses",
    ),
    "dies-mid-body": Fault(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", False, 200, "bad_response", "bad_responses", b"abc"
    ),
    "dies-mid-chunk": Fault(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
        False,
        200,
        "bad_response",
        "bad_responses",
        b"abc",
    ),
    "hangs-mid-body": Fault(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", True, 200, "upstream_timeout", "timeouts", b"abc"
    ),
    "breaks-its-chunks": Fault(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n",
        True,
        200,
        "bad_response",
        "bad_responses",
        b"",  # what arrives together with the mistake is not trusted
    ),
}


async def fail_by_path(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`/api/<fault>` fails in that way; everything else is answered."""
    fault = FAULTS.get(seen.line.split(b" ")[1].rpartition(b"/")[2].decode())
    if fault is None:
        await answer_ok(seen, reader, writer)
        return
    writer.write(fault.writes)
    await writer.drain()
    if fault.hangs:
        await reader.read()  # until the gateway gives up
    writer.close()


async def until_closed(gateway: GatewayProcess, target: str, token: str) -> Answer:
    """One request on a connection that is read to its end, however that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    got = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                got += piece
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return Answer(got)


async def test_each_fault_of_an_upstream_has_its_answer_and_its_number(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """Before the response begins: 502 or 504, a problem document. After: cut short, so that the client notices."""
    upstream.script = fail_by_path
    token = issuer.token()
    async with (
        start_gateway(config_text(issuer.yaml(), upstream.url, upstream_options=TIMES)) as gateway,
        unstalled(gateway, "a failing upstream"),
    ):
        for name, fault in FAULTS.items():
            number = f"gateway_upstream_{fault.metric}_total"
            before = await gateway.metric(number) if fault.metric else 0
            if fault.partial is not None:
                answer = await until_closed(gateway, f"/api/{name}", token)
                assert answer.status == 200, name
                assert fault.partial in answer.body, name
                assert not answer.body.endswith(b"0\r\n\r\n"), name  # no end that was never sent
            else:
                answer = await gateway.get(f"/api/{name}", token)
                assert (answer.status, answer.code) == (fault.status, fault.code), name
                assert answer.all(b"content-type") == [b"application/problem+json"]
            labels = {"route": "api", "status": str(fault.status), "code": fault.code}
            assert await gateway.metric("gateway_requests_total", **labels) >= 1, name
            if fault.metric:
                assert await gateway.metric(number) == before + 1, name
            assert (await gateway.get("/api/well", token)).status == 200, name
        assert await gateway.metric("gateway_upstream_connections", state="busy") == 0


async def test_an_upstream_that_refuses_connections_is_tried_again(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """502 while nobody listens, also on kept connections that were cut; the first request after is served."""
    token = issuer.token()
    async with (
        start_gateway(config_text(issuer.yaml(), upstream.url, upstream_options=TIMES)) as gateway,
        unstalled(gateway, "an upstream that refuses"),
    ):
        assert (await gateway.get("/api/a", token)).status == 200
        await upstream.close()
        for _ in range(3):
            answer = await gateway.get("/api/a", token)
            assert (answer.status, answer.code) == (502, "connect_failed")
            assert str(upstream.port).encode() not in answer.raw  # addresses are nobody's business
        assert await gateway.metric("gateway_upstream_connect_failures_total", upstream="app") == 3
        assert await gateway.metric("gateway_upstream_endpoint_up", upstream="app") == 0
        await upstream.listen()
        assert (await gateway.get("/api/a", token)).status == 200
        assert await gateway.metric("gateway_upstream_endpoint_up", upstream="app") == 1


async def test_a_pool_that_stays_full_is_a_503(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """A request that finds no free connection in time is told to come back; those that hold one are not hurt."""
    go_on = asyncio.Event()

    async def answer_later(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await answer_ok(seen, reader, writer)

    upstream.script = answer_later
    times = TIMES.replace("head: 400ms", "head: 10s")
    async with (
        start_gateway(config_text(issuer.yaml(), upstream.url, upstream_options=times)) as gateway,
        unstalled(gateway, "a full pool"),
    ):
        token = issuer.token()
        holding = [asyncio.create_task(gateway.get("/api/a", token)) for _ in range(4)]
        await until(lambda: len(upstream.seen) == 4, "the pool did not fill")
        answer = await gateway.get("/api/a", token)
        assert (answer.status, answer.code, answer.all(b"retry-after")) == (503, "no_endpoint", [b"2"])
        assert await gateway.metric("gateway_upstream_pool_full_total") == 1
        go_on.set()
        assert [(await task).status for task in holding] == [200] * 4
        assert (await gateway.get("/api/a", token)).status == 200


UPLOADS = {
    # name: (framing field, body and what is wrong with it, expected status, expected code)
    "broken-chunk": (b"Transfer-Encoding: chunked", b"3\r\nabc\r\nZZ\r\n", 400, "bad_request"),
    "silence": (b"Content-Length: 100", b"abc", 408, "request_timeout"),
    "silence-in-chunks": (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n", 408, "request_timeout"),
    "too-much-in-chunks": (b"Transfer-Encoding: chunked", b"64\r\n" + b"x" * 100 + b"\r\n", 413, "content_too_large"),
}


async def test_an_upload_that_breaks_off_is_answered_and_ends_upstream_too(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """The client's fault is the client's answer, even when half of the body is on its way; the upstream sees a cut."""
    routes = "  - {name: small, path: /small/**, upstream: app, body_bytes: 50B}\n"
    config = config_text(issuer.yaml(), upstream.url, upstream_options=TIMES, server=BODY_TIMEOUT, routes=routes)
    async with start_gateway(config) as gateway, unstalled(gateway, "uploads that break off"):
        token = issuer.token().encode()
        for name, (framing, body, status, code) in UPLOADS.items():
            head = b"POST /small/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n%b\r\n\r\n" % (
                token,
                framing if code != "request_timeout" else framing.replace(b"100", b"40"),
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            seen = len(upstream.seen)
            writer.write(head + body[:8])
            await until(lambda seen=seen: len(upstream.seen) > seen, "nothing came")  # type: ignore[misc]  # bound now
            writer.write(body[8:])
            async with asyncio.timeout(5):
                answer = Answer(await reader.read())
            writer.close()
            assert (answer.status, answer.code) == (status, code), name
            assert await gateway.metric("gateway_requests_total", code=code, route="small") >= 1, name
        # The connections that carried half a request are gone, and a new one works.
        await until(no_busy_connection(gateway), "an upstream connection is held")
        assert (await gateway.get("/small/a", token.decode())).status == 200


def no_busy_connection(gateway: GatewayProcess) -> Callable[[], Awaitable[bool]]:
    """Asks whether every upstream connection is free."""

    async def ask() -> bool:
        return await gateway.metric("gateway_upstream_connections", state="busy") == 0

    return ask


async def test_a_client_that_leaves_takes_its_upstream_exchange_along(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """The exchange ends at once, in the middle of a request and in the middle of a response, and is recorded as 499."""
    left = asyncio.Event()

    async def answer_on(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/half" in seen.line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            await writer.drain()
        await reader.read()
        left.set()
        writer.close()

    upstream.script = answer_on
    times = TIMES.replace("400ms", "30s")  # none of which is waited for
    async with (
        start_gateway(config_text(issuer.yaml(), upstream.url, upstream_options=times)) as gateway,
        unstalled(gateway, "clients that leave"),
    ):
        for target, until_seen in (("/public/none", b""), ("/public/half", b"abc")):
            left.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            seen = len(upstream.seen)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await until(lambda seen=seen: len(upstream.seen) > seen, "nothing came")  # type: ignore[misc]
            if until_seen:
                await reader.readuntil(until_seen)
            writer.close()
            async with asyncio.timeout(5):
                await left.wait()
        await until(no_busy_connection(gateway), "an upstream connection is held")
        assert await gateway.metric("gateway_requests_total", code="client_gone") == 2
