"""Which keys of a set are used, for what, and why the others are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from gateway.keys.jwks import KeySet, accepted_algorithms, der_signature, parse_key_set, secret_key
from tests.tokens.mint import SECRET, key_set, public_jwk, signature

ALL = frozenset("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
ED = {"EdDSA", "Ed25519"}


def parse(*jwks: Any, algorithms: frozenset[str] = ALL) -> tuple[KeySet, list[str]]:
    """The set of some keys."""
    return parse_key_set(json.dumps({"keys": list(jwks)}).encode(), algorithms)


@pytest.mark.parametrize(
    ("jwk", "algorithms", "verifies"),
    [
        (public_jwk("rsa"), ALL, RSA),
        (public_jwk("rsa"), {"RS256", "ES256"}, {"RS256"}),
        (public_jwk("rsa", alg="PS256"), ALL, {"PS256"}),
        (public_jwk("p256"), ALL, {"ES256"}),
        (public_jwk("p384"), ALL, {"ES384"}),
        (public_jwk("ed"), ALL, ED),
        (public_jwk("ed"), {"Ed25519"}, ED),
        (public_jwk("ed", alg="Ed25519"), {"EdDSA"}, ED),
        (public_jwk("ed", alg="EdDSA"), ALL, ED),
        (public_jwk("p256", use="sig"), ALL, {"ES256"}),
        (public_jwk("p256", key_ops=["verify"]), ALL, {"ES256"}),
        (public_jwk("p256", kid=None), ALL, {"ES256"}),
        (public_jwk("p256", x5c=["AAAA"], unknown={}), ALL, {"ES256"}),
    ],
)
def test_a_key_verifies_what_its_type_allows(jwk: dict[str, Any], algorithms: Any, verifies: set[str]) -> None:
    """A key may verify what its type, its curve, its own `alg` and the issuer's algorithms all allow."""
    keys, problems = parse(jwk, algorithms=frozenset(algorithms))
    assert problems == []
    assert [key.algorithms for key in keys.keys] == [verifies]


def weak() -> dict[str, Any]:
    """An RSA key of 1024 bits."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=1_024).public_key()
    return dict(RSAAlgorithm.to_jwk(key, as_dict=True)) | {"key_ops": ["verify"]}


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (7, "not an object"),
        ({}, "kty is not"),
        ({"kty": 7}, "kty is not"),
        ({"kty": "oct", "k": "AAAA"}, "shared secrets belong in the configuration"),
        (public_jwk("p256", kid=7), "kid is not a string"),
        (public_jwk("p256", d="AAAA"), "a private key was published"),
        (public_jwk("rsa", p="AAAA"), "a private key was published"),
        (public_jwk("rsa", use="enc"), "use is not sig"),
        (public_jwk("rsa", use=None, key_ops=["encrypt"]), "key_ops does not include verify"),
        (public_jwk("rsa", key_ops="verify"), "key_ops does not include verify"),
        (public_jwk("rsa", alg="RSA-OAEP"), "does not fit the key"),
        (public_jwk("rsa", alg="ES256"), "does not fit the key"),
        (public_jwk("p256", alg="ES384"), "does not fit the key"),
        (public_jwk("p256", alg="none"), "does not fit the key"),
        (public_jwk("p256", alg="HS256"), "does not fit the key"),
        (public_jwk("p256", alg=["ES256"]), "alg is not a string"),
        (public_jwk("rsa", n=None), "n is missing"),
        (public_jwk("rsa", n=5), "n is missing"),
        (public_jwk("rsa", e="AQ"), "e must be"),
        (public_jwk("rsa", e="Ag"), "e must be"),
        (public_jwk("rsa", e="AQAAAAAAAAAB"), "exponent"),
        (public_jwk("rsa", e=""), ""),
        (public_jwk("rsa", n="A+/B"), "alphabet"),
        (public_jwk("rsa", n="AQAB=="), "alphabet"),
        (weak(), "1024 bits"),
        (public_jwk("p256", crv="P-384"), "48 bytes"),
        (public_jwk("p256", crv="secp256k1"), "crv is not"),
        (public_jwk("p256", crv=None), "crv is missing"),
        (public_jwk("p256", y=public_jwk("p256")["x"]), ""),
        (public_jwk("p256", x="AAAA"), "32 bytes"),
        (public_jwk("p256", kty="RSA"), "e is missing"),
        (public_jwk("ed", crv="X25519"), "crv is not Ed25519"),
        (public_jwk("ed", crv="Ed448"), "crv is not Ed25519"),
        (public_jwk("ed", x="AAAA"), ""),
    ],
)
def test_one_unusable_key_never_fails_the_set(jwk: Any, reason: str) -> None:
    """A key that is weak, malformed, private or for another purpose is left out and told; the others are used."""
    keys, problems = parse(jwk, public_jwk("p384"))
    assert [key.kid for key in keys.keys] == ["p384"]
    assert len(problems) == 1
    assert problems[0].startswith("key 1 ")
    assert reason in problems[0]


def test_a_key_for_algorithms_of_another_issuer_is_left_out() -> None:
    """Keys that the issuer is not configured to use are left out."""
    keys, problems = parse(public_jwk("rsa"), public_jwk("p256"), algorithms=frozenset({"ES256"}))
    assert [key.kid for key in keys.keys] == ["p256"]
    assert "not configured" in problems[0]


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": null}', b'{"keys": [], "keys": []}', b"\xff"])
def test_not_a_key_set(document: bytes) -> None:
    """Something that is not a JWK set at all is an error, not an empty set."""
    with pytest.raises(ValueError):
        parse_key_set(document, ALL)


def test_a_set_is_bounded() -> None:
    """Beyond a hundred keys the rest is not looked at, and said so."""
    keys, problems = parse(*(public_jwk("ed", kid=None) | {"kid": str(number)} for number in range(120)))
    assert len(keys.keys) == 100
    assert problems == ["20 keys after the first 100 are not looked at"]


def test_candidates() -> None:
    """A token that names a key is tried on that one alone; one that names none on all that fit its algorithm."""
    keys = key_set("rsa", "p256", "p256-next", "ed")
    assert [key.kid for key in keys.candidates("p256", "ES256")] == ["p256"]
    assert [key.kid for key in keys.candidates(None, "ES256")] == ["p256", "p256-next"]
    assert [key.kid for key in keys.candidates(None, "Ed25519")] == ["ed"]
    assert keys.candidates("rsa", "ES256") == ()
    assert keys.candidates("unknown", "ES256") == ()
    assert keys.candidates(None, "HS256") == ()


def test_too_many_candidates_are_none() -> None:
    """A token that names no key cannot make the gateway compute more than eight signatures."""
    keys, _ = parse(*(public_jwk(f"p256-{number}") for number in range(9)))
    assert keys.candidates(None, "ES256") == ()
    assert len(keys.candidates("p256-3", "ES256")) == 1
    fewer, _ = parse(*(public_jwk(f"p256-{number}") for number in range(8)))
    assert len(fewer.candidates(None, "ES256")) == 8


def test_identity_tells_when_a_key_is_the_same() -> None:
    """A key in two sets has the same identity; another name, algorithm or material makes another key."""
    (first,), (again,) = parse(public_jwk("p256"))[0].keys, parse(public_jwk("p256", use="sig", x5t="A"))[0].keys
    assert first.identity == again.identity
    (renamed,) = parse(public_jwk("p256") | {"kid": "other"})[0].keys
    (replaced,) = parse(public_jwk("p256-next") | {"kid": "p256"})[0].keys
    assert len({first.identity, renamed.identity, replaced.identity}) == 3
    (wide,), (narrow,) = parse(public_jwk("rsa"))[0].keys, parse(public_jwk("rsa", alg="RS256"))[0].keys
    assert wide.thumbprint == narrow.thumbprint
    assert wide.identity != narrow.identity


def test_a_key_refuses_other_algorithms() -> None:
    """A key answers False to an algorithm that is not its own, whatever the signature."""
    keys, _ = parse(public_jwk("p256"))
    made = signature(b"message", "p256")
    assert keys.keys[0].verify("ES256", b"message", made)
    assert not keys.keys[0].verify("ES384", b"message", made)
    assert not keys.keys[0].verify("none", b"message", b"")
    assert not keys.keys[0].verify("ES256", b"other", made)


@pytest.mark.parametrize(
    ("length", "algorithms", "good"),
    [(32, ["HS256"], True), (31, ["HS256"], False), (48, ["HS256", "HS384"], True), (63, ["HS256", "HS512"], False)],
)
def test_a_secret_is_as_long_as_the_hash(length: int, algorithms: list[str], good: bool) -> None:
    """RFC 7518 §3.2: a secret shorter than the longest hash it is used with is refused."""
    if good:
        assert secret_key(b"x" * length, algorithms).algorithms == set(algorithms)
    else:
        with pytest.raises(ValueError, match="shorter"):
            secret_key(b"x" * length, algorithms)


def test_a_secret_is_for_hmac_only() -> None:
    """No other algorithm takes a shared secret, and the secret shows in no representation."""
    with pytest.raises(ValueError, match="RS256"):
        secret_key(SECRET, ["RS256"])
    assert SECRET.decode() not in repr(secret_key(SECRET, ["HS256"]))


def test_both_names_of_ed25519() -> None:
    """RFC 9864 renamed EdDSA with Ed25519; whoever configures one name accepts both."""
    assert accepted_algorithms(["EdDSA"]) == accepted_algorithms(["Ed25519"]) == ED
    assert accepted_algorithms(["RS256"]) == {"RS256"}


# Numbers of every length up to that of the curve's order (ES256, ES384, ES512), among them 0 and all bits set.
NUMBERS = st.sampled_from([32, 48, 66]).flatmap(
    lambda size: st.tuples(st.just(size), *[st.binary(max_size=size) | st.just(b"\xff" * size)] * 2)
)


@given(NUMBERS)
@example((32, b"", b"\x7f"))
@example((32, b"\x80", b"\0\x80"))
@example((66, b"\xff" * 66, b"\x01" + b"\0" * 65))
def test_a_signature_in_asn1(numbers: tuple[int, bytes, bytes]) -> None:
    """R and S of fixed length become the same DER that `cryptography` writes for the two numbers."""
    size, r, s = numbers
    expected = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    assert der_signature(r.rjust(size, b"\0") + s.rjust(size, b"\0"), size) == expected
