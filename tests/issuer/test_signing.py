"""Signing keys: made once, announced before use, retired late, sealed at rest; and the tokens signed with them."""

from __future__ import annotations

import asyncio
import json

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from gateway.issuer.sealing import SealBroken, Sealer
from gateway.issuer.service import OwnKeys
from gateway.issuer.store.tables import secrets, signing_keys
from gateway.keys.jwks import parse_key_set
from tests.issuer.desk import Clock, Desk

pytestmark = pytest.mark.asyncio

DAY = 86_400.0
KEY = "a key of thirty-two bytes or more"


def kids(desk: Desk) -> list[str]:
    """The published keys, as the endpoint gives them, oldest first."""
    return [key["kid"] for key in json.loads(desk.issuer.keys.document(desk.clock.now))["keys"]]


async def test_gateways_that_start_together_agree_on_one_key(store_url: str) -> None:
    """Whoever comes first makes it."""
    desks = [Desk(store_url) for _ in range(4)]
    await asyncio.gather(*(desk.issuer.open() for desk in desks))
    assert len({tuple(kids(desk)) for desk in desks}) == 1
    assert len(kids(desks[0])) == 1
    for desk in desks:
        await desk.__aexit__()


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc on the name; RFC 9864 keeps it valid
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_tokens_are_what_rfc_9068_says_and_others_can_check_them(sqlite_url: str, algorithm: str) -> None:
    """Another library verifies them with the published key set alone; the gateway's own reader takes every key."""
    async with Desk(sqlite_url, signing={"algorithm": algorithm}, audience=["api"]) as desk:
        tokens = await desk.register("alice", email="a@example.org", platform="web")
        answer = await desk.get("jwks.json")
        assert answer.headers["content-type"] == "application/jwk-set+json"
        assert answer.headers["cache-control"] == "public, max-age=300"
        key_set = KeySet.import_key_set(answer.json())
        token = joserfc_jwt.decode(tokens["access_token"], key_set, algorithms=[algorithm])
        assert (token.header["typ"], token.header["alg"]) == ("at+jwt", algorithm)
        claims = token.claims
        assert (claims["iss"], claims["aud"], claims["client_id"]) == (desk.config.url, "api", "first-party")
        assert claims["sid"] == tokens["session_id"]
        assert claims["email"] == "a@example.org"
        assert claims["exp"] - claims["iat"] == tokens["expires_in"]
        assert claims["jti"]
        assert claims["scope"] == "openid profile email"
        parsed, problems = parse_key_set(answer.content, frozenset({algorithm}))
        assert (len(parsed.keys), problems) == (1, [])


async def test_lifetimes_are_spread(sqlite_url: str) -> None:
    """Clients that logged in together do not refresh together."""
    async with Desk(sqlite_url) as desk:
        await desk.register()
        lifetimes = {(await desk.login())["expires_in"] for _ in range(12)}
        assert len(lifetimes) > 3
        assert all(540 <= lifetime <= 660 for lifetime in lifetimes)


async def test_a_key_is_published_early_used_in_time_and_retired_late(sqlite_url: str) -> None:
    """Over a rotation every token verifies with the key set that was published an hour before, and ever after."""
    async with Desk(sqlite_url, signing={"rotate": "30d", "announce": "1h"}) as desk:
        issuer, clock = desk.issuer, desk.clock
        [first] = kids(desk)
        clock.wind(30 * DAY - 3601)
        await issuer.keys.maintain(clock.now)
        assert kids(desk) == [first]
        clock.wind(2)
        await issuer.keys.maintain(clock.now)
        announced = kids(desk)
        assert announced[0] == first
        assert len(announced) == 2
        assert issuer.keys.current(clock.now).kid == first
        clock.wind(3600)
        assert issuer.keys.current(clock.now).kid == announced[1]
        await issuer.keys.maintain(clock.now)
        assert kids(desk) == announced  # tokens of the first are still out
        clock.wind(600)
        await issuer.keys.maintain(clock.now)
        assert kids(desk) == announced
        clock.wind(3600)
        await issuer.keys.maintain(clock.now)
        assert kids(desk) == announced[1:]
        retired = issuer.keys.find(first)
        assert retired is not None
        assert retired.private is None


async def test_an_expired_token_of_a_retired_key_is_still_known(sqlite_url: str) -> None:
    """After months offline a client is told to sign in or to refresh, not that its token is forged."""
    async with Desk(sqlite_url) as desk:
        tokens = await desk.register(platform="mobile")
        for _ in range(3):
            desk.clock.wind(25 * DAY)
            await desk.issuer.keys.maintain(desk.clock.now)
            await desk.issuer.keys.maintain(desk.clock.now + 7200)
        assert len(kids(desk)) < len(desk.issuer.keys.all())
        answer = (await desk.get("session", tokens["access_token"])).json()
        assert (answer["token"], answer["action"]) == ("expired", "refresh")


async def test_a_new_algorithm_takes_over_like_a_new_key(sqlite_url: str) -> None:
    """Changing the setting announces a key of the new kind; nothing is refused meanwhile."""
    clock = Clock()
    async with Desk(sqlite_url, clock=clock):
        pass
    async with Desk(sqlite_url, clock=clock, signing={"algorithm": "EdDSA"}) as desk:
        assert desk.issuer.keys.current(clock.now).algorithm == "ES256"
        assert [key.algorithm for key in desk.issuer.keys.all()] == ["ES256", "EdDSA"]
        clock.wind(3601)
        assert desk.issuer.keys.current(clock.now).algorithm == "EdDSA"


async def test_the_operator_may_rotate_at_once(sqlite_url: str) -> None:
    """`gateway keys rotate` makes a key; another gateway signs with it after its next look."""
    clock = Clock()
    async with Desk(sqlite_url, clock=clock) as one, Desk(sqlite_url, clock=clock) as two:
        clock.wind(1)
        kid = await one.issuer.keys.rotate(clock.now, announce_s=0)
        await two.issuer.keys.maintain(clock.now)
        assert one.issuer.keys.current(clock.now).kid == two.issuer.keys.current(clock.now).kid == kid


async def test_keys_are_sealed_with_the_operators_key(store_url: str) -> None:
    """Nothing in the store can sign; another key, or none, opens nothing; a key may be added later."""
    async with Desk(store_url):
        pass
    async with Desk(store_url, signing={"encryption_key": KEY}) as desk:
        await desk.issuer.keys.rotate(desk.clock.now, announce_s=0)
        async with desk.issuer.database.read() as connection:
            rows = (await connection.execute(signing_keys.select().order_by(signing_keys.c.created_at))).all()
            shared = (await connection.execute(secrets.select())).all()
        assert [row.private[0] for row in rows] == [1, 1]  # what was plain before has been sealed
        assert {row.value[0] for row in shared} == {1}
        await desk.register()
    for settings in ({}, {"encryption_key": KEY + "!"}):
        wrong = Desk(store_url, signing=settings)
        with pytest.raises(SealBroken, match="encryption_key"):
            await wrong.issuer.open()
        assert (await wrong.get("jwks.json")).json()["code"] == "issuer_unavailable"
        await wrong.__aexit__()


async def test_the_shared_secret_is_sealed_too(sqlite_url: str) -> None:
    """What refresh tokens are recognised by cannot be read from the store."""
    async with Desk(sqlite_url, signing={"encryption_key": KEY}) as desk:
        async with desk.issuer.database.read() as connection:
            rows = (await connection.execute(secrets.select())).all()
        assert [row.value[0] for row in rows] == [1] * len(rows)
        assert {row.name for row in rows} == {"decoys", "forms", "refresh tokens", "throttle"}


async def test_a_secret_cannot_be_put_in_anothers_place() -> None:
    """Each is bound to its name."""
    sealer = Sealer(KEY.encode())
    sealed = sealer.seal("a", b"secret")
    assert sealer.open("a", sealed) == b"secret"
    with pytest.raises(SealBroken):
        sealer.open("b", sealed)
    assert Sealer(None).open("a", Sealer(None).seal("a", b"x")) == b"x"


async def test_only_our_own_access_tokens_are_read(sqlite_url: str) -> None:
    """Other keys, types, issuers and algorithms are unknown tokens, whatever they say."""
    async with Desk(sqlite_url) as desk:
        issuer = desk.issuer
        key = issuer.keys.current(desk.clock.now)
        assert key.private is not None
        claims = {"iss": desk.config.url, "sub": "u", "jti": "j", "client_id": "c", "exp": 2e9, "sid": "s"}

        def sign(changes: dict[str, object] | None = None, typ: str = "at+jwt", kid: str = key.kid) -> str:
            assert key.private is not None
            members = {**claims, **(changes or {})}
            return jwt.encode(members, key.private, algorithm="ES256", headers={"typ": typ, "kid": kid})

        assert issuer.access_tokens.read(sign()) is not None
        none = jwt.encode(claims, "", algorithm="none", headers={"typ": "at+jwt", "kid": key.kid})
        hmac = jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"typ": "at+jwt", "kid": key.kid})
        wrong = [sign(typ="JWT"), sign({"iss": "https://other.example"}), sign(kid="other"), none, hmac, "a.b.c", ""]
        assert [issuer.access_tokens.read(text) for text in wrong] == [None] * len(wrong)
        signed = sign()
        assert issuer.access_tokens.read(signed[:-8] + "AAAAAAAA") is None
        assert issuer.access_tokens.read(signed + "A" * 20_000) is None


async def test_the_gateway_gets_the_keys_in_process(sqlite_url: str) -> None:
    """The origin of keys opens the issuer itself and looks into the store, where another gateway may have made one."""
    clock = Clock()
    one, two = Desk(sqlite_url, clock=clock), Desk(sqlite_url, clock=clock)
    first = await OwnKeys(one.issuer).load()
    assert len(json.loads(first.octets)["keys"]) == 1
    async with two:
        kid = await two.issuer.keys.rotate(clock.now, announce_s=60)
    second = await OwnKeys(one.issuer).load()
    assert kid in [key["kid"] for key in json.loads(second.octets)["keys"]]
    await one.__aexit__()
