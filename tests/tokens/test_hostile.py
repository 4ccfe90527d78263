"""Tokens that must be refused, each with its code, and the genuine ones beside them that must not be."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, TokenExpired, TokenInvalid
from gateway.keys.source import StaticKeys
from gateway.tokens.verifier import Verifier
from tests.tokens.mint import (
    ISSUER,
    NOW,
    SECRET,
    SHARED_ISSUER,
    KeysAtHand,
    base64url,
    by_joserfc,
    claims,
    header,
    key_set,
    octets,
    private_key,
    public_jwk,
    rules,
    signature,
    signed,
    verifier,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
GOOD = claims()


def good() -> bytes:
    """A token that is accepted."""
    return signed(header(), GOOD)


def another() -> bytes:
    """A token that is accepted too, other in every segment."""
    return signed(header(x=1), claims(sub="user-2"))


def with_claims(**changes: Any) -> Callable[[], bytes]:
    """Genuinely signed, with other claims."""
    return lambda: signed(header(), claims(**changes))


def with_payload(payload: bytes) -> Callable[[], bytes]:
    """Genuinely signed, over any octets."""
    return lambda: signed(header(), payload)


def with_header(**changes: Any) -> Callable[[], bytes]:
    """Genuinely signed, with another header."""
    return lambda: signed(header(**changes), GOOD)


def with_raw_header(raw: bytes) -> Callable[[], bytes]:
    """Genuinely signed, with any octets as the header."""
    return lambda: signed(raw, GOOD)


def with_signature(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """The good token with its signature's octets changed."""

    def make() -> bytes:
        signing_input = base64url(octets(header())) + b"." + base64url(octets(GOOD))
        return signing_input + b"." + base64url(change(signature(signing_input, "p256")))

    return make


def member(text: str) -> bytes:
    """The good claims with one more member, written by hand."""
    return (json.dumps(GOOD)[:-1] + ", " + text + "}").encode()


def joined(*segments: bytes) -> bytes:
    """Segments with dots between."""
    return b".".join(segments)


def mixed(header_of: bytes, payload_of: bytes, signature_of: bytes) -> bytes:
    """A token put together from the segments of three."""
    return joined(header_of.split(b".")[0], payload_of.split(b".")[1], signature_of.split(b".")[2])


def unsigned(signature_segment: bytes, payload: Any = None, **changes: Any) -> bytes:
    """A token with any text as its signature."""
    return joined(base64url(octets(header(**changes))), base64url(octets(payload or GOOD)), signature_segment)


def public_pem(kid: str) -> bytes:
    """The public key as anybody can have it."""
    return (
        private_key(kid)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def hmac_with(secret: bytes) -> bytes:
    """HS256 with a secret of the forger's choice, for the issuer whose keys are asymmetric."""
    signing_input = base64url(octets(header(alg="HS256", kid="rsa"))) + b"." + base64url(octets(GOOD))
    return joined(signing_input, base64url(hmac.digest(secret, signing_input, "sha256")))


def spare_bits(segment: int) -> Callable[[], bytes]:
    """The good token with the unused bits of one segment's last character set: the same octets, another text."""

    def make() -> bytes:
        for padding in range(4):
            parts = signed(header(pad="x" * padding), claims(pad="x" * padding)).split(b".")
            if len(parts[segment]) % 4:
                last = parts[segment][-1:]
                alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
                parts[segment] = parts[segment][:-1] + alphabet[alphabet.index(last) + 1 :][:1]
                return joined(*parts)
        raise AssertionError("no segment with spare bits")

    return make


def der(raw: bytes) -> bytes:
    """An ECDSA signature as X.509 has it."""
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def nested(depth: int) -> bytes:
    """The good claims with lists inside one another."""
    return member('"deep": ' + "[" * depth + "]" * depth)


INVALID, EXPIRED = TokenInvalid, TokenExpired
own_jwk = public_jwk("p256 of a forger")

# What it is, how it is made, and the one right answer.
HOSTILE: list[tuple[str, Callable[[], bytes], type[GatewayError]]] = [
    # --- shape: not a compact JWS at all
    ("empty", lambda: b"", INVALID),
    ("one dot", lambda: b".", INVALID),
    ("two dots", lambda: b"..", INVALID),
    ("one segment", lambda: good().split(b".")[0], INVALID),
    ("two segments", lambda: good().rpartition(b".")[0], INVALID),
    ("four segments", lambda: good() + b".AAAA", INVALID),
    ("five segments, as a JWE", lambda: good() + b".AAAA.AAAA", INVALID),
    ("JSON serialization", lambda: octets({"payload": "e30", "protected": "e30", "signature": ""}), INVALID),
    ("empty header", lambda: b"." + good().partition(b".")[2], INVALID),
    ("empty payload, as if detached", lambda: mixed(good(), b"..", good()), INVALID),
    ("no signature", lambda: good().rpartition(b".")[0] + b".", INVALID),
    ("trailing newline", lambda: good() + b"\n", INVALID),
    ("leading space", lambda: b" " + good(), INVALID),
    ("NUL inside", lambda: good()[:20] + b"\0" + good()[20:], INVALID),
    ("not ASCII", lambda: good()[:-1] + b"\xc3\xa9", INVALID),
    ("quoted", lambda: b'"' + good() + b'"', INVALID),
    ("percent-encoded dot", lambda: good().replace(b".", b"%2E", 1), INVALID),
    ("padded", lambda: good() + b"==", INVALID),
    ("padded header", lambda: joined(good().split(b".")[0] + b"=", *good().split(b".")[1:]), INVALID),
    ("standard base64 alphabet", lambda: good()[:-1] + b"+", INVALID),
    ("impossible length", lambda: good().rpartition(b".")[0] + b".AAAAA", INVALID),
    ("spare bits in the header", spare_bits(0), INVALID),
    ("spare bits in the payload", spare_bits(1), INVALID),
    ("spare bits in the signature", spare_bits(2), INVALID),
    ("longer than 16 KiB", with_claims(blob="x" * 16_384), INVALID),
    # --- header
    ("header is not JSON", with_raw_header(b"alg=ES256"), INVALID),
    ("header is a list", with_raw_header(b'["alg","ES256"]'), INVALID),
    ("header is a string", with_raw_header(b'"ES256"'), INVALID),
    ("header in UTF-16", with_raw_header(json.dumps(header()).encode("utf-16")), INVALID),
    ("header with a byte order mark", with_raw_header(b"\xef\xbb\xbf" + octets(header())), INVALID),
    ("header not UTF-8", with_raw_header(b'{"alg":"ES256","kid":"p256","typ":"at+jwt","x":"\xff"}'), INVALID),
    ("header with two alg", with_raw_header(b'{"alg":"none","alg":"ES256","kid":"p256","typ":"at+jwt"}'), INVALID),
    ("header with alg spelt by escapes twice", with_raw_header(b'{"alg":"ES256","\\u0061lg":"none"}'), INVALID),
    ("header with something after it", with_raw_header(octets(header()) + b"{}"), INVALID),
    ("no alg", with_header(alg=...), INVALID),
    ("alg null", with_header(alg=None), INVALID),
    ("alg a number", with_header(alg=256), INVALID),
    ("alg a list", with_header(alg=["ES256"]), INVALID),
    ("alg none, unsigned", lambda: unsigned(b"", alg="none"), INVALID),
    ("alg none, signed", with_header(alg="none"), INVALID),
    ("alg None", with_header(alg="None"), INVALID),
    ("alg in lower case", with_header(alg="es256"), INVALID),
    ("alg with a space", with_header(alg="ES256 "), INVALID),
    ("alg of a JWE", with_header(alg="RSA-OAEP", enc="A256GCM"), INVALID),
    ("alg known but not accepted", with_header(alg="RS512"), INVALID),
    ("alg of another key type", with_header(alg="RS256"), INVALID),
    ("alg of another curve", with_header(alg="ES384"), INVALID),
    ("EdDSA with an EC key", with_header(alg="EdDSA"), INVALID),
    ("HS256 with the public PEM as the secret", lambda: hmac_with(public_pem("rsa")), INVALID),
    ("HS256 with the public JWK as the secret", lambda: hmac_with(octets(public_jwk("rsa"))), INVALID),
    ("HS256 with an empty secret", lambda: hmac_with(b""), INVALID),
    ("crit, empty", with_header(crit=[]), INVALID),
    ("crit, unknown", with_header(crit=["x-unknown"]), INVALID),
    ("crit, known", with_header(crit=["exp"], exp=1), INVALID),
    ("b64 false", with_header(b64=False), INVALID),
    ("b64 true", with_header(b64=True), INVALID),
    ("own key embedded", lambda: signed(header(jwk=own_jwk, kid=...), GOOD, "p256 of a forger"), INVALID),
    ("genuine, with a key embedded", with_header(jwk=public_jwk("p256")), INVALID),
    ("jku", with_header(jku="https://forger.example/jwks.json"), INVALID),
    ("x5u", with_header(x5u="https://forger.example/cert.pem"), INVALID),
    ("x5c", with_header(x5c=["AAAA"]), INVALID),
    ("zip", with_header(zip="DEF"), INVALID),
    ("kid a number", with_header(kid=1), INVALID),
    ("kid null", with_header(kid=None), INVALID),
    ("kid an object", with_header(kid={"p256": 1}), INVALID),
    ("kid empty", with_header(kid=""), INVALID),
    ("kid with a line break", with_header(kid="p256\r\nx-user-id: root"), INVALID),
    ("kid a path", with_header(kid="../../../../dev/null"), INVALID),
    ("kid of nobody", with_header(kid="unknown"), INVALID),
    ("kid of another key", with_header(kid="p256-next"), INVALID),
    ("kid in other case", with_header(kid="P256"), INVALID),
    ("no kid, and nobody's key", lambda: signed(header(kid=...), GOOD, "p256 of a forger"), INVALID),
    ("typ missing", with_header(typ=...), INVALID),
    ("typ of an id token", with_header(typ="JWT"), INVALID),
    ("typ a number", with_header(typ=7), INVALID),
    ("typ null", with_header(typ=None), INVALID),
    ("typ doubly prefixed", with_header(typ="application/application/at+jwt"), INVALID),
    # --- payload: not a claims set
    ("payload is not JSON", with_payload(b"iss=x"), INVALID),
    ("payload is a list", with_payload(b"[]"), INVALID),
    ("payload is a string", with_payload(b'"x"'), INVALID),
    ("payload is null", with_payload(b"null"), INVALID),
    ("payload in UTF-16", with_payload(json.dumps(GOOD).encode("utf-16-le")), INVALID),
    ("payload in Latin-1", with_payload(member('"name": "J\u00fcrgen"').decode().encode("latin-1")), INVALID),
    ("payload with a byte order mark", with_payload(b"\xef\xbb\xbf" + octets(GOOD)), INVALID),
    ("payload with something after it", with_payload(octets(GOOD) + b",{}"), INVALID),
    ("payload with a comment", with_payload(octets(GOOD) + b"//"), INVALID),
    ("payload with a trailing comma", with_payload(octets(GOOD)[:-1] + b",}"), INVALID),
    ("two subs", with_payload(member('"sub": "root"')), INVALID),
    ("two subs, one by escapes", with_payload(member('"\\u0073ub": "root"')), INVALID),
    ("two members inside an object", with_payload(member('"realm": {"a": 1, "a": 2}')), INVALID),
    ("NaN", with_payload(member('"n": NaN')), INVALID),
    ("Infinity", with_payload(member('"n": -Infinity')), INVALID),
    ("a number beyond a double", with_payload(member('"n": 1e999')), INVALID),
    ("a number of 5,000 digits", with_payload(member('"n": ' + "9" * 5_000)), INVALID),
    ("a raw control character", with_payload(member('"n": "a\x01"')), INVALID),
    ("a lone surrogate", with_payload(member('"n": "\\ud800"')), INVALID),
    ("a lone surrogate as a name", with_payload(member('"\\udfff": 1')), INVALID),
    ("17 levels", with_payload(nested(16)), INVALID),
    ("5,000 levels", with_payload(nested(5_000)), INVALID),
    ("5,000 levels never closed", with_payload(b"[" * 5_000), INVALID),
    # --- registered claims
    ("no iss", with_claims(iss=...), INVALID),
    ("iss null", with_claims(iss=None), INVALID),
    ("iss a list", with_claims(iss=[ISSUER]), INVALID),
    ("iss an object", with_claims(iss={ISSUER: 1}), INVALID),
    ("iss of another issuer", with_claims(iss="https://elsewhere.example"), INVALID),
    ("iss with a slash more", with_claims(iss=ISSUER + "/"), INVALID),
    ("iss in other case", with_claims(iss=ISSUER.upper()), INVALID),
    ("iss of the issuer with a shared secret", with_claims(iss=SHARED_ISSUER), INVALID),
    ("shared secret, iss of the issuer with keys", lambda: signed(header(alg="HS256"), GOOD, "secret"), INVALID),
    ("no aud", with_claims(aud=...), INVALID),
    ("aud null", with_claims(aud=None), INVALID),
    ("aud a number", with_claims(aud=1), INVALID),
    ("aud an object", with_claims(aud={"api": True}), INVALID),
    ("aud an empty list", with_claims(aud=[]), INVALID),
    ("aud a list with a number", with_claims(aud=["api", 1]), INVALID),
    ("aud of others", with_claims(aud=["web", "mobile"]), INVALID),
    ("aud a prefix", with_claims(aud="ap"), INVALID),
    ("aud several in one string", with_claims(aud="web api"), INVALID),
    ("no exp", with_claims(exp=...), INVALID),
    ("exp null", with_claims(exp=None), INVALID),
    ("exp a string", with_claims(exp=str(int(NOW) + 600)), INVALID),
    ("exp a bool", with_claims(exp=True), INVALID),
    ("exp a list", with_claims(exp=[int(NOW) + 600]), INVALID),
    ("exp negative", with_claims(exp=-1), INVALID),
    ("exp in milliseconds", with_claims(exp=(int(NOW) + 600) * 1_000), INVALID),
    ("exp of 30 digits", with_claims(exp=10**29), INVALID),
    ("exp passed", with_claims(exp=int(NOW) - 31), EXPIRED),
    ("exp passed to the second, leeway included", with_claims(exp=int(NOW) - 30), EXPIRED),
    ("exp zero", with_claims(exp=0), EXPIRED),
    ("exp passed, signature forged", lambda: unsigned(b"A" * 86, claims(exp=1)), INVALID),
    ("exp passed, kid of nobody", lambda: signed(header(kid="unknown"), claims(exp=1)), INVALID),
    ("exp passed, for another audience", with_claims(exp=1, aud="web"), INVALID),
    ("nbf to come", with_claims(nbf=int(NOW) + 31), INVALID),
    ("nbf a string", with_claims(nbf="0"), INVALID),
    ("nbf a bool", with_claims(nbf=False), INVALID),
    ("nbf null", with_claims(nbf=None), INVALID),
    ("iat to come", with_claims(iat=int(NOW) + 31), INVALID),
    ("iat a string", with_claims(iat="1"), INVALID),
    ("iat negative", with_claims(iat=-5), INVALID),
    ("sub a number", with_claims(sub=1), INVALID),
    ("sub null", with_claims(sub=None), INVALID),
    ("sub empty", with_claims(sub=""), INVALID),
    ("sub with a line break", with_claims(sub="user-1\r\nx-user-id: root"), INVALID),
    ("sub with NUL", with_claims(sub="user-1\0"), INVALID),
    ("sub with a C1 control", with_claims(sub="user-1\x85"), INVALID),
    ("jti a number", with_claims(jti=7), INVALID),
    ("jti empty", with_claims(jti=""), INVALID),
    ("sid an object", with_claims(sid={}), INVALID),
    ("client_id a list", with_claims(client_id=["app"]), INVALID),
    ("azp a number", with_claims(client_id=..., azp=1), INVALID),
    ("azp a number, beside client_id", with_claims(azp=1), INVALID),
    ("scope a number", with_claims(scope=1), INVALID),
    ("scope an object", with_claims(scope={"admin": True}), INVALID),
    ("scp a list with a number", with_claims(scp=["a", 1]), INVALID),
    # --- signature
    ("signature with one bit changed", with_signature(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])), INVALID),
    ("signature cut short", with_signature(lambda raw: raw[:-1]), INVALID),
    ("signature too long", with_signature(lambda raw: raw + b"\0"), INVALID),
    ("signature with a leading zero", with_signature(lambda raw: b"\0" + raw), INVALID),
    ("signature as ASN.1", with_signature(der), INVALID),
    ("signature of zeros", with_signature(lambda raw: bytes(64)), INVALID),
    ("signature with r zero", with_signature(lambda raw: bytes(32) + raw[32:]), INVALID),
    ("signature with s zero", with_signature(lambda raw: raw[:32] + bytes(32)), INVALID),
    ("signature with r and s the order", with_signature(lambda raw: P256_ORDER.to_bytes(32, "big") * 2), INVALID),
    ("signature with halves swapped", with_signature(lambda raw: raw[32:] + raw[:32]), INVALID),
    ("signature of another token", lambda: mixed(good(), good(), another()), INVALID),
    ("payload of another token", lambda: mixed(good(), another(), good()), INVALID),
    ("header of another token", lambda: mixed(another(), good(), good()), INVALID),
    ("key of a forger under a known kid", lambda: signed(header(), GOOD, "p256 of a forger"), INVALID),
    ("RSA signature cut short", lambda: unsigned(base64url(b"\1" * 255), alg="RS256", kid="rsa"), INVALID),
    ("RSA PKCS#1 v1.5 named PS256", lambda: signed(header(alg="PS256", kid="rsa"), GOOD, "rsa"), INVALID),
    ("Ed25519 signature of zeros", lambda: unsigned(b"A" * 86, alg="EdDSA", kid="ed"), INVALID),
    ("HS256 signature empty", lambda: unsigned(b"", claims(iss=SHARED_ISSUER), alg="HS256"), INVALID),
]  # fmt: skip

# Near misses of the rows above that are genuine.
GENUINE: list[tuple[str, Callable[[], bytes]]] = [
    ("ordinary", good),
    ("no kid", with_header(kid=...)),
    ("typ in full and in upper case", with_header(typ="Application/AT+JWT")),
    ("unknown header parameters", with_header(x5t="AAAA", nonce="1")),
    ("several audiences", with_claims(aud=["web", "api"])),
    ("exp a fraction", with_claims(exp=NOW + 0.5)),
    ("exp passed, inside the leeway", with_claims(exp=int(NOW) - 29)),
    ("nbf to come, inside the leeway", with_claims(nbf=int(NOW) + 30)),
    ("iat to come, inside the leeway", with_claims(iat=int(NOW) + 30)),
    ("no iat, no sub, no jti", with_claims(iat=..., sub=..., jti=..., sid=..., client_id=..., scope=...)),
    ("sub in other scripts", with_claims(sub="J\u00fcrgen \u65e5\u672c \U0001f600")),
    ("an escaped surrogate pair", with_payload(member('"n": "\\ud83d\\ude00"'))),
    ("white space around the claims", with_payload(b" " + octets(GOOD) + b"\r\n")),
    ("16 levels", with_payload(nested(15))),
    ("many lists side by side", with_payload(member('"flat": [' + ",".join(["[]"] * 200) + "]"))),
    ("shared secret", lambda: by_joserfc("HS256", "any", claims(iss=SHARED_ISSUER))),
]


@pytest.fixture
def keys() -> KeysAtHand:
    """The keys of the issuer `main`."""
    return KeysAtHand(key_set("rsa", "p256", "p256-next", "p384", "ed"))


@pytest.fixture
def gate(keys: KeysAtHand) -> Verifier:
    """A verifier for an issuer with keys and one with a shared secret."""
    shared = rules(StaticKeys(SECRET, ["HS256"]), name="shared", issuer=SHARED_ISSUER, algorithms=frozenset({"HS256"}))
    return verifier(rules(keys), shared)


@pytest.mark.asyncio
@pytest.mark.parametrize(("make", "error"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
async def test_hostile_tokens_are_refused(make: Callable[[], bytes], error: type[GatewayError], gate: Verifier) -> None:
    """A hostile or malformed token is refused with its code, remembered by nobody, and quoted in no error."""
    raw = make()
    with pytest.raises(GatewayError) as caught:
        await gate.verify(raw, NOW)
    assert type(caught.value) is error
    assert len(gate.cache) == 0
    told = f"{caught.value} {caught.value.detail} {caught.value.cause} {caught.value!r}"
    assert not any(part and part.decode("latin-1") in told for part in raw.split(b".") if len(part) > 8)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [row[1] for row in GENUINE], ids=[row[0] for row in GENUINE])
async def test_near_misses_are_accepted(make: Callable[[], bytes], gate: Verifier) -> None:
    """What looks like a hostile token and is none is accepted: the refusals above are not for another reason."""
    raw = make()
    token = await gate.verify(raw, NOW)
    assert gate.recall(raw, NOW) is token


@pytest.mark.asyncio
async def test_only_an_acceptable_token_seeks_a_key(keys: KeysAtHand, gate: Verifier) -> None:
    """Of all hostile tokens only those that are in order but for the key cause a key to be sought."""
    seeking = {}
    for name, make, _ in HOSTILE:
        with pytest.raises(GatewayError):
            await gate.verify(make(), NOW)
        if keys.sought:
            seeking[name] = keys.sought.copy()
            keys.sought.clear()
    assert seeking.keys() == {
        "kid a path",
        "kid of nobody",
        "kid in other case",
        # The named key is here, but not for this algorithm; whether to look further is up to the source.
        "alg of another key type",
        "alg of another curve",
        "EdDSA with an EC key",
    }


def test_the_table_is_long_enough() -> None:
    """The table has more than sixty rows, each with its own name."""
    assert len({row[0] for row in HOSTILE}) == len(HOSTILE) > 60


@given(raw=st.binary(max_size=200) | st.from_regex(rb"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
@settings(max_examples=150)
@pytest.mark.asyncio
async def test_any_octets_are_refused(raw: bytes) -> None:
    """Whatever the octets, the answer is `token_invalid` and no other exception."""
    with pytest.raises(TokenInvalid):
        await verifier(rules(KeysAtHand(key_set("p256")))).verify(raw, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_NAMES = ("iss", "aud", "exp", "nbf", "iat", "sub", "jti", "sid", "client_id", "azp", "scope", "scp")


@given(changes=st.dictionaries(st.sampled_from(_NAMES), _JSON, min_size=1, max_size=3))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.asyncio
async def test_any_claims_are_answered(changes: dict[str, Any]) -> None:
    """A genuinely signed token with any JSON in its registered claims is accepted or refused, and nothing else."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    try:
        token = await gate.verify(signed(header(), claims(**changes)), NOW)
    except (TokenInvalid, TokenExpired):
        return
    assert "api" in token.audience
    assert token.expires_at + 30 > NOW


@given(position=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
@settings(max_examples=150)
@pytest.mark.asyncio
async def test_any_changed_bit_is_noticed(position: int, bit: int) -> None:
    """A genuine token with any one bit changed is refused."""
    raw = bytearray(good())
    raw[position % len(raw)] ^= 1 << bit
    with pytest.raises(TokenInvalid):
        await verifier(rules(KeysAtHand(key_set("p256")))).verify(bytes(raw), NOW)
