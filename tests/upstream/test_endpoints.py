"""Which endpoint gets a request, what a failing one costs, and TLS towards upstreams."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.config.schema import Upstream as UpstreamConfig
from gateway.errors import ConnectFailed, UpstreamTimeout
from gateway.upstream.endpoints import Upstream
from tests.certificates import make_certificate
from tests.upstream.scripted import OK, Client, ScriptedUpstream, Talk, fetch, replying, serving


def _upstream(*urls: str, **config: Any) -> Upstream:
    return Upstream("u", UpstreamConfig(endpoints=urls, **config))


@pytest.mark.parametrize(
    ("url", "name", "authority"),
    [
        ("http://a.test", "a.test:80", b"a.test"),
        ("http://a.test:8080", "a.test:8080", b"a.test:8080"),
        ("http://[::1]:8080", "[::1]:8080", b"[::1]:8080"),
        ("http://[::1]", "[::1]:80", b"[::1]"),
    ],
)
def test_an_endpoint_is_an_origin(url: str, name: str, authority: bytes) -> None:
    """Host and port come from the URL, the port from the scheme where it is left out."""
    endpoint = _upstream(url).endpoints[0]
    assert (endpoint.name, endpoint.authority) == (name, authority)


def test_endpoints_take_turns() -> None:
    """Round robin."""
    upstream = _upstream("http://a:1", "http://b:2", "http://c:3")
    assert [upstream.choose().name for _ in range(6)] == ["a:1", "b:2", "c:3"] * 2


def test_a_failing_endpoint_is_left_out_while_others_live() -> None:
    """It gets no requests during its back-off, and its turn again afterwards."""
    upstream = _upstream("http://a:1", "http://b:2")
    failing = upstream.endpoints[0]
    failing.note_failure(monotonic() + 1000)
    assert {upstream.choose().name for _ in range(4)} == {"b:2"}
    failing.skipped_until = monotonic() - 1
    assert {upstream.choose().name for _ in range(4)} == {"a:1", "b:2"}


def test_when_all_fail_all_are_tried() -> None:
    """A memory of failures never refuses a request by itself."""
    upstream = _upstream("http://a:1", "http://b:2")
    for endpoint in upstream.endpoints:
        endpoint.note_failure(monotonic() + 1000)
    assert {upstream.choose().name for _ in range(4)} == {"a:1", "b:2"}


def test_the_back_off_doubles_to_a_limit_and_ends_with_a_success() -> None:
    """0.5 s, 1 s, 2 s … 10 s."""
    endpoint = _upstream("http://a:1").endpoints[0]
    waits = []
    for _ in range(7):
        endpoint.note_failure(100.0)
        waits.append(endpoint.skipped_until - 100.0)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    endpoint.note_success()
    endpoint.note_failure(100.0)
    assert endpoint.skipped_until == 100.5


@pytest.mark.asyncio
async def test_a_refusing_endpoint_costs_no_request(free_port: Callable[[], int]) -> None:
    """Nothing was sent to it, so even a POST goes to the next endpoint."""
    async with ScriptedUpstream(replying(OK)) as server:
        upstream = _upstream(f"http://127.0.0.1:{free_port()}", server.url)
        client = await fetch(upstream, Client(b"body"), method=b"POST", body_length=4)
        assert client.status == 200
        assert client.exchange.endpoint == f"127.0.0.1:{server.port}"
        assert [endpoint.failures for endpoint in upstream.endpoints] == [1, 0]
        await upstream.close(0)


@pytest.mark.asyncio
async def test_a_name_that_cannot_exist_is_a_failed_connection() -> None:
    """A label too long for DNS is no crash, whatever the resolver raises."""
    with pytest.raises(ConnectFailed):
        await fetch(_upstream("http://" + "a" * 64 + ".invalid:80"))


@pytest.mark.asyncio
async def test_an_endpoint_that_comes_back_is_used_again(free_port: Callable[[], int]) -> None:
    """With one endpoint there is no waiting for a back-off: the next request tries."""
    port = free_port()
    upstream = _upstream(f"http://127.0.0.1:{port}")
    for failures in (1, 2):
        with pytest.raises(ConnectFailed):
            await fetch(upstream)
        assert upstream.endpoints[0].failures == failures
    server = ScriptedUpstream(replying(OK))
    server.port = port
    async with server:
        assert (await fetch(upstream)).status == 200
        assert upstream.endpoints[0].failures == 0
        await upstream.close(0)


@pytest.mark.asyncio
async def test_samples_tell_what_happened(free_port: Callable[[], int]) -> None:
    """Counts and gauges by endpoint, each label set once."""
    async with serving(replying(OK, OK)) as (server, upstream):
        await fetch(upstream)
        await fetch(upstream)
        samples = list(upstream.samples())
        labels = {"upstream": "u", "endpoint": f"127.0.0.1:{server.port}"}
        assert all(sample.labels.items() >= labels.items() for sample in samples)
        values = {(sample.name, sample.labels.get("state")): sample.value for sample in samples}
        assert len(values) == len(samples)
        assert values["gateway_upstream_connections", "idle"] == 1
        assert values["gateway_upstream_connections", "busy"] == 0
        assert values["gateway_upstream_connections_opened_total", None] == 1
        assert values["gateway_upstream_connections_reused_total", None] == 1
        assert values["gateway_upstream_endpoint_up", None] == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and orders.test, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "orders.test")


def _server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("tls", "succeeds"),
    [
        ({}, False),
        ({"ca": True}, True),
        ({"ca": True, "server_name": "orders.test"}, True),
        ({"ca": True, "server_name": "other.test"}, False),
        ({"insecure_skip_verify": True}, True),
    ],
)
async def test_an_https_upstream_is_verified(
    tls: dict[str, Any], succeeds: bool, certificate: tuple[Path, Path]
) -> None:
    """By its authority and its name, unless told otherwise in so many words; connections are kept as with http."""
    settings = {**tls, "ca": certificate[0]} if "ca" in tls else tls
    async with serving(replying(OK, OK), _server_context(certificate), tls=settings) as (server, upstream):
        if succeeds:
            for _ in range(2):
                assert (await fetch(upstream)).body == b"ok"
            assert server.connections == 1
        else:
            with pytest.raises(ConnectFailed):
                await fetch(upstream)
            assert upstream.endpoints[0].pool.open_connections == 0


@pytest.mark.asyncio
async def test_a_large_body_comes_through_tls_whole(certificate: tuple[Path, Path]) -> None:
    """Megabytes over TLS arrive byte for byte."""
    body = bytes(range(256)) * (4 * 2**20 // 256)

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await talk.closed()

    async with serving(script, _server_context(certificate), tls={"ca": certificate[0]}) as (_, upstream):
        assert (await fetch(upstream)).body == body


@pytest.mark.asyncio
async def test_an_endpoint_that_accepts_and_says_nothing_in_tls_is_a_timeout(certificate: tuple[Path, Path]) -> None:
    """The connect timeout covers the handshake."""

    async def silent(talk: Talk) -> None:
        await talk.closed()

    async with ScriptedUpstream(silent) as server:
        upstream = _upstream(
            f"https://127.0.0.1:{server.port}", tls={"ca": certificate[0]}, timeouts={"connect": "100ms"}
        )
        with pytest.raises(UpstreamTimeout):
            await fetch(upstream)
        await upstream.close(0)


@pytest.mark.asyncio
async def test_run_closes_idle_connections_and_ends_by_cancellation() -> None:
    """`run` is the one who ages idle connections."""
    async with serving(replying(OK), pool={"idle": "1ms"}) as (_, upstream):
        task = asyncio.create_task(upstream.run())
        await fetch(upstream)
        while upstream.endpoints[0].pool.open_connections:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
