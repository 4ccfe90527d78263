"""Keys and signed tokens for the load, made once and kept in a directory of the temporary folder.

Signing uses `cryptography` directly: the tokens come from none of the libraries that check them here. RS256 signatures
take long enough that a pool of processes makes them and a later run finds them on disk.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Algorithm = Literal["ES256", "RS256"]
ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "RS256")

ISSUER = "https://issuer.example"
AUDIENCE = "api"
WARM_TOKENS = 2_000
_LIFETIME_S = 7 * 86_400
_REUSE_FOR_S = 86_400
_WORTH_A_POOL = 1_000
_FORMAT = 3  # raise it when keys or claims change, so that tokens on disk are made again

_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class KeyFiles:
    """Where one algorithm's key lies: the key pair, the public half as PEM (HAProxy) and as a JWK set (the others)."""

    algorithm: Algorithm
    private_pem: Path
    public_pem: Path
    jwks: Path


@dataclass(frozen=True)
class Hostile:
    """Tokens that a checking peer must refuse before it is measured; `revoked` is good until its `jti` is denied."""

    forged: str
    expired: str
    wrong_audience: str
    wrong_issuer: str
    revoked: str
    revoked_id: str

    def named(self) -> dict[str, str]:
        """Each token that is wrong by itself under the word for what is wrong with it."""
        return {
            "forged signature": self.forged,
            "expired": self.expired,
            "wrong audience": self.wrong_audience,
            "wrong issuer": self.wrong_issuer,
        }


def store_directory() -> Path:
    """The directory that keeps keys and tokens between runs; readable by its owner only."""
    directory = Path(tempfile.gettempdir()) / f"gateway-bench-{os.getuid()}-{_FORMAT}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to somebody else")
    return directory


def key_files(algorithm: Algorithm) -> KeyFiles:
    """The key of one algorithm, made at the first call and read from disk afterwards."""
    directory = store_directory()
    files = KeyFiles(
        algorithm,
        directory / f"{algorithm}.key.pem",
        directory / f"{algorithm}.pub.pem",
        directory / f"{algorithm}.jwks.json",
    )
    if not files.jwks.exists():
        _write_key(files)
    return files


def token_file(algorithm: Algorithm, label: str, count: int) -> Path:
    """A file of `count` distinct valid tokens, one a line, made at most a day ago."""
    keys = key_files(algorithm)
    path = store_directory() / f"{algorithm}.{label}.{count}.txt"
    if path.exists() and time.time() - path.stat().st_mtime < _REUSE_FOR_S:
        return path
    sign_one = partial(_sign_numbered, keys, label, int(time.time()))
    if count < _WORTH_A_POOL:
        lines = [sign_one(number) for number in range(count)]
    else:
        with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
            lines = pool.map(sign_one, range(count), chunksize=200)
    partial_path = path.with_suffix(f".{os.getpid()}")
    partial_path.write_text("\n".join(lines) + "\n")
    partial_path.replace(path)
    return path


def first_token(path: Path) -> str:
    """The first token of a token file."""
    with path.open() as lines:
        return lines.readline().strip()


def hostile_tokens(algorithm: Algorithm) -> Hostile:
    """One token for each way of being wrong that a peer claims to check."""
    key = _load(key_files(algorithm))
    now = int(time.time())
    good = claims(0, "hostile", now)
    head, body, signature = sign(key, algorithm, good).split(".")
    revoked = claims(1, "hostile", now)
    other = sign(key, algorithm, revoked).split(".")[2]
    assert other != signature
    return Hostile(
        forged=f"{head}.{body}.{other}",
        expired=sign(key, algorithm, {**good, "iat": now - 9_000, "exp": now - 5_000}),
        wrong_audience=sign(key, algorithm, {**good, "aud": "elsewhere"}),
        wrong_issuer=sign(key, algorithm, {**good, "iss": "https://elsewhere.example"}),
        revoked=sign(key, algorithm, revoked),
        revoked_id=str(revoked["jti"]),
    )


def claims(number: int, label: str, now: int) -> dict[str, object]:
    """Claims of an ordinary access token; `sub` and `jti` differ for every number and label."""
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": f"user-{number}",
        "email": f"user-{number}@shop.example",
        "scope": "orders:read orders:write profile",
        "roles": ["customer", "reviewer"],
        "client_id": "shop-ios-4.2.0",
        "sid": hashlib.sha256(f"sid {label} {number}".encode()).hexdigest()[:22],
        "jti": hashlib.sha256(f"jti {label} {number}".encode()).hexdigest()[:22],
        "iat": now - 60,
        "exp": now + _LIFETIME_S,
    }


def sign(key: _Key, algorithm: Algorithm, payload: dict[str, object]) -> str:
    """A compact JWS (RFC 7515 §7.1) over the payload."""
    header = {"alg": algorithm, "typ": "JWT", "kid": f"bench-{algorithm.lower()}"}
    signed = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
    return (signed + b"." + _base64url(_signature(key, signed))).decode()


def _signature(key: _Key, signed: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


_key_of_this_process: dict[Algorithm, _Key] = {}


def _sign_numbered(keys: KeyFiles, label: str, now: int, number: int) -> str:
    key = _key_of_this_process.get(keys.algorithm)
    if key is None:
        key = _key_of_this_process[keys.algorithm] = _load(keys)
    return sign(key, keys.algorithm, claims(number, label, now))


def _load(keys: KeyFiles) -> _Key:
    key = serialization.load_pem_private_key(keys.private_pem.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise TypeError(f"{keys.private_pem} holds neither an RSA nor an EC key")
    return key


def _write_key(files: KeyFiles) -> None:
    key: _Key
    if files.algorithm == "RS256":
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    files.private_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files.public_pem.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    # The set is written last: its presence says that all three are there.
    files.jwks.write_text(json.dumps({"keys": [_public_jwk(key, files.algorithm)]}))


def _public_jwk(key: _Key, algorithm: Algorithm) -> dict[str, str]:
    common = {"kid": f"bench-{algorithm.lower()}", "alg": algorithm, "use": "sig"}
    public = key.public_key().public_numbers()
    if isinstance(public, rsa.RSAPublicNumbers):
        return {"kty": "RSA", "n": _number(public.n), "e": _number(public.e), **common}
    return {"kty": "EC", "crv": "P-256", "x": _number(public.x, 32), "y": _number(public.y, 32), **common}


def _number(value: int, length: int | None = None) -> str:
    return _base64url(value.to_bytes(length or (value.bit_length() + 7) // 8, "big")).decode()


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")
