"""The signature algorithms that may be accepted (RFC 7518 §3.1, RFC 9864); never `none`."""

from __future__ import annotations

from typing import Literal

SYMMETRIC = ("HS256", "HS384", "HS512")
Asymmetric = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
Algorithm = Literal[
    Asymmetric,
    "HS256",
    "HS384",
    "HS512",
]
