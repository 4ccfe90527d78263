"""JWK sets (RFC 7517) as usable keys: what each key may verify is settled when the set is read, not when a token comes.

A key verifies only algorithms of its own type and curve that the issuer may use, and only its own `alg` if it names
one; a token's header chooses among these and can never add to them. PyJWT builds the keys; the signatures are checked
with `cryptography` directly, because PyJWT makes new padding and hash objects for each token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from gateway.keys.notation import decode_base64url, parse_object

MAX_KEYS = 100  # real sets have fewer than ten; each costs some 50 µs to build
MAX_CANDIDATES = 8  # signatures computed for one token, when it names no key or several keys share a name
RSA_BITS = range(2048, 8192 + 1)  # RFC 7518 §3.3; larger keys let a forger buy much CPU with few bytes
_RSA_EXPONENTS = range(3, 2**64)  # the usual one is 65537; a long one makes each signature costly

Check = Callable[[bytes, bytes], bool]
"""Whether a signature (second) over a signing input (first) holds."""

_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_CURVE_ALGORITHM = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}  # RFC 7518 §3.4 binds the curve to the hash
_REQUIRED = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}  # RFC 7638 §3.2
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# What stands before the octets of a DER integer, and before those of two in a sequence (X.690 §8.3, §8.9), by length.
_DER_POSITIVE = tuple(bytes((2, length)) for length in range(67))
_DER_WITH_ZERO = tuple(bytes((2, length + 1, 0)) for length in range(67))
_DER_SEQUENCE = tuple(bytes([48, length] if length < 128 else [48, 129, length]) for length in range(139))
_ED25519 = frozenset({"EdDSA", "Ed25519"})  # RFC 9864 renames it; both names mean the same signature


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """One key and the algorithms it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    thumbprint: str = field(repr=False)  # RFC 7638 with SHA-256, base64url; "secret" for a shared secret
    identity: str = field(repr=False)  # kid, algorithms and thumbprint: equal in two sets if the key is the same
    checks: dict[str, Check] = field(repr=False)

    def verify(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature holds; False as well for an algorithm this key may not verify."""
        check = self.checks.get(alg)
        return check is not None and check(signing_input, signature)


class KeySet:
    """An immutable set of keys, indexed by what a token's header says."""

    __slots__ = ("_index", "identities", "keys", "kids")

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self.identities = frozenset(key.identity for key in self.keys)
        self.kids = frozenset(key.kid for key in self.keys if key.kid is not None)
        index: dict[tuple[str | None, str], list[VerificationKey]] = {}
        for key in self.keys:
            for alg in key.algorithms:
                for kid in {key.kid, None}:  # a token without kid may mean any key
                    index.setdefault((kid, alg), []).append(key)
        self._index: dict[tuple[str | None, str], tuple[VerificationKey, ...]] = {
            name: tuple(found) for name, found in index.items() if len(found) <= MAX_CANDIDATES
        }

    def candidates(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """The keys that may have signed: those named `kid`, or all when the token names none; () if none or too many.

        RFC 7515 §4.1.4 lets a token name its key; one that names a key which is not here is never tried on another.
        """
        return self._index.get((kid, alg), ())


def accepted_algorithms(names: Iterable[str]) -> frozenset[str]:
    """The `alg` values that an issuer's configured algorithms stand for: `EdDSA` and `Ed25519` imply each other."""
    accepted = frozenset(names)
    return accepted | _ED25519 if accepted & _ED25519 else accepted


def secret_key(secret: bytes, algorithms: Iterable[str]) -> VerificationKey:
    """A shared secret for HS* algorithms; ValueError if shorter than a hash it is used with (RFC 7518 §3.2)."""
    names = frozenset(algorithms)
    checks: dict[str, Check] = {}
    for name in names:
        if name not in ("HS256", "HS384", "HS512"):
            raise ValueError(f"{name} does not use a shared secret")
        if len(secret) * 8 < int(name[2:]):
            raise ValueError(f"the secret is shorter than the hash of {name} (RFC 7518 §3.2)")
        checks[name] = _hmac(secret, f"sha{name[2:]}")
    return VerificationKey(None, names, "secret", "secret", checks)


def parse_key_set(document: bytes, algorithms: frozenset[str]) -> tuple[KeySet, list[str]]:
    """The usable keys of a JWK set, and why each of the others is not used.

    `algorithms` are the issuer's. One unusable key never fails the set (RFC 7517 §5); ValueError if the document is not
    a JWK set at all. A key set is public, so the reasons may go to the log.
    """
    entries = parse_object(document).get("keys")
    if not isinstance(entries, list):
        raise ValueError("no `keys` list")
    accepted = accepted_algorithms(algorithms)
    usable: list[VerificationKey] = []
    problems: list[str] = []
    for number, jwk in enumerate(entries[:MAX_KEYS], start=1):
        try:
            usable.append(_parse_key(jwk, accepted))
        except (ValueError, TypeError, PyJWTError, UnsupportedAlgorithm) as exc:
            kid = jwk.get("kid") if isinstance(jwk, dict) else None
            problems.append(f"key {number} (kid {str(kid)[:64]!a}): {exc}")
    if len(entries) > MAX_KEYS:
        problems.append(f"{len(entries) - MAX_KEYS} keys after the first {MAX_KEYS} are not looked at")
    return KeySet(usable), problems


def _parse_key(jwk: Any, accepted: frozenset[str]) -> VerificationKey:
    if not isinstance(jwk, dict):
        raise ValueError("not an object")
    kty, kid = jwk.get("kty"), jwk.get("kid")
    if not isinstance(kty, str) or kty not in _REQUIRED:
        raise ValueError("kty is not RSA, EC or OKP; shared secrets belong in the configuration")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("kid is not a string")
    if not _PRIVATE.isdisjoint(jwk):
        raise ValueError("a private key was published; it must be withdrawn and replaced")
    _require_purpose(jwk)
    checks = _bind(_build(jwk, kty), jwk)
    named = jwk.get("alg")
    if named is not None:
        if not isinstance(named, str):
            raise ValueError("alg is not a string")
        own = _ED25519 if named in _ED25519 else {named}
        if own.isdisjoint(checks):
            raise ValueError(f"alg {named[:32]!a} does not fit the key")
        checks = {name: check for name, check in checks.items() if name in own}
    checks = {name: check for name, check in checks.items() if name in accepted}
    if not checks:
        raise ValueError("for algorithms that the issuer is not configured to use")
    thumbprint = _thumbprint(jwk, kty)
    names = frozenset(checks)
    return VerificationKey(kid, names, thumbprint, f"{thumbprint} {','.join(sorted(names))} {kid}", checks)


def _require_purpose(jwk: dict[str, Any]) -> None:
    if jwk.get("use", "sig") != "sig":
        raise ValueError("use is not sig")
    operations = jwk.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        raise ValueError("key_ops does not include verify")


def _build(jwk: dict[str, Any], kty: str) -> object:
    members = {}
    for name in _REQUIRED[kty]:
        value = jwk.get(name)
        if not isinstance(value, str):
            raise ValueError(f"{name} is missing or not a string")
        if name not in ("kty", "crv"):
            decode_base64url(value.encode())  # PyJWT skips characters it does not know, which gives another key
        members[name] = value
    if kty == "RSA":
        return RSAAlgorithm.from_jwk(members)
    if kty == "EC":
        if members["crv"] not in _CURVE_ALGORITHM:
            raise ValueError("crv is not P-256, P-384 or P-521")
        return ECAlgorithm.from_jwk(members)
    if members["crv"] != "Ed25519":
        raise ValueError("crv is not Ed25519")
    return OKPAlgorithm.from_jwk(members)


def _bind(key: object, jwk: dict[str, Any]) -> dict[str, Check]:
    """Every algorithm that the key's type and curve allow."""
    if isinstance(key, rsa.RSAPublicKey):
        _require_strength(key)
        checks: dict[str, Check] = {}
        for bits, make in _HASHES.items():
            digest = make()
            # RFC 7518 §3.5: "The size of the salt value is the same size as the hash function output."
            salted = padding.PSS(padding.MGF1(make()), digest.digest_size)
            checks[f"RS{bits}"] = _rsa(key, padding.PKCS1v15(), digest)
            checks[f"PS{bits}"] = _rsa(key, salted, digest)
        return checks
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = _CURVE_ALGORITHM[jwk["crv"]]
        return {name: _ecdsa(key, _HASHES[name[2:]]())}
    if isinstance(key, Ed25519PublicKey):
        check = _eddsa(key)
        return dict.fromkeys(_ED25519, check)
    raise ValueError("not a public key of a known type")


def _require_strength(key: rsa.RSAPublicKey) -> None:
    numbers = key.public_numbers()
    if key.key_size not in RSA_BITS:
        raise ValueError(f"an RSA modulus of {key.key_size} bits; {RSA_BITS[0]} to {RSA_BITS[-1]} are accepted")
    if numbers.e not in _RSA_EXPONENTS:
        raise ValueError("an RSA exponent that is too small or too large")
    if all(numbers.n % prime in residues for prime, residues in _ROCA.items()):
        raise ValueError("an RSA modulus from a faulty chip, whose private key can be computed (CVE-2017-15361)")


def _powers(base: int, prime: int) -> frozenset[int]:
    return frozenset(pow(base, exponent, prime) for exponent in range(prime - 1))


# Keys made by the faulty library are powers of 65537 modulo each small prime: a random modulus passes all with 2^-27.
_PRIMES = [number for number in range(3, 168) if all(number % divisor for divisor in range(2, number))]
_ROCA = {prime: _powers(65_537, prime) for prime in _PRIMES}


def _rsa(key: rsa.RSAPublicKey, scheme: padding.AsymmetricPadding, digest: hashes.HashAlgorithm) -> Check:
    verify, size = key.verify, (key.key_size + 7) // 8

    def check(signing_input: bytes, signature: bytes) -> bool:
        if len(signature) != size:  # RFC 8017 §8.1.2, step 1
            return False
        try:
            verify(signature, signing_input, scheme, digest)
        except InvalidSignature:
            return False
        return True

    return check


def _ecdsa(key: ec.EllipticCurvePublicKey, digest: hashes.HashAlgorithm) -> Check:
    verify, size, scheme = key.verify, (key.curve.key_size + 7) // 8, ec.ECDSA(digest)

    def check(signing_input: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * size:  # RFC 7518 §3.4: R and S as octets of fixed length, not as ASN.1
            return False
        try:
            verify(der_signature(signature, size), signing_input, scheme)
        except InvalidSignature:
            return False
        return True

    return check


def der_signature(signature: bytes, size: int) -> bytes:
    """R and S, octets of the given size (1 to 66) one after the other, in DER: `Ecdsa-Sig-Value` of RFC 3279 §2.2.3."""
    body = _der_integer(signature[:size]) + _der_integer(signature[size:])
    return _DER_SEQUENCE[len(body)] + body


def _der_integer(octets: bytes) -> bytes:
    """An unsigned number: without leading zeros, but for the one that keeps a first bit from meaning a minus."""
    if octets[0] == 0:
        octets = octets.lstrip(b"\0") or b"\0"
    return (_DER_POSITIVE if octets[0] < 128 else _DER_WITH_ZERO)[len(octets)] + octets


def _eddsa(key: Ed25519PublicKey) -> Check:
    verify = key.verify

    def check(signing_input: bytes, signature: bytes) -> bool:
        try:
            verify(signature, signing_input)
        except InvalidSignature:
            return False
        return True

    return check


def _hmac(secret: bytes, digest: str) -> Check:
    def check(signing_input: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(secret, signing_input, digest), signature)

    return check


def _thumbprint(jwk: dict[str, Any], kty: str) -> str:
    required = {name: jwk[name] for name in _REQUIRED[kty]}
    text = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
