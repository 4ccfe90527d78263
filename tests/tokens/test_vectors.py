"""Published vectors against the verifier: Wycheproof, the JOSE cookbook (RFC 7520, RFC 7797) and RFC 8037.

They lie outside the repository; `GATEWAY_VECTORS` names the folder where it is not `../shared/vectors`. Hardly any
payload is a claims set, so they are checked as the verifier checks a signature: strict reading, then the keys that may
have signed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import TokenInvalid
from gateway.keys.jwks import KeySet, parse_key_set, secret_key
from gateway.keys.notation import decode_base64url
from gateway.tokens.claims import UnverifiedToken, parse_compact
from gateway.tokens.verifier import check_signature

FOLDER = Path(os.environ.get("GATEWAY_VECTORS") or Path(__file__).resolve().parents[3] / "shared" / "vectors")
if not FOLDER.is_dir():
    pytest.skip(f"no published vectors in {FOLDER}", allow_module_level=True)

ASYMMETRIC = frozenset("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
# Where our answer differs from what a signature test is marked with, and why.
DIFFERENT = {
    372: False,  # a `?` inside a segment: RFC 7515 §5.2 says to refuse it
    373: False,
    346: False,  # signed with PS384 by a key whose `alg` is PS256: RFC 7517 §4.4 binds it
    350: False,
    367: True,  # octet for octet test 357, which is valid: its padding was lost
    370: True,
}


def read(name: str) -> Any:
    """One file of vectors."""
    return json.loads((FOLDER / name).read_text())


def usable(key: dict[str, Any]) -> KeySet:
    """The keys of a vector as an issuer would have them: a public key set, or a shared secret."""
    jwks = [dict(jwk) for jwk in key.get("keys", [key])]
    if all(jwk["kty"] == "oct" for jwk in jwks):
        return KeySet(found for jwk in jwks for found in secret(jwk))
    for jwk in jwks:
        jwk.pop("d", None)  # a vector that signs; the gateway would refuse to see it published
        for name in ("p", "q", "dp", "dq", "qi"):
            jwk.pop(name, None)
        if jwk.get("alg") == "ES521" and jwk["crv"] == "P-521":
            jwk["alg"] = "ES512"  # a slip in the vectors
    return parse_key_set(json.dumps({"keys": jwks}).encode(), ASYMMETRIC)[0]


def secret(jwk: dict[str, Any]) -> list[Any]:
    """A shared secret as the configuration would give it, or nothing if it would be refused there."""
    try:
        return [secret_key(decode_base64url(jwk["k"].encode()), [jwk["alg"]])]
    except (KeyError, ValueError):
        return []


def holds(jws: str | dict[str, Any], keys: KeySet) -> UnverifiedToken | None:
    """The token if it is well-formed and one of the keys that may have signed has; None if it is refused."""
    raw = jws if isinstance(jws, str) else json.dumps(jws)
    try:
        token = parse_compact(raw.encode())
        header = token.unverified_header
        shared = any(key.thumbprint == "secret" for key in keys.keys)
        check_signature(token, keys.candidates(None if shared else header.kid, header.alg))
    except TokenInvalid:
        return None
    return token


def cases(kind: str) -> list[Any]:
    """Every JWS of one Wycheproof file: its keys, the token, what it should be."""
    found = []
    for group in read(f"wycheproof/json_web_{kind}_test.json")["testGroups"]:
        for test in group["tests"]:
            if "jws" in test:
                key = group.get("public") or group["private"]
                found.append(pytest.param(key, test, id=f"{test['tcId']} {group['comment']} {test['comment']}"))
    return found


@pytest.mark.parametrize(("key", "test"), cases("signature"))
def test_wycheproof_signatures(key: dict[str, Any], test: dict[str, Any]) -> None:
    """A signature is accepted exactly where Wycheproof says that it is valid, but for the differences above."""
    valid = DIFFERENT.get(test["tcId"], test["result"] == "valid")
    assert (holds(test["jws"], usable(key)) is not None) is valid


@pytest.mark.parametrize(("key", "test"), cases("key"))
def test_wycheproof_keys(key: dict[str, Any], test: dict[str, Any]) -> None:
    """A signature by a weak or malformed key, or one for another purpose, is refused; one by a good key is accepted."""
    token = holds(test["jws"], usable(key))
    # RFC 7517 §4.5 leaves it open whether a set with the same `kid` twice is refused as a whole.
    assert "DuplicateKid" in test["flags"] or (token is not None) is (test["result"] == "valid")


@pytest.mark.parametrize(("key", "test"), cases("crypto"))
def test_wycheproof_crypto(key: dict[str, Any], test: dict[str, Any]) -> None:
    """Known attacks on JOSE libraries are refused, and what looks like them and is genuine is accepted."""
    assert (holds(test["jws"], usable(key)) is not None) is (test["result"] == "valid")


@pytest.mark.parametrize("kind", ["crypto", "encryption"])
def test_encrypted_tokens_are_refused(kind: str) -> None:
    """No JWE, valid or not, is taken for a signed token."""
    groups = read(f"wycheproof/json_web_{kind}_test.json")["testGroups"]
    tokens = [test["jwe"] for group in groups for test in group["tests"] if "jwe" in test]
    assert tokens
    for jwe in tokens:
        with pytest.raises(TokenInvalid):
            parse_compact((jwe if isinstance(jwe, str) else json.dumps(jwe)).encode())


COOKBOOK = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("cookbook/jws/*.json"))
COOKBOOK += ["cookbook/curve25519/jws.json"]


@pytest.mark.parametrize("name", COOKBOOK)
def test_cookbook_signatures(name: str) -> None:
    """The cookbook's compact tokens hold; JSON serializations, and a token whose content is detached, are refused."""
    vector = read(name)
    found = vector["input"]["key"]
    keys = usable({"keys": found} if isinstance(found, list) else found)
    assert vector["output"]
    for form, jws in vector["output"].items():
        token = holds(jws, keys)
        if form == "compact" and "detached" not in name:
            assert token is not None
            assert token.unverified_payload.decode() == vector["input"]["payload"]
        else:
            assert token is None


@pytest.mark.parametrize("name", ["4.2.hmac-sha2_b64_false", "hmac-sha2_b64_false"])
def test_unencoded_payloads_are_refused(name: str) -> None:
    """A token with `b64: false` (RFC 7797) is refused in every form, although its signature holds."""
    vector = read(f"cookbook/rfc7797/{name}.json")
    for jws in vector["output"].values():
        assert holds(jws, usable(vector["input"]["key"])) is None


def test_rfc8037() -> None:
    """Appendix A: the thumbprint of the key, and the token that it signed."""
    sections = read("rfc8037/ed25519.json")["sections"]
    keys = usable(sections["A.2"]["public"])
    assert [key.thumbprint for key in keys.keys] == [sections["A.3"]["sha256_thumbprint"]]
    token = holds(sections["A.4-A.5"]["compact"], keys)
    assert token is not None
    assert token.unverified_payload.decode() == sections["A.4-A.5"]["payload"]


def test_cookbook_keys() -> None:
    """The cookbook's public keys can be used, and its private and symmetric ones are refused in a key set."""
    public = {"3_1.ec_public_key", "3_3.rsa_public_key"}
    for name in public | {"3_2.ec_private_key", "3_4.rsa_private_key", "3_5.symmetric_key_mac_computation"}:
        jwk, good = read(f"cookbook/jwk/{name}.json"), name in public
        keys, problems = parse_key_set(json.dumps({"keys": [jwk]}).encode(), ASYMMETRIC)
        assert (len(keys.keys), len(problems)) == ((1, 0) if good else (0, 1))
