"""The verifier: genuine tokens become `Token` values, and are remembered no longer than they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config.schema import Issuer
from gateway.errors import GatewayError, KeysUnavailable, TokenExpired, TokenInvalid
from gateway.keys.jwks import parse_key_set
from gateway.keys.source import StaticKeys
from gateway.tokens.claims import claim_at
from gateway.tokens.verifier import IssuerRules, check_route
from tests.tokens.mint import (
    ASYMMETRIC,
    ISSUER,
    NOW,
    SECRET,
    KeysAtHand,
    NoKeys,
    by_joserfc,
    claims,
    header,
    key_set,
    public_jwk,
    rules,
    signed,
    verifier,
)

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("alg", "kid"),
    [
        ("RS256", "rsa"),
        ("PS256", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
        ("Ed25519", "ed"),
        ("HS256", "any"),
    ],
)
async def test_tokens_of_another_library_are_accepted(alg: str, kid: str) -> None:
    """A token made by joserfc is accepted in every algorithm, and its claims are read into typed attributes."""
    keys: Any = StaticKeys(SECRET, ["HS256"]) if alg == "HS256" else KeysAtHand(key_set("rsa", "p256", "p384", "ed"))
    gate = verifier(rules(keys, algorithms=ASYMMETRIC | {"HS256"}))
    payload = claims(nbf=int(NOW) - 5, aud=["web", "api"], scp=["profile"], azp="spa", email="user-1@shop.example")
    token = await gate.verify(by_joserfc(alg, kid, payload), NOW)
    assert (token.issuer, token.alg, token.kid) == ("main", alg, kid)
    assert (token.subject, token.token_id, token.session_id, token.client_id) == (
        "user-1",
        "token-1",
        "session-1",
        "app",
    )
    assert (token.issued_at, token.not_before, token.expires_at) == (NOW - 60, NOW - 5, NOW + 600)
    assert token.audience == {"web", "api"}
    assert token.scopes == {"orders:read", "orders:write", "profile"}
    assert token.claims["email"] == "user-1@shop.example"
    assert "user-1" not in repr(token)


async def test_each_algorithm_needs_its_own_permission() -> None:
    """A genuine token in an algorithm that the issuer is not configured for is refused."""
    gate = verifier(rules(KeysAtHand(key_set("rsa", "p256")), algorithms=frozenset({"ES256"})))
    await gate.verify(by_joserfc("ES256", "p256", claims()), NOW)
    for alg in ("RS256", "PS256"):
        with pytest.raises(TokenInvalid):
            await gate.verify(by_joserfc(alg, "rsa", claims()), NOW)


async def test_rules_come_from_the_configuration() -> None:
    """An issuer of the YAML becomes rules: EdDSA implies Ed25519, `any` accepts all types, at+jwt is the default."""
    yaml = {"issuer": ISSUER, "audience": ["api"], "algorithms": ["EdDSA"], "leeway": "5s", "max_age": "1h"}
    made = IssuerRules.of("main", Issuer.model_validate(yaml), KeysAtHand(key_set("ed")))
    assert made.algorithms == {"EdDSA", "Ed25519"}
    assert (made.token_type, made.leeway_s, made.max_age_s) == ("at+jwt", 5.0, 3600.0)
    relaxed = Issuer.model_validate(yaml | {"token_type": "any"})
    assert IssuerRules.of("main", relaxed, KeysAtHand(key_set("ed"))).token_type is None
    named = Issuer.model_validate(yaml | {"token_type": "application/JWT"})
    assert IssuerRules.of("main", named, KeysAtHand(key_set("ed"))).token_type == "jwt"


async def test_any_type_accepts_a_token_without_one() -> None:
    """With `token_type: any` neither a missing nor an unusual `typ` matters."""
    gate = verifier(rules(KeysAtHand(key_set("p256")), token_type=None))
    for typ in (..., "JWT", "secevent+jwt"):
        token = await gate.verify(signed(header(typ=typ), claims()), NOW)
        assert token.subject == "user-1"


async def test_two_issuers_cannot_share_an_iss() -> None:
    """Two issuers with the same `iss` are a mistake in the configuration, not a choice at run time."""
    keys = KeysAtHand(key_set("p256"))
    with pytest.raises(ValueError, match="same"):
        verifier(rules(keys), rules(keys, name="second"))


async def test_a_verified_token_is_remembered_and_judged_again() -> None:
    """A token is recalled without its signature while its times hold; after `exp` and leeway it has expired."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    raw = signed(header(), claims())
    assert gate.recall(raw, NOW) is None
    token = await gate.verify(raw, NOW)
    assert gate.recall(bytes(bytearray(raw)), NOW + 629.9) is token
    with pytest.raises(TokenExpired):
        gate.recall(raw, NOW + 630)
    assert gate.recall(raw, NOW + 630) is None  # forgotten: it can never hold again
    with pytest.raises(TokenExpired):
        await gate.verify(raw, NOW + 630)


async def test_the_claims_of_an_older_token_are_read_again() -> None:
    """Of a remembered token only the text is kept, and what it says is the same."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    payload = claims(roles=["buyer"], nested={"deep": 1})
    raw = signed(header(), payload)
    token = await gate.verify(raw, NOW)
    at_first = dict(token.claims)
    await gate.verify(signed(header(), claims(jti="another")), NOW)
    assert gate.recall(raw, NOW) is token
    assert not isinstance(token.claims, dict)
    assert token.claims == at_first == payload
    assert dict(token.claims) == payload
    assert len(token.claims) == len(payload)
    assert "roles" in token.claims
    assert "absent" not in token.claims
    assert token.claims["roles"] is token.claims.get("roles")  # read once, then kept
    assert token.claims.get("absent", 7) == 7
    assert claim_at(token.claims, "nested.deep") == 1


async def test_a_clock_set_back_is_noticed() -> None:
    """A remembered token whose `iat` or `nbf` lies in the future, because the clock was set back, is refused."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    raw = signed(header(), claims(nbf=NOW - 10))
    token = await gate.verify(raw, NOW)
    with pytest.raises(TokenInvalid):
        gate.recall(raw, NOW - 40.5)
    assert gate.recall(raw, NOW - 40) is token


async def test_refusals_are_not_remembered() -> None:
    """Neither an expired nor an invalid token takes a place in the cache."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    for raw in (signed(header(), claims(exp=1)), signed(header(), claims(aud="web")), b"x.y.z"):
        with pytest.raises(GatewayError):
            await gate.verify(raw, NOW)
    assert len(gate.cache) == 0


async def test_an_old_token_has_expired() -> None:
    """Beyond `max_age` and leeway a token has expired though its `exp` has not passed; without `iat` it is invalid."""
    gate = verifier(rules(KeysAtHand(key_set("p256")), max_age_s=300.0))
    raw = signed(header(), claims(iat=NOW - 329))
    await gate.verify(raw, NOW)
    with pytest.raises(TokenExpired):
        gate.recall(raw, NOW + 1)
    with pytest.raises(TokenExpired):
        await gate.verify(signed(header(), claims(iat=NOW - 330)), NOW)
    with pytest.raises(TokenInvalid):
        await gate.verify(signed(header(), claims(iat=...)), NOW)


async def test_a_withdrawn_key_ends_what_it_signed() -> None:
    """A remembered token dies with its key, and only with its own; a key that stays keeps its tokens remembered."""
    keys = KeysAtHand(key_set("p256", "rsa"))
    gate = verifier(rules(keys))
    withdrawn, kept = by_joserfc("ES256", "p256", claims()), by_joserfc("RS256", "rsa", claims())
    token = await gate.verify(kept, NOW)
    await gate.verify(withdrawn, NOW)
    keys.key_set = key_set("rsa", "p256-next")
    assert gate.recall(withdrawn, NOW) is None
    assert gate.recall(kept, NOW) is token
    with pytest.raises(TokenInvalid):
        await gate.verify(withdrawn, NOW)


async def test_another_key_under_the_same_kid_is_another_key() -> None:
    """When an issuer uses a key id again for a new key, tokens of the old key are not recalled."""
    keys = KeysAtHand(key_set("p256"))
    gate = verifier(rules(keys))
    raw = signed(header(), claims())
    await gate.verify(raw, NOW)
    replaced = json.dumps({"keys": [public_jwk("p256-next", kid="p256")]}).encode()
    keys.key_set, _ = parse_key_set(replaced, ASYMMETRIC)
    assert gate.recall(raw, NOW) is None


async def test_remembered_headers_lend_nothing_to_another_token() -> None:
    """A forged token with the header of a genuine one, octet for octet, is refused as before."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    genuine = signed(header(), claims())
    await gate.verify(genuine, NOW)
    forged = signed(header(), claims(sub="root"), "p256 of a forger")
    assert forged.split(b".")[0] == genuine.split(b".")[0]
    with pytest.raises(TokenInvalid):
        await gate.verify(forged, NOW)


async def test_many_headers_are_forgotten_again() -> None:
    """An issuer that puts something new into each header makes nothing grow."""
    gate = verifier(rules(KeysAtHand(key_set("ed"))))
    for number in range(200):
        await gate.verify(signed(header(alg="EdDSA", kid="ed", nonce=number), claims(), "ed"), NOW)
    assert len(gate._headers) <= 64


async def test_without_keys_the_gateway_cannot_decide() -> None:
    """With no keys at all a token in order gets `keys_unavailable`, expired or not; a hopeless one is still invalid."""
    keys = NoKeys()
    gate = verifier(rules(keys))
    with pytest.raises(KeysUnavailable):
        await gate.verify(signed(header(), claims()), NOW)
    assert keys.sought == ["p256"]
    with pytest.raises(KeysUnavailable):
        await gate.verify(signed(header(), claims(exp=1)), NOW)
    with pytest.raises(TokenInvalid):
        await gate.verify(signed(header(), claims(aud="web")), NOW)
    assert keys.sought == ["p256"]


@pytest.mark.parametrize(
    ("issuers", "audience", "accepted"),
    [
        (None, None, True),
        ({"main"}, None, True),
        ({"main", "other"}, {"api"}, True),
        ({"other"}, None, False),
        (frozenset(), None, False),
        (None, {"web"}, False),
        ({"main"}, frozenset(), False),
    ],
)
async def test_a_route_narrows(issuers: Any, audience: Any, accepted: bool) -> None:
    """A route that names issuers or an audience refuses the tokens of others; one that names none accepts all."""
    token = await verifier(rules(KeysAtHand(key_set("p256")))).verify(signed(header(), claims()), NOW)
    if accepted:
        check_route(token, issuers, audience)
    else:
        with pytest.raises(TokenInvalid):
            check_route(token, issuers, audience)


@pytest.mark.parametrize(
    ("changes", "rule_changes", "until"),
    [
        ({"exp": NOW + 100}, {}, NOW + 130),
        ({"exp": NOW + 100}, {"leeway_s": 0.0}, NOW + 100),
        ({"exp": NOW + 100, "iat": NOW - 10}, {"max_age_s": 60.0}, NOW + 80),
    ],
)
async def test_a_verified_token_says_until_when_it_holds(
    changes: dict[str, Any], rule_changes: dict[str, Any], until: float
) -> None:
    """The same moment from which requests are refused as expired; live connections end then."""
    judge = verifier(rules(KeysAtHand(key_set("p256")), **rule_changes))
    raw = signed(header(), claims(**changes))
    token = await judge.verify(raw, NOW)
    assert judge.valid_until(token) == until
    assert judge.recall(raw, until - 0.001) is token
    with pytest.raises(TokenExpired):
        judge.recall(raw, until)
