"""A throwaway issuer: its keys, tokens made by joserfc, and tokens signed octet for octet as a forger likes them."""

from __future__ import annotations

import hmac
import json
import warnings
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.errors import KeysUnavailable
from gateway.keys.jwks import KeySet, VerificationKey, accepted_algorithms, parse_key_set
from gateway.tokens.cache import TokenCache
from gateway.tokens.verifier import IssuerRules, Verifier

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
SHARED_ISSUER = "https://shared.example"
SECRET = b"a secret of thirty-two octets !!" * 2
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey


@cache
def private_key(kid: str) -> PrivateKey:
    """The key of a name: `rsa…`, `p256…`, `p384…` or `ed…`; another key for each name."""
    if kid.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    if kid.startswith("p256"):
        return ec.generate_private_key(ec.SECP256R1())
    if kid.startswith("p384"):
        return ec.generate_private_key(ec.SECP384R1())
    return Ed25519PrivateKey.generate()


def public_jwk(kid: str, /, **members: Any) -> dict[str, Any]:
    """The public half as a JWK, with further members; one given as None is left out."""
    public = private_key(kid).public_key()
    jwk: dict[str, Any]
    if isinstance(public, rsa.RSAPublicKey):
        jwk = dict(RSAAlgorithm.to_jwk(public, as_dict=True))
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = dict(ECAlgorithm.to_jwk(public, as_dict=True))
    else:
        jwk = dict(OKPAlgorithm.to_jwk(public, as_dict=True))
    jwk.pop("key_ops", None)
    jwk |= {"kid": kid, **members}
    return {name: value for name, value in jwk.items() if value is not None}


def key_set_document(*kids: str) -> bytes:
    """A JWK set of the named keys."""
    return json.dumps({"keys": [public_jwk(kid) for kid in kids]}).encode()


ASYMMETRIC = frozenset({"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"})


def key_set(*kids: str) -> KeySet:
    """The named keys, ready to verify."""
    keys, problems = parse_key_set(key_set_document(*kids), ASYMMETRIC)
    assert not problems
    return keys


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of an ordinary access token at `NOW`; a change to `...` leaves the claim out."""
    ordinary: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "api",
        "sub": "user-1",
        "jti": "token-1",
        "sid": "session-1",
        "client_id": "app",
        "scope": "orders:read orders:write",
        "iat": int(NOW) - 60,
        "exp": int(NOW) + 600,
    }
    return {name: value for name, value in (ordinary | changes).items() if value is not ...}


def by_joserfc(alg: str, kid: str, payload: dict[str, Any], **header: Any) -> bytes:
    """A token made by joserfc, which shares no code with the verifier."""
    key: Any
    if alg.startswith("HS"):
        key = OctKey.import_key(SECRET)
    else:
        pem = private_key(kid).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = {"R": RSAKey, "P": RSAKey, "E": OKPKey if alg.startswith("Ed") else ECKey}[alg[0]].import_key(pem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns of `EdDSA`, the name that RFC 9864 replaces
        return jwt.encode({"alg": alg, "kid": kid, "typ": "at+jwt", **header}, payload, key, algorithms=[alg]).encode()


def base64url(octets: bytes) -> bytes:
    """Canonical base64url without padding."""
    return urlsafe_b64encode(octets).rstrip(b"=")


def signature(signing_input: bytes, kid: str) -> bytes:
    """RS256, ES256, ES384 or EdDSA by the key of that name, over any octets; for `secret` HS256 with the secret."""
    if kid == "secret":
        return hmac.digest(SECRET, signing_input, "sha256")
    key = private_key(kid)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(signing_input)
    size = (key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(signing_input, ec.ECDSA(hashes.SHA256() if size == 32 else hashes.SHA384())))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def octets(value: Any) -> bytes:
    """JSON of a value; bytes stay as they are."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def signed(header: Any, payload: Any, kid: str = "p256") -> bytes:
    """A genuinely signed compact JWS over any header and payload."""
    signing_input = base64url(octets(header)) + b"." + base64url(octets(payload))
    return signing_input + b"." + base64url(signature(signing_input, kid))


def header(**changes: Any) -> dict[str, Any]:
    """An ordinary header for the key `p256`; a change to `...` leaves the parameter out."""
    ordinary: dict[str, Any] = {"alg": "ES256", "kid": "p256", "typ": "at+jwt"}
    return {name: value for name, value in (ordinary | changes).items() if value is not ...}


class KeysAtHand:
    """A source with fixed keys, which notes each key that it was asked to look for in vain."""

    def __init__(self, keys: KeySet) -> None:
        self.key_set: KeySet | None = keys
        self.sought: list[str | None] = []

    def known(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """What is at hand."""
        assert self.key_set is not None
        return self.key_set.candidates(kid, alg)

    async def find(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """What is at hand; a miss would be a fetch."""
        keys = self.known(kid, alg)
        if not keys:
            self.sought.append(kid)
        return keys

    async def run(self) -> None:
        """Nothing to do."""

    def samples(self) -> tuple[()]:
        """No numbers."""
        return ()

    def health(self) -> tuple[bool, str]:
        """Always well."""
        return True, ""


class NoKeys(KeysAtHand):
    """A source that has never loaded, and cannot."""

    def __init__(self) -> None:
        super().__init__(KeySet(()))
        self.key_set = None

    def known(self, kid: str | None, alg: str) -> Any:
        """Nothing is at hand."""
        raise KeysUnavailable(cause="no keys")

    async def find(self, kid: str | None, alg: str) -> Any:
        """Nothing comes."""
        self.sought.append(kid)
        raise KeysUnavailable(cause="no keys")


def rules(keys: Any, **changes: Any) -> IssuerRules:
    """The rules for `ISSUER`, with changes."""
    ordinary: dict[str, Any] = {
        "name": "main",
        "issuer": ISSUER,
        "audience": frozenset({"api"}),
        "algorithms": accepted_algorithms(ASYMMETRIC),
        "token_type": "at+jwt",
        "leeway_s": 30.0,
        "max_age_s": None,
        "keys": keys,
    }
    return IssuerRules(**(ordinary | changes))


def verifier(*issuers: IssuerRules) -> Verifier:
    """A verifier with an empty cache."""
    return Verifier(issuers, TokenCache())
