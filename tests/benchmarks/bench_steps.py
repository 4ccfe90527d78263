"""What each step of the pipeline costs by itself, so that a slow one is found by name.

Its name keeps it out of the test run; `make bench` shows its medians, and by hand it is
``pytest tests/benchmarks/bench_steps.py --benchmark-enable --benchmark-columns=median,ops -p no:randomly``.

All steps work on the same request, route and token as the works do, built by the gateway's own loader from the
configuration that the works use. Each asserts its answer once, so that a step that fails fast cannot look fast.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gateway.config import schema
from gateway.config.load import load
from gateway.denylist.replica import Replica
from gateway.errors import TokenInvalid
from gateway.generation import Generation, Surroundings, build
from gateway.pipeline import Route
from gateway.server.plain_head import PlainHeads
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.metrics import RequestMetrics
from gateway.tokens.bearer import find_token
from gateway.tokens.cache import TokenCache
from gateway.tokens.claims import Token, parse_compact, parse_unverified_claims
from gateway.tokens.verifier import IssuerRules, Verifier, check_route
from gateway.upstream.headers import request_id, response_lines
from gateway.upstream.peer import Peer, Peers
from gateway.upstream.request import UpstreamRequest, render_head
from gateway.upstream.response import parse_head
from tests.benchmarks import load as wire
from tests.benchmarks import tokens
from tests.benchmarks.peers.gateway import config_text
from tests.benchmarks.peers.peer import Setting
from tests.benchmarks.provision import Programs
from tests.benchmarks.tokens import Algorithm

_ENTRIES = 10_000
_HOST = b"127.0.0.1:8080"
_PATH = wire.TARGET.partition("?")[0].encode()
_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 110\r\nConnection: keep-alive\r\n\r\n"
)


@dataclass(frozen=True)
class Scene:
    """A gateway's generation, and one request half-way through it."""

    generation: Generation
    replica: Replica
    peers: Peers
    route: Route
    raw: bytes
    token: Token
    headers: list[tuple[bytes, bytes]]
    peer: Peer


def _scene(directory: Path, algorithm: Algorithm) -> Scene:
    setting = Setting(
        programs=Programs(),
        directory=directory,
        port=8080,
        admin_port=9901,
        upstream_port=9001,
        keys=tokens.key_files(algorithm),
        denylist_store="redis://127.0.0.1:6379/0",  # only the replica takes part; nothing connects
    )
    config = load(setting.write("gateway.yaml", config_text(setting)))
    replica = Replica()
    for number in range(_ENTRIES):
        replica.put(f"token:main:{hashlib.sha256(b'%d' % number).hexdigest()[:22]}", "1", time.time() + 86_400)
    peers = Peers(())
    generation = build(config, Surroundings(replica, peers, lambda exchange: None), None)
    asyncio.run(generation.warm(None))
    raw = tokens.first_token(tokens.token_file(algorithm, "warm", tokens.WARM_TOKENS)).encode()
    headers = [
        (b"host", _HOST),
        (b"authorization", b"Bearer " + raw),
        (b"user-agent", b"shop/4.2.0"),
        (b"accept", b"application/json"),
    ]
    return Scene(
        generation=generation,
        replica=replica,
        peers=peers,
        route=generation.pipeline.routes.match("GET", _HOST, _PATH),
        raw=raw,
        token=asyncio.run(generation.verifier.verify(raw, time.time())),
        headers=headers,
        peer=peers.resolve("127.0.0.1", "http", _HOST, 8080, headers),
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The scene with ES256."""
    return _scene(tmp_path_factory.mktemp("gateway"), "ES256")


def test_resolve_peer(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Who asks, and through whom."""
    resolved = benchmark(scene.peers.resolve, "127.0.0.1", "http", _HOST, 8080, scene.headers)
    assert resolved.client_ip == "127.0.0.1"


def test_request_id(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """A new request id."""
    assert benchmark(request_id, scene.headers, False)


def test_head(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 0: reading an ordinary head."""
    lines = (b"host: %b\r\n" % _HOST, b"authorization: Bearer %b\r\n" % scene.raw, b"user-agent: shop/4.2.0\r\n")
    data = b"GET %b HTTP/1.1\r\n%b\r\n" % (wire.TARGET.encode(), b"".join(lines))
    assert benchmark(PlainHeads().read, data).method == "GET"


def test_match(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 3: the route."""
    assert benchmark(scene.generation.pipeline.routes.match, "GET", _HOST, _PATH) is scene.route


def test_credential(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 4: where the token stands."""
    assert benchmark(find_token, scene.headers, b"expand=items", scene.route.sources) == scene.raw


def test_verify_remembered(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 5 for a token whose signature is remembered."""
    assert benchmark(scene.generation.verifier.recall, scene.raw, time.time()) is scene.token


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_verify_new(benchmark: BenchmarkFixture, tmp_path: Path, algorithm: Algorithm) -> None:
    """Step 5 for a token not seen before: strict reading, key, signature."""
    scene = _scene(tmp_path, algorithm)
    config = scene.generation.config
    rules = [IssuerRules.of(name, issuer, scene.generation.keys[name]) for name, issuer in config.issuers.items()]
    forgetful = Verifier(rules, TokenCache())

    def verify() -> Token:
        forgetful.cache.forget(scene.raw)
        step = forgetful.verify(scene.raw, now)
        try:
            step.send(None)  # the key is there: it waits for the end of the turn alone
            forgetful.signatures.settle()
            step.send(None)
        except StopIteration as end:
            token: Token = end.value
            return token
        raise AssertionError("the verifier waited for a key")

    async def measure() -> Token:
        verified: Token = benchmark(verify)
        return verified

    now = time.time()
    assert asyncio.run(measure()).subject == "user-0"
    with pytest.raises(TokenInvalid):
        asyncio.run(forgetful.verify(scene.raw[:-8] + b"AAAAAAAA", now))


def test_read_strictly(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """The part of step 5 that reads header and claims."""

    def read() -> dict[str, object]:
        return parse_unverified_claims(parse_compact(scene.raw))

    assert benchmark(read)["sub"] == "user-0"


def test_check_route(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """The route's own issuers and audience."""
    benchmark(check_route, scene.token, scene.route.issuers, scene.route.audience)


@pytest.fixture
def find(scene: Scene) -> Callable[[], str | None]:
    """The denylist's question about the scene's token."""
    token, replica, now = scene.token, scene.replica, time.time()

    def ask() -> str | None:
        return replica.find(
            *(token.issuer, token.token_id, token.session_id, token.subject, token.client_id, token.kid),
            token.issued_at,
            now,
        )

    return ask


def test_denylist(benchmark: BenchmarkFixture, scene: Scene, find: Callable[[], str | None]) -> None:
    """Step 6 against 10,000 entries, none of which names the token."""
    assert benchmark(find) is None
    key = f"token:main:{scene.token.token_id}"
    scene.replica.put(key, "1", time.time() + 60)
    assert find() == "token"
    scene.replica.remove(key)


def test_authorize(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 7: scopes."""
    assert benchmark(scene.route.policy.authorize, scene.token).token is scene.token


def test_identify(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 8: identity headers of a token seen before."""
    lines = benchmark(scene.route.identity.lines, scene.route.policy.authorize(scene.token))
    assert b"x-user-id: user-0\r\n" in lines


def test_request_headers(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 10: the header list for the upstream."""
    identity = scene.route.identity.lines(scene.route.policy.authorize(scene.token))
    built = benchmark(
        scene.route.headers.build, scene.headers, identity, scene.peer, request_id(scene.headers, False), "1.1"
    )
    passed, ours = built
    assert b"x-user-id: user-0\r\n" in ours
    assert b"authorization" not in dict(passed)


def test_request_head(benchmark: BenchmarkFixture, scene: Scene) -> None:
    """Step 10: the request's head as bytes."""
    identity = scene.route.identity.lines(scene.route.policy.authorize(scene.token))
    identifier = request_id(scene.headers, False)
    passed, ours = scene.route.headers.build(scene.headers, identity, scene.peer, identifier, "1.1")
    request = UpstreamRequest(
        method=b"GET",
        target=wire.TARGET.encode(),
        host=_HOST,
        headers=passed,
        lines=ours,
        request_id=identifier,
        body_length=-1,
        body_limit=scene.route.body_limit,
        head_timeout_s=scene.route.head_timeout_s,
        idle_timeout_s=scene.route.idle_timeout_s,
    )
    assert benchmark(render_head, request, _HOST).startswith(b"GET /api/orders/42?expand=items HTTP/1.1\r\n")


def test_response_head(benchmark: BenchmarkFixture) -> None:
    """Step 10: reading the upstream's head."""
    head = benchmark(parse_head, _RESPONSE, False)
    assert (head.status, head.body_length) == (200, 110)


def test_response_headers(benchmark: BenchmarkFixture) -> None:
    """Step 10: the header lines for the client."""
    head = parse_head(_RESPONSE, False)
    assert head is not None
    assert (b"content-type", b"application/json") in list(benchmark(response_lines, head, b"id"))


@pytest.fixture
def exchange(scene: Scene) -> Exchange:
    """A record that has ended well."""
    return Exchange(
        started=0.0,
        method="GET",
        host=_HOST.decode(),
        path=_PATH.decode(),
        client="127.0.0.1",
        request_id="0123456789abcdef",
        route="api",
        status=200,
        issuer="main",
        subject=scene.token.subject or "",
        token_id=scene.token.token_id or "",
        upstream="orders",
        endpoint="127.0.0.1:9001",
        bytes_out=110,
        connect_s=0.0,
        head_s=0.0004,
        duration_s=0.0005,
        token_cached=True,
    )


def test_log_line(benchmark: BenchmarkFixture, exchange: Exchange, tmp_path: Path) -> None:
    """Step 11: one line of the access log."""
    log = AccessLog(schema.AccessLog(destination=str(tmp_path / "access.log")), b"key")
    assert '"route":"api"' in benchmark(log.render, exchange, time.time())


def test_metrics(benchmark: BenchmarkFixture, exchange: Exchange) -> None:
    """Step 11: the request's metrics."""
    metrics = RequestMetrics()
    benchmark(metrics.record, exchange)
    assert any(sample.value for sample in metrics.samples())
