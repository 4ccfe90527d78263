"""Keys stay fresh, survive every failure of their server, and are asked for no more often than agreed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.config.schema import Issuer
from gateway.errors import KeysUnavailable
from gateway.keys.source import Clock, KeySource, RefreshedKeys, build_key_source, build_transmitter_keys
from tests.keys.key_server import KeyServer, answer, key_server
from tests.tokens.mint import NOW, SECRET, claims, header, key_set_document, rules, signed, verifier

pytestmark = pytest.mark.asyncio


class HandWound:
    """A clock that stands still until it is wound, and sleepers that wake when their time has come."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self.clock = Clock(monotonic=lambda: self.now, sleep=self._sleep, chance=lambda: 0.0)

    async def _sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now + seconds, woken))
        await woken.wait()

    def wind(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for at, woken in self._sleepers:
            if at <= self.now:
                woken.set()
        self._sleepers = [(at, woken) for at, woken in self._sleepers if at > self.now]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[KeyServer]:
    """A key server with one key at `/jwks.json`."""
    async with key_server() as site:
        site.answers["/jwks.json"] = answer(key_set_document("p256"))
        yield site


@pytest.fixture
def time_() -> HandWound:
    """Time, wound by hand."""
    return HandWound()


def remote(server: KeyServer, time_: HandWound | None = None, **settings: Any) -> RefreshedKeys:
    """The keys of an issuer whose `jwks_uri` is the server's."""
    yaml = {"issuer": "https://issuer.example", "audience": ["api"], "algorithms": ["ES256", "RS256"]}
    yaml |= {"jwks_uri": server.url + "/jwks.json", **settings}
    source = build_key_source("main", Issuer.model_validate(yaml), clock=time_.clock if time_ else None)
    assert isinstance(source, RefreshedKeys)
    return source


def kids(source: KeySource) -> set[str | None]:
    """The names of the keys at hand."""
    return {key.kid for key in source.key_set.keys} if source.key_set else set()


async def until(holds: Callable[[], bool]) -> None:
    """Gives others their turn until something holds; the deadline is the test's own failure."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def running(source: KeySource) -> asyncio.Task[None]:
    """Starts `run()`."""
    return asyncio.create_task(source.run())


async def stopped(task: asyncio.Task[None]) -> None:
    """Ends `run()` as the gateway does, and tells if it had ended by itself."""
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_keys_are_loaded_before_they_are_asked_for(server: KeyServer, time_: HandWound) -> None:
    """`run()` loads at once; a known key then costs no request."""
    source = remote(server, time_)
    assert source.health() == (False, "no keys: not loaded yet")
    task = await running(source)
    await until(lambda: source.key_set is not None)
    assert [key.kid for key in await source.find("p256", "ES256")] == ["p256"]
    assert server.requests == ["/jwks.json"]
    assert source.health() == (True, "1 keys, loaded 0 s ago")
    await stopped(task)


async def test_the_request_asks_for_nothing_but_the_document(server: KeyServer) -> None:
    """No content coding is offered, no cookie or credential is sent, and the environment's proxy is not used."""
    source = remote(server)
    await source.find("p256", "ES256")
    head = server.heads[0].lower()
    assert "accept-encoding: identity" in head
    assert "cookie" not in head
    assert "authorization" not in head


async def test_the_environment_has_no_say(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    source = remote(server)
    assert await source.find("p256", "ES256")


async def test_one_fetch_for_everyone_who_waits(server: KeyServer, time_: HandWound) -> None:
    """An unknown key id triggers one fetch, however many requests are waiting, and all of them get its answer."""
    server.open.clear()
    source = remote(server, time_)
    waiting = [asyncio.create_task(source.find("p256", "ES256")) for _ in range(200)]
    await until(lambda: bool(server.requests))
    server.open.set()
    assert all(len(keys) == 1 for keys in await asyncio.gather(*waiting))
    assert server.requests == ["/jwks.json"]


async def test_a_storm_of_unknown_keys_is_one_fetch(server: KeyServer, time_: HandWound) -> None:
    """After the first, unknown key ids cause no fetch until the cooldown is over, whatever they are called."""
    source = remote(server, time_, cooldown="10s")
    await source.find("p256", "ES256")
    server.requests.clear()
    time_.wind(10)
    for number in range(300):
        assert await source.find(f"unknown-{number}", "ES256") == ()
    assert len(server.requests) == 1
    time_.wind(9.9)
    assert await source.find("unknown", "ES256") == ()
    assert len(server.requests) == 1
    time_.wind(0.1)
    assert await source.find("unknown", "ES256") == ()
    assert len(server.requests) == 2


async def test_the_cooldown_counts_from_the_attempt(server: KeyServer, time_: HandWound) -> None:
    """A fetch that took eight of ten seconds leaves two to wait, not ten."""
    source = remote(server, time_, cooldown="10s")
    server.open.clear()
    first = asyncio.create_task(source.find("p256", "ES256"))
    await until(lambda: bool(server.requests))
    time_.wind(8)
    server.open.set()
    await first
    await source.find("unknown", "ES256")
    assert len(server.requests) == 1
    time_.wind(2)
    await source.find("unknown", "ES256")
    assert len(server.requests) == 2


async def test_a_key_that_appears_after_a_scheduled_refresh_is_found(server: KeyServer, time_: HandWound) -> None:
    """A scheduled refresh starts no cooldown, so a rotation right after it fails no request."""
    source = remote(server, time_)
    task = await running(source)
    await until(lambda: source.key_set is not None)
    server.answers["/jwks.json"] = answer(key_set_document("p256", "p256-next"))
    assert [key.kid for key in await source.find("p256-next", "ES256")] == ["p256-next"]
    await stopped(task)


async def test_a_load_that_began_too_early_is_followed_by_another(server: KeyServer, time_: HandWound) -> None:
    """Requests that join a scheduled load which does not bring their key get one more load, shared by all of them."""
    source = remote(server, time_)
    server.open.clear()
    task = await running(source)
    await until(lambda: len(server.requests) == 1)
    waiting = [asyncio.create_task(source.find("p256-next", "ES256")) for _ in range(50)]
    await asyncio.sleep(0)

    async def stale(writer: asyncio.StreamWriter) -> None:
        server.answers["/jwks.json"] = answer(key_set_document("p256-next"))
        writer.write(answer(key_set_document("p256")))

    server.answers["/jwks.json"] = stale
    server.open.set()
    assert [len(keys) for keys in await asyncio.gather(*waiting)] == [1] * 50
    assert len(server.requests) == 2
    await stopped(task)


async def test_a_key_at_hand_is_not_sought_under_another_algorithm(server: KeyServer, time_: HandWound) -> None:
    """A token that names a known key and an algorithm that the key is not for causes no fetch."""
    source = remote(server, time_)
    await source.find("p256", "ES256")
    time_.wind(1_000)
    assert await source.find("p256", "RS256") == ()
    assert len(server.requests) == 1


async def test_a_waiter_that_goes_away_does_not_end_the_fetch(server: KeyServer, time_: HandWound) -> None:
    """The request that started a fetch is cancelled; the one that waits beside it still gets its key."""
    server.open.clear()
    source = remote(server, time_)
    first = asyncio.create_task(source.find("p256", "ES256"))
    await until(lambda: bool(server.requests))
    second = asyncio.create_task(source.find("p256", "ES256"))
    await asyncio.sleep(0)
    first.cancel()
    server.open.set()
    assert len(await second) == 1
    assert first.cancelled()
    assert len(server.requests) == 1


async def drip(writer: asyncio.StreamWriter) -> None:
    """A head, and then an octet now and again, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(writer: asyncio.StreamWriter) -> None:
    """A document without end."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def silence(writer: asyncio.StreamWriter) -> None:
    """No answer."""
    await asyncio.Event().wait()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """The end in the middle of the document."""
    writer.write(answer(key_set_document("p256"))[:-20])


GOOD = key_set_document("p256-next")
FAILURES: list[tuple[str, bytes | Callable[[asyncio.StreamWriter], Awaitable[None]], str]] = [
    ("silent", silence, "no complete answer within 0.2 s"),
    ("slow", drip, "no complete answer within 0.2 s"),
    ("endless", flood, "more than 1 MiB"),
    ("huge", answer(b" " * (2**20 + 1) + GOOD), "more than 1 MiB"),
    ("cut off", hang_up, "RemoteProtocolError"),
    ("not HTTP", b"SSH-2.0-OpenSSH_9\r\n", "RemoteProtocolError"),
    ("empty", answer(b""), "not JSON"),
    ("HTML", answer(b"<html>sign in</html>"), "not JSON"),
    ("a list", answer(b"[]"), "not a JSON object"),
    ("no keys member", answer(b"{}"), "no `keys` list"),
    ("keys no list", answer(b'{"keys": {}}'), "no `keys` list"),
    ("no keys at all", answer(b'{"keys": []}'), "no key in it can be used"),
    ("nothing usable", answer(b'{"keys": [{"kty": "oct", "k": "AAAA"}, 7]}'), "no key in it can be used"),
    ("keys twice", answer(b'{"keys": [], ' + GOOD[1:]), "duplicate member"),
    ("compressed", answer(GOOD, headers="content-encoding: gzip\r\n"), "content coding"),
    ("redirect", answer(b"", status="302 Found", headers="location: /elsewhere\r\n"), "redirects are not followed"),
    ("created", answer(GOOD, status="201 Created"), "answered 201"),
    ("server error", answer(GOOD, status="500 Internal Server Error"), "answered 500"),
    ("unauthorized", answer(GOOD, status="401 Unauthorized"), "answered 401"),
]


@pytest.mark.parametrize(("bad", "reason"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
async def test_a_failed_refresh_keeps_the_last_good_keys(
    bad: Any, reason: str, server: KeyServer, time_: HandWound, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the server answers instead of a key set, the keys stay, health and log say why, and it recovers."""
    caplog.set_level(logging.INFO, "gateway.keys")
    source = remote(server, time_, timeout="200ms", cooldown="1s")
    if bad not in (silence, drip):
        source = remote(server, time_, cooldown="1s")
    server.answers |= {"/jwks.json": bad, "/elsewhere": answer(GOOD)}
    with pytest.raises(KeysUnavailable) as unavailable:
        await source.find("p256", "ES256")
    assert reason in str(unavailable.value.cause)
    server.answers["/jwks.json"] = answer(key_set_document("p256"))
    time_.wind(1)
    assert await source.find("p256", "ES256")
    server.answers["/jwks.json"] = bad
    time_.wind(1)
    assert await source.find("p256-next", "ES256") == ()
    assert kids(source) == {"p256"}
    well, text = source.health()
    assert not well
    assert reason in text
    assert reason in caplog.text
    assert "/elsewhere" not in server.requests
    server.answers["/jwks.json"] = answer(GOOD)
    time_.wind(1)
    assert await source.find("p256-next", "ES256")
    assert kids(source) == {"p256-next"}
    assert source.health()[0]


async def test_a_server_that_is_down(time_: HandWound) -> None:
    """With the server down there are no keys, a 503 at once during the cooldown, and keys when it comes up."""
    async with key_server() as server:
        source = remote(server, time_, cooldown="5s")
    with pytest.raises(KeysUnavailable, match="try again"):
        await source.find("p256", "ES256")
    started = time.perf_counter()
    for _ in range(100):
        with pytest.raises(KeysUnavailable) as caught:
            await source.find("p256", "ES256")
    assert time.perf_counter() - started < 5  # no attempt each: that would be refused connections at best
    assert "ConnectError" in str(caught.value.cause)
    failed = {sample.labels.get("outcome"): sample.value for sample in source.samples()}
    assert failed["failed"] == 1


async def test_keys_are_refreshed_ahead(server: KeyServer, time_: HandWound) -> None:
    """The next load comes at 80 % of the lifetime, before anything expires, and takes withdrawn keys away."""
    source = remote(server, time_, refresh="100s")
    task = await running(source)
    await until(lambda: kids(source) == {"p256"})
    server.answers["/jwks.json"] = answer(key_set_document("p256-next"))
    for _ in range(20):
        time_.wind(3.9)
        await asyncio.sleep(0)
    assert len(server.requests) == 1
    for _ in range(4):
        time_.wind(5)
        await asyncio.sleep(0)
    await until(lambda: kids(source) == {"p256-next"})
    assert len(server.requests) == 2
    await stopped(task)


@pytest.mark.parametrize(
    ("headers", "lifetime_s"),
    [
        ("", 300),
        ("cache-control: no-cache\r\n", 300),
        ("cache-control: public, max-age=1000\r\n", 1_000),
        ("cache-control: Max-Age=1000\r\n", 1_000),
        ('cache-control: max-age="1000"\r\n', 1_000),
        ("cache-control: max-age=1000\r\nage: 400\r\n", 600),
        ("cache-control: max-age=0\r\n", 30),
        ("cache-control: max-age=1000\r\nage: 5000\r\n", 30),
        ("cache-control: max-age=31536000\r\n", 86_400),
        (f"cache-control: max-age={'9' * 40}\r\n", 86_400),
        ("cache-control: max-age=-5\r\n", 300),
        ("cache-control: max-age=soon\r\n", 300),
        ("cache-control: s-maxage=5\r\n", 300),
    ],
)
async def test_the_lifetime_is_the_servers_within_bounds(
    headers: str, lifetime_s: float, server: KeyServer, time_: HandWound
) -> None:
    """`max-age` less `Age` says when to load again, between 30 seconds and a day; else the configuration does."""
    server.answers["/jwks.json"] = answer(key_set_document("p256"), headers=headers)
    source = remote(server, time_)
    await source.find("p256", "ES256")
    assert source._due_at - time_.now == pytest.approx(lifetime_s * 0.8)


async def test_failures_are_tried_again_less_and_less_often(server: KeyServer, time_: HandWound) -> None:
    """After a failure the waits double up to a minute, with chance between half and the whole."""
    server.answers["/jwks.json"] = answer(b"", status="503 Service Unavailable")
    source = remote(server, time_, cooldown="0s")
    waits = []
    for _ in range(9):
        with pytest.raises(KeysUnavailable):
            await source.find("p256", "ES256")
        waits.append(2 * (source._due_at - time_.now))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    server.answers["/jwks.json"] = answer(key_set_document("p256"))
    await source.find("p256", "ES256")
    server.answers["/jwks.json"] = answer(b"", status="503 Service Unavailable")
    await source.find("unknown", "ES256")
    assert 2 * (source._due_at - time_.now) == 1


async def test_run_recovers_by_itself(server: KeyServer, time_: HandWound) -> None:
    """A server that is down at the start is tried again without any request."""
    good = server.answers["/jwks.json"]
    server.answers["/jwks.json"] = answer(b"", status="503 Service Unavailable")
    source = remote(server, time_)
    task = await running(source)
    await until(lambda: "503" in source.health()[1])
    server.answers["/jwks.json"] = good
    time_.wind(1)
    await until(lambda: source.key_set is not None)
    await stopped(task)


async def test_an_outage_is_one_line_in_the_log(
    server: KeyServer, time_: HandWound, caplog: pytest.LogCaptureFixture
) -> None:
    """The same failure again is counted and not written again."""
    server.answers["/jwks.json"] = answer(b"", status="503 Service Unavailable")
    source = remote(server, time_, cooldown="0s")
    for _ in range(5):
        with pytest.raises(KeysUnavailable):
            await source.find("p256", "ES256")
    assert [record.levelname for record in caplog.records if record.name == "gateway.keys"] == ["WARNING"]


async def test_a_fault_of_our_own_is_survived(
    server: KeyServer, time_: HandWound, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody expected ends neither `run()` nor the keys at hand, and is in the log."""
    source = remote(server, time_)
    task = await running(source)
    await until(lambda: source.key_set is not None)

    async def broken() -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(source._origin, "load", broken)
    assert await source.find("unknown", "ES256") == ()
    assert source.health() == (False, "1 keys, loaded 0 s ago; last load failed: RuntimeError in the gateway")
    assert "not foreseen" in caplog.text
    await stopped(task)


async def test_stopping_ends_the_fetch(server: KeyServer, time_: HandWound) -> None:
    """A cancelled `run()` leaves no task behind, even in the middle of a fetch."""
    server.open.clear()
    source = remote(server, time_)
    task = await running(source)
    await until(lambda: bool(server.requests))
    await stopped(task)
    await until(lambda: source._flight is None)
    assert source.key_set is None


async def test_numbers(server: KeyServer, time_: HandWound) -> None:
    """Keys, their age and the outcome of the loads are told to a scrape."""
    source = remote(server, time_, cooldown="0s")
    await source.find("p256", "ES256")
    server.answers["/jwks.json"] = answer(b"")
    await source.find("unknown", "ES256")
    time_.wind(7)
    told = {(sample.name, sample.labels.get("outcome", "")): sample.value for sample in source.samples()}
    assert told == {
        ("gateway_keys", ""): 1,
        ("gateway_keys_loads_total", "ok"): 1,
        ("gateway_keys_loads_total", "failed"): 1,
        ("gateway_keys_age_seconds", ""): 7,
    }
    assert {sample.labels["issuer"] for sample in source.samples()} == {"main"}


async def test_a_rotation_kills_remembered_tokens(server: KeyServer, time_: HandWound) -> None:
    """A token that was verified and remembered is refused once its key has left the key set."""
    source = remote(server, time_, refresh="100s", cooldown="0s")
    gate = verifier(rules(source))
    raw, next_raw = signed(header(), claims()), signed(header(kid="p256-next"), claims(), "p256-next")
    token = await gate.verify(raw, NOW)
    server.answers["/jwks.json"] = answer(key_set_document("p256", "p256-next"))
    await gate.verify(next_raw, NOW)  # the new key is published: the old one still counts
    assert gate.recall(raw, NOW) is token
    server.answers["/jwks.json"] = answer(key_set_document("p256-next"))
    await source.find("unknown", "ES256")
    assert gate.recall(raw, NOW) is None
    assert gate.recall(next_raw, NOW) is not None


async def test_the_loop_is_free_while_a_large_set_is_read(server: KeyServer) -> None:
    """A hundred RSA keys are read in a thread: others have their turn meanwhile."""
    entry = json.loads(key_set_document("rsa"))["keys"][0]
    many = {"keys": [entry | {"kid": f"rsa-{number}", "x5c": ["A" * 2_000]} for number in range(150)]}
    server.answers["/jwks.json"] = answer(json.dumps(many).encode())
    source = remote(server)
    loading = asyncio.create_task(source.find("rsa-0", "RS256"))
    turns = 0
    while not loading.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await loading) == 1
    assert turns > 10
    assert len(kids(source)) == 100


# --- discovery -------------------------------------------------------------------------------------------------------


def discovering(server: KeyServer, path: str = "", **settings: Any) -> RefreshedKeys:
    """The keys of an issuer below the server, without a `jwks_uri`."""
    yaml = {"issuer": server.url + path, "audience": ["api"], "algorithms": ["ES256"], **settings}
    source = build_key_source("main", Issuer.model_validate(yaml))
    assert isinstance(source, RefreshedKeys)
    return source


def metadata(server: KeyServer, path: str = "", **changes: Any) -> bytes:
    """What the issuer says about itself."""
    return answer(json.dumps({"issuer": server.url + path, "jwks_uri": server.url + "/jwks.json"} | changes).encode())


@pytest.mark.parametrize("path", ["", "/", "/tenant", "/tenant/"])
async def test_openid_discovery(path: str, server: KeyServer) -> None:
    """Without `jwks_uri` the keys are found through the OpenID document below the issuer."""
    server.answers[path.rstrip("/") + "/.well-known/openid-configuration"] = metadata(server, path)
    assert await discovering(server, path).find("p256", "ES256")
    assert len(server.requests) == 2


@pytest.mark.parametrize("path", ["", "/tenant"])
async def test_oauth_discovery(path: str, server: KeyServer) -> None:
    """Where there is no OpenID document, RFC 8414's is asked for."""
    server.answers["/.well-known/oauth-authorization-server" + path] = metadata(server, path)
    assert await discovering(server, path).find("p256", "ES256")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": "https://forger.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "not an http(s) address"),
        ({"jwks_uri": "jwks.json"}, "not an http(s) address"),
        ({"jwks_uri": "http://a@127.0.0.1/"}, "not an http(s) address"),
    ],
)
async def test_discovery_refuses(changes: dict[str, Any], reason: str, server: KeyServer) -> None:
    """Metadata of another issuer, or without a usable address, is refused, and no other document is asked for."""
    server.answers["/.well-known/openid-configuration"] = metadata(server, **changes)
    source = discovering(server)
    with pytest.raises(KeysUnavailable) as caught:
        await source.find("p256", "ES256")
    assert reason in str(caught.value.cause)
    assert server.requests == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("path", ["", "/tenant"])
async def test_a_transmitters_keys(path: str, server: KeyServer) -> None:
    """Found by its own metadata, or its own `jwks_uri`; without either it signs with the keys of tokens."""
    server.answers["/.well-known/ssf-configuration" + path] = metadata(server, path)
    discovered = transmitter(discovery=True, issuer=server.url + path)
    assert discovered is not None
    assert await discovered.find("p256", "ES256")
    assert server.requests == ["/.well-known/ssf-configuration" + path, "/jwks.json"]
    named = transmitter(jwks_uri=f"{server.url}/jwks.json")
    assert named is not None
    assert await named.find("p256", "ES256")
    other = transmitter(jwks_uri=f"{server.url}/jwks.json", algorithms=["RS256"])
    assert other is not None
    with pytest.raises(KeysUnavailable):  # its key set has nothing that its algorithms can use
        await other.find("p256", "ES256")
    assert transmitter() is None


def transmitter(**signals: Any) -> KeySource | None:
    """The keys of a transmitter beside an issuer of ES256 tokens."""
    yaml = {
        "issuer": "https://issuer.example",
        "audience": ["api"],
        "algorithms": ["ES256"],
        "revocation": {"shared_signals": {"audience": ["https://gateway.example"], **signals}},
    }
    return build_transmitter_keys("main", Issuer.model_validate(yaml))


async def test_nothing_to_discover(server: KeyServer) -> None:
    """An issuer that publishes nothing has no keys, and both addresses were tried."""
    source = discovering(server)
    with pytest.raises(KeysUnavailable) as caught:
        await source.find("p256", "ES256")
    assert "answered 404" in str(caught.value.cause)
    assert len(server.requests) == 2


# --- files and secrets -----------------------------------------------------------------------------------------------


def from_file(path: Path, time_: HandWound) -> RefreshedKeys:
    """The keys of an issuer whose `jwks_file` is that."""
    yaml = {"issuer": "https://issuer.example", "audience": ["api"], "algorithms": ["ES256"], "jwks_file": path}
    source = build_key_source("main", Issuer.model_validate(yaml), clock=time_.clock)
    assert isinstance(source, RefreshedKeys)
    return source


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, time_: HandWound) -> None:
    """A rewritten file, and a swapped symbolic link, show within a second; a broken file changes nothing."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_bytes(key_set_document("p256"))
    second.write_bytes(key_set_document("p256-next"))
    link = tmp_path / "jwks.json"
    link.symlink_to(first)
    source = from_file(link, time_)
    task = await running(source)
    await until(lambda: kids(source) == {"p256"})
    (tmp_path / "new").symlink_to(second)
    (tmp_path / "new").rename(link)
    time_.wind(1)
    await until(lambda: kids(source) == {"p256-next"})
    second.write_bytes(b'{"keys": [')
    time_.wind(1)
    await until(lambda: not source.health()[0])
    assert kids(source) == {"p256-next"}
    second.write_bytes(key_set_document("p256"))
    time_.wind(1)
    await until(lambda: kids(source) == {"p256"})
    second.unlink()
    time_.wind(1)
    await until(lambda: "No such file" in source.health()[1])
    assert kids(source) == {"p256"}
    await stopped(task)


async def test_a_file_that_is_too_large(tmp_path: Path, time_: HandWound) -> None:
    """A file beyond the bound is refused before it is parsed."""
    path = tmp_path / "jwks.json"
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(KeysUnavailable) as caught:
        await from_file(path, time_).find("p256", "ES256")
    assert "larger than 1 MiB" in str(caught.value.cause)


async def test_a_shared_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret verifies its own algorithms under any key id, is always well, and shows in no representation."""
    yaml = {"issuer": "https://issuer.example", "audience": ["api"], "algorithms": ["HS256"], "secret": SECRET.decode()}
    source = build_key_source("main", Issuer.model_validate(yaml))
    (key,) = await source.find("any", "HS256")
    assert source.known(None, "HS256") == (key,)
    assert source.known(None, "HS512") == ()
    assert source.known(None, "RS256") == ()
    assert source.health()[0]
    assert list(source.samples()) == []
    assert SECRET.decode() not in repr(source) + repr(key) + repr(source.key_set)
    task = await running(source)
    await asyncio.sleep(0)
    await stopped(task)


async def test_a_certificate_file_that_is_missing(server: KeyServer, tmp_path: Path) -> None:
    """A `ca` that cannot be read means no keys and a reason, not a crash."""
    source = remote(server, ca=tmp_path / "missing.pem")
    with pytest.raises(KeysUnavailable) as caught:
        await source.find("p256", "ES256")
    assert "FileNotFoundError" in str(caught.value.cause)
