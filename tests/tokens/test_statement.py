"""Statements of an issuer: each defect has its word, and keys are asked for last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import KeysUnavailable
from gateway.keys.jwks import accepted_algorithms
from gateway.tokens.statement import StatementInvalid, StatementRules, verify_statement
from tests.tokens.mint import ASYMMETRIC, ISSUER, NOW, KeysAtHand, NoKeys, by_joserfc, header, key_set, signed

pytestmark = pytest.mark.asyncio


def rules(**changes: Any) -> StatementRules:
    """Rules for an imaginary kind of statement, with changes."""
    plain = StatementRules(
        issuer=ISSUER,
        audience=frozenset({"us"}),
        algorithms=accepted_algorithms(ASYMMETRIC),
        token_type="statement+jwt",
        leeway_s=30.0,
        keys=KeysAtHand(key_set("p256")),
    )
    return replace(plain, **changes)


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that hold; a change to `...` leaves one out."""
    ordinary = {"iss": ISSUER, "aud": ["us", "others"], "iat": int(NOW), "jti": "1"}
    return {name: value for name, value in (ordinary | changes).items() if value is not ...}


def statement(typ: str = "statement+jwt", kid: str = "p256", **changes: Any) -> bytes:
    """A genuine statement."""
    return signed(header(typ=typ, kid=kid), claims(**changes), kid)


async def test_a_genuine_statement_gives_its_claims() -> None:
    """By this issuer, to us, now, of this type; the prefix `application/` of the type may be there."""
    assert await verify_statement(statement(), rules(), NOW) == claims()
    assert await verify_statement(statement("application/Statement+JWT"), rules(), NOW) == claims()
    foreign = by_joserfc("ES256", "p256", claims(), typ="statement+jwt")
    assert await verify_statement(foreign, rules(), NOW) == claims()


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "request"),
        (b"a.b", "request"),
        (signed(header(typ="statement+jwt"), b"[]"), "request"),
        # the type: an access token is no statement, and one kind is not another
        (statement("at+jwt"), "request"),
        (statement("JWT"), "request"),
        (signed(header(typ=...), claims()), "request"),
        (statement(iss=...), "issuer"),
        (statement(iss=f"{ISSUER}/"), "issuer"),
        (statement(aud="others"), "audience"),
        (statement(aud=...), "request"),
        (statement(iat=...), "request"),
        (statement(iat="1800000000"), "request"),
        (statement(iat=NOW + 31), "request"),
        (statement(exp=NOW - 30), "request"),
        (statement(exp=True), "request"),
        (signed(header(typ="statement+jwt", alg="none"), claims()), "key"),
        (signed(header(typ="statement+jwt", alg="HS256"), claims(), "secret"), "key"),
        (signed(header(typ="statement+jwt"), claims(), "p256-other"), "key"),
        (statement(kid="p256-other"), "key"),
    ],
)
async def test_each_defect_has_its_word(raw: bytes, fault: str) -> None:
    """The sender learns whether form, issuer, audience or key is at fault."""
    with pytest.raises(StatementInvalid) as caught:
        await verify_statement(raw, rules(), NOW)
    assert caught.value.fault == fault


async def test_times_have_a_leeway() -> None:
    """Clocks differ by the issuer's leeway and no more."""
    assert await verify_statement(statement(iat=NOW + 30, exp=NOW - 29), rules(), NOW)


async def test_what_may_be_left_out_is_a_rule() -> None:
    """An `iss` that may be absent may still not be another's; an `exp` may be mandatory; `aud` may not matter."""
    lenient = rules(needs_issuer=False, audience=None)
    assert await verify_statement(statement(iss=..., aud=...), lenient, NOW)
    with pytest.raises(StatementInvalid, match="iss"):
        await verify_statement(statement(iss="https://other.example"), lenient, NOW)
    with pytest.raises(StatementInvalid, match="exp is missing"):
        await verify_statement(statement(), rules(needs_end=True), NOW)


async def test_a_statement_for_others_fetches_no_keys() -> None:
    """What is cheap to see is judged before a key is looked for."""
    keys = KeysAtHand(key_set("p256"))
    for raw in (statement(kid="new", aud="others"), statement(kid="new", iss="x"), statement("JWT", kid="new")):
        with pytest.raises(StatementInvalid):
            await verify_statement(raw, rules(keys=keys), NOW)
    assert keys.sought == []
    with pytest.raises(StatementInvalid):
        await verify_statement(signed(header(typ="statement+jwt", kid="new"), claims()), rules(keys=keys), NOW)
    assert keys.sought == ["new"]


async def test_without_keys_nothing_is_said_about_the_statement() -> None:
    """The sender should come again."""

    with pytest.raises(KeysUnavailable):
        await verify_statement(statement(), rules(keys=NoKeys()), NOW)


async def test_a_length_of_its_own() -> None:
    """A status list may be longer than a credential."""
    raw = statement(blob="x" * 20_000)
    with pytest.raises(StatementInvalid, match="longer than 16 KiB"):
        await verify_statement(raw, rules(), NOW)
    assert await verify_statement(raw, rules(max_bytes=64 * 1024), NOW)
