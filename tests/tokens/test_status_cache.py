"""The status lists of an issuer: when they are fetched, how long they count, and what no list means."""

from __future__ import annotations

import asyncio
import logging
import zlib
from typing import Any

import pytest

from gateway.config.schema import Issuer
from gateway.errors import GatewayError, StatusUnavailable, TokenInvalid, TokenRevoked
from gateway.keys.origin import Document, OriginFailed
from gateway.keys.remote import Fetcher
from gateway.keys.source import Clock
from gateway.tokens.claims import Token, UnverifiedHeader, read_token
from gateway.tokens.statement import StatementRules
from gateway.tokens.status_cache import StatusLists
from tests.keys.key_server import answer, key_server
from tests.tokens.mint import ISSUER, NOW, KeysAtHand, NoKeys, base64url, claims, header, key_set, signed

pytestmark = pytest.mark.asyncio

URI = f"{ISSUER}/status/1"


def list_token(octets: bytes = b"\x02", *, bits: int = 1, kid: str = "p256", **changes: Any) -> bytes:
    """A Status List Token in which token 1 is revoked; a change to `...` leaves a claim out."""
    lst = base64url(zlib.compress(octets)).decode()
    payload = {"sub": URI, "iat": int(NOW), "ttl": 100, "status_list": {"bits": bits, "lst": lst}, **changes}
    payload = {name: value for name, value in payload.items() if value is not ...}
    return signed(header(typ="statuslist+jwt", kid=kid), payload, kid)


def token(index: int = 0, uri: str = URI) -> Token:
    """A verified token that refers to its status."""
    return read_token(
        "main",
        UnverifiedHeader("ES256", "p256", "at+jwt"),
        claims(status={"status_list": {"idx": index, "uri": uri}}),
    )


class Site(Fetcher):
    """Where lists come from: an answer, or a failure; each fetch is noted, and waits while the gate is closed."""

    def __init__(self) -> None:
        super().__init__(timeout_s=1.0)
        self.answer: bytes | Exception = list_token()
        self.lifetime_s: float | None = None
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, address: str, accept: str) -> Document:
        """The answer that is set at the end of the wait."""
        assert accept == "application/statuslist+jwt"
        self.asked.append(address)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return Document(self.answer, self.lifetime_s)


class Stand:
    """The lists of `main`, with their site and a clock to be wound."""

    def __init__(self, keys: KeysAtHand | None = None, **settings: Any) -> None:
        self.now = 1000.0
        self.site = Site()
        self._naps: list[asyncio.Future[None]] = []
        issuer = Issuer.model_validate(
            {
                "issuer": ISSUER,
                "audience": ["api"],
                "algorithms": ["ES256"],
                "cooldown": "10s",
                "timeout": "1s",
                "revocation": {"status_list": settings or True},
            }
        )
        built = StatusLists.of("main", issuer, keys or KeysAtHand(key_set("p256")))
        clock = Clock(
            monotonic=lambda: self.now, sleep=self._sleep, chance=lambda: 0.0, wall=lambda: NOW + self.now - 1000
        )
        self.rules: StatementRules = built._rules
        self.lists = StatusLists("main", self.rules, issuer, self.site, clock)

    async def _sleep(self, _: float) -> None:
        nap = asyncio.get_running_loop().create_future()
        self._naps.append(nap)
        await nap

    async def wind(self, seconds: float) -> None:
        """Let time pass, and whoever slept have its turn."""
        self.now += seconds
        naps, self._naps = self._naps, []
        for nap in naps:
            nap.set_result(None)
        while not self._naps:
            await asyncio.sleep(0)

    async def verdict(self, index: int = 0, uri: str = URI) -> str:
        """The error's code; "" if the token passes."""
        try:
            await self.lists.check(token(index, uri))
        except GatewayError as error:
            return error.code
        return ""

    def number(self, name: str, **labels: str) -> float:
        """One sample's value."""
        wanted = {"issuer": "main", **labels}
        [value] = [sample.value for sample in self.lists.samples() if (sample.name, sample.labels) == (name, wanted)]
        return value


async def settled(stand: Stand, fetches: int) -> None:
    """Until so many fetches were made and have come to their end."""
    async with asyncio.timeout(5):
        while len(stand.site.asked) < fetches or any(held.flight for held in stand.lists._held.values()):
            await asyncio.sleep(0)


async def test_a_status_is_looked_up_in_the_fetched_list() -> None:
    """VALID passes, everything else is refused as revoked; the list is fetched once."""
    stand = Stand()
    stand.site.answer = list_token(b"\xe4", bits=2)  # 0 valid, 1 invalid, 2 suspended, 3 of an application
    assert [await stand.verdict(index) for index in range(4)] == ["", *["token_revoked"] * 3]
    assert await stand.verdict(4) == "token_invalid"  # beyond the end
    assert stand.site.asked == [URI]
    assert stand.number("gateway_status_lists") == 1


async def test_a_token_without_a_status_is_not_asked_about() -> None:
    """Only tokens that refer to a list are held to one."""
    stand = Stand()
    await stand.lists.check(read_token("main", UnverifiedHeader("ES256", None, None), claims()))
    assert stand.site.asked == []
    with pytest.raises(TokenInvalid):
        await stand.lists.check(read_token("main", UnverifiedHeader("ES256", None, None), claims(status="x")))


async def test_the_reference_is_read_once_per_token() -> None:
    """It stays with the token."""
    stand = Stand()
    shared = token(1)
    for _ in range(2):
        with pytest.raises(TokenRevoked):
            await stand.lists.check(shared)
        shared.claims = {}


async def test_all_who_wait_share_one_fetch() -> None:
    """Single flight, and one who goes away does not end it for the others."""
    stand = Stand()
    stand.site.gate.clear()
    waiting = [asyncio.create_task(stand.verdict(1)) for _ in range(50)]
    while not stand.site.asked:
        await asyncio.sleep(0)
    waiting.pop(0).cancel()
    stand.site.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"token_revoked"}
    assert stand.site.asked == [URI]


def forged() -> bytes:
    """A list signed by somebody else under our key's name."""
    return signed(header(typ="statuslist+jwt"), {"sub": URI, "iat": 1}, "p256-other")


@pytest.mark.parametrize(
    "bad",
    [
        OriginFailed("refused"),
        b"",
        b"{}",
        forged(),
        list_token(kid="p256-other"),
        list_token(iss="https://other.example"),
        list_token(sub=f"{ISSUER}/status/2"),
        list_token(iat=...),
        list_token(exp=NOW - 60),
        list_token(ttl=-5),
        list_token(status_list={"bits": 1, "lst": "AAAA"}),
        signed(header(), {"sub": URI, "iat": 1, "status_list": {"bits": 1, "lst": "eNrbuRgAAhcBXQ"}}),  # an at+jwt
    ],
)
async def test_without_a_usable_list_nobody_is_let_in(bad: bytes | Exception, caplog: pytest.LogCaptureFixture) -> None:
    """503 for all, one fetch per cooldown, one line in the log; and it heals by itself."""
    stand = Stand()
    stand.site.answer = bad
    with caplog.at_level(logging.WARNING, "gateway.tokens"):
        assert await stand.verdict() == "status_unavailable"
        assert await stand.verdict() == "status_unavailable"
        stand.now += 10
        assert await stand.verdict() == "status_unavailable"
    assert len(stand.site.asked) == 2
    assert len(caplog.records) == 1
    assert stand.number("gateway_status_list_loads_total", outcome="failed") == 2
    assert stand.number("gateway_status_unknown_total") == 3
    stand.now += 10
    stand.site.answer = list_token()
    assert await stand.verdict() == ""


async def test_an_operator_may_let_the_unknown_pass() -> None:
    """`when_unknown: allow`; what is known still counts."""
    stand = Stand(when_unknown="allow")
    stand.site.answer = OriginFailed("refused")
    assert await stand.verdict(1) == ""
    stand.now += 10
    stand.site.answer = list_token()
    assert await stand.verdict(1) == "token_revoked"


async def test_a_server_that_hangs_is_given_up() -> None:
    """After the issuer's timeout."""
    stand = Stand()
    stand.lists._timeout_s = 0.01
    stand.site.gate.clear()
    assert await stand.verdict() == "status_unavailable"


async def test_keys_that_cannot_be_had_are_no_status() -> None:
    """A list that nobody can verify is no list."""

    assert await Stand(NoKeys()).verdict() == "status_unavailable"


@pytest.mark.parametrize(
    ("uri", "settings", "code"),
    [
        ("https://issuer.example:443/other/list", {}, ""),
        ("https://evil.example/list", {}, "status_unavailable"),
        ("http://issuer.example/list", {}, "status_unavailable"),
        ("https://issuer.example:8443/list", {}, "status_unavailable"),
        ("https://issuer.example@evil.example/list", {}, "status_unavailable"),
        ("https://x@issuer.example/list", {}, "status_unavailable"),
        ("file:///etc/passwd", {}, "status_unavailable"),
        ("https://issuer.example:x/", {}, "status_unavailable"),
        ("https://lists.example/1", {"origins": ["https://lists.example"]}, ""),
        ("https://issuer.example/1", {"origins": ["https://lists.example"]}, "status_unavailable"),
    ],
)
async def test_lists_come_from_configured_places_only(uri: str, settings: dict[str, Any], code: str) -> None:
    """A token cannot send the gateway anywhere."""
    stand = Stand(**settings)
    stand.site.answer = list_token(sub=uri)
    assert await stand.verdict(0, uri) == code
    assert stand.site.asked == ([] if code else [uri])


@pytest.mark.parametrize(
    ("changes", "from_http", "life"),
    [
        ({"ttl": 100}, None, 100),
        ({"ttl": ..., "exp": NOW + 50}, 7.0, 50),
        ({"ttl": ...}, 70.0, 70),
        ({"ttl": ...}, None, 300),
    ],
)
async def test_a_list_counts_as_long_as_it_says(changes: dict[str, Any], from_http: float | None, life: float) -> None:
    """`ttl`, else `exp`, else what HTTP says, else the setting; then it is fetched again, or nothing is known."""
    stand = Stand()
    stand.site.answer, stand.site.lifetime_s = list_token(**changes), from_http
    assert await stand.verdict() == ""
    stand.site.answer = OriginFailed("gone")
    stand.now += life - 0.5
    assert await stand.verdict() == ""
    assert len(stand.site.asked) == 1
    stand.now += 0.5
    assert await stand.verdict() == "status_unavailable"


async def running(stand: Stand) -> asyncio.Task[None]:
    """Its background work, asleep."""
    task = asyncio.create_task(stand.lists.run())
    await asyncio.sleep(0)
    return task


async def test_a_list_in_use_is_refreshed_before_it_ends() -> None:
    """At 80 % of its lifetime, without any request waiting; a new revocation counts from then."""
    stand = Stand()
    work = await running(stand)
    assert await stand.verdict(2) == ""
    assert await stand.verdict(2) == ""
    stand.site.answer = list_token(b"\x04")
    await stand.wind(79)
    assert len(stand.site.asked) == 1
    await stand.wind(2)
    assert len(stand.site.asked) == 2
    assert await stand.verdict(2) == "token_revoked"
    work.cancel()


async def test_a_failed_refresh_keeps_the_list_until_it_ends() -> None:
    """Tried again while it is good; not longer than the list said."""
    stand = Stand()
    work = await running(stand)
    assert [await stand.verdict() for _ in range(2)] == ["", ""]
    stand.site.answer = OriginFailed("down")
    await stand.wind(81)
    await stand.wind(1)
    assert len(stand.site.asked) == 3
    assert await stand.verdict(1) == "token_revoked"
    stand.site.answer = list_token()
    await stand.wind(5)
    stand.site.answer = OriginFailed("down")
    await stand.wind(60)
    assert await stand.verdict() == ""
    work.cancel()


async def test_a_list_that_nobody_uses_is_let_go() -> None:
    """It is not refreshed, and takes no memory after its end."""
    stand = Stand()
    work = await running(stand)
    assert await stand.verdict() == ""
    await stand.wind(101)
    await stand.wind(1)
    assert len(stand.site.asked) == 1
    assert stand.number("gateway_status_lists") == 0
    work.cancel()


async def test_who_rests_on_a_list_keeps_it_fresh_without_waiting() -> None:
    """It is refreshed ahead though no request asks; after an outage it is fetched again, once per cooldown."""
    stand = Stand()
    work = await running(stand)
    assert stand.lists.known(URI) is None
    assert stand.lists.keep(URI) is None
    assert stand.lists.keep(URI) is None
    await settled(stand, 1)
    first = stand.lists.keep(URI)
    assert first is not None
    assert first is stand.lists.known(URI)
    assert not first.is_valid(1)
    stand.site.answer = list_token(b"\x00")
    await stand.wind(81)
    await settled(stand, 2)
    found = stand.lists.keep(URI)
    assert found is not None
    assert found.is_valid(1)
    stand.site.answer = OriginFailed("down")
    await stand.wind(200)
    assert stand.lists.keep(URI) is None
    await settled(stand, 3)
    assert stand.lists.keep(URI) is None
    assert len(stand.site.asked) == 3
    stand.site.answer = list_token()
    await stand.wind(11)
    assert stand.lists.keep(URI) is None
    await settled(stand, 4)
    assert stand.lists.keep(URI) is not None
    assert stand.lists.keep("https://elsewhere.example/1") is None
    assert len(stand.site.asked) == 4
    work.cancel()


async def test_there_is_room_for_so_many_lists() -> None:
    """The one used longest ago makes room."""
    stand = Stand()
    for number in range(300):
        uri = f"{ISSUER}/{number}"
        stand.site.answer = list_token(sub=uri)
        assert await stand.verdict(0, uri) == ""
    assert stand.number("gateway_status_lists") == 256
    assert await stand.verdict(0, f"{ISSUER}/299") == ""
    assert len(stand.site.asked) == 300


async def test_over_the_wire() -> None:
    """One GET for the list's media type; a redirect is not followed."""
    async with key_server() as server:
        uri = f"{server.url}/status/1"
        server.answers["/status/1"] = answer(list_token(sub=uri, iat=1))
        server.answers["/status/2"] = answer(b"", status="302 Found", headers=f"location: {uri}\r\n")
        issuer = Issuer.model_validate(
            {"issuer": server.url, "audience": ["a"], "algorithms": ["ES256"], "revocation": {"status_list": True}}
        )
        lists = StatusLists.of("main", issuer, KeysAtHand(key_set("p256")))
        await lists.check(token(0, uri))
        with pytest.raises(TokenRevoked):
            await lists.check(token(1, uri))
        with pytest.raises(StatusUnavailable):
            await lists.check(token(0, f"{server.url}/status/2"))
        assert server.requests == ["/status/1", "/status/2"]
        assert "accept: application/statuslist+jwt" in server.heads[0].lower()
