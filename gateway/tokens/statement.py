"""Signed statements: what an issuer says *about* tokens. Logout tokens, security event tokens, status lists.

They come in the form of access tokens and are signed with the same keys, so they are read by the same strict parser
and checked in the same order; but they are no credentials. Each kind has a `typ` of its own, so that none passes for
another (RFC 8725 §3.11). What is wrong is told to the sender, who is an issuer and not a stranger's client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import TokenInvalid
from gateway.keys.source import KeySource
from gateway.tokens.claims import (
    MAX_TOKEN_BYTES,
    UnverifiedHeader,
    audience_of,
    moment,
    parse_compact,
    parse_unverified_claims,
)
from gateway.tokens.verifier import check_signature, media_type

Fault = Literal["request", "issuer", "audience", "key"]
"""What is wrong: its form or content, who says it, to whom it is said, or the key that signed it."""


class StatementInvalid(Exception):
    """No statement that counts here; the text is public and quotes nothing of it."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class StatementRules:
    """What the statements of one kind and issuer must look like."""

    issuer: str  # the exact `iss`
    audience: frozenset[str] | None  # one of these must be in `aud`; None: `aud` is not looked at
    algorithms: frozenset[str]  # as `gateway.keys.jwks.accepted_algorithms` gives them
    token_type: str | None  # the `typ` as `media_type` gives it; None: any
    leeway_s: float
    keys: KeySource
    max_bytes: int = MAX_TOKEN_BYTES
    needs_issuer: bool = True  # False: `iss` may be left out, because the address it came from says who speaks
    needs_end: bool = False  # whether `exp` is mandatory


async def verify_statement(raw: bytes, rules: StatementRules, now: float) -> dict[str, Any]:
    """The claims of a statement whose signature holds; `iat` is a number, `exp` too if there.

    StatementInvalid, or KeysUnavailable. Waits only for a key that is not at hand, bounded by the issuer's `timeout`.
    """
    try:
        unverified = parse_compact(raw, max_bytes=rules.max_bytes)
        claims = parse_unverified_claims(unverified)
        header = unverified.unverified_header
        _check_header(header, rules)
        _check_names(claims, rules)
        _check_times(claims, rules, now)
    except TokenInvalid as exc:
        raise StatementInvalid("request", exc.cause or "malformed") from None
    keys = await rules.keys.find(header.kid, header.alg)
    try:
        check_signature(unverified, keys)
    except TokenInvalid as exc:
        raise StatementInvalid("key", exc.cause or "signature does not hold") from None
    return claims


def _check_header(header: UnverifiedHeader, rules: StatementRules) -> None:
    if header.alg not in rules.algorithms:
        raise StatementInvalid("key", "alg is not accepted from this issuer")
    if rules.token_type is not None and (header.typ is None or media_type(header.typ) != rules.token_type):
        raise StatementInvalid("request", f"typ is not {rules.token_type}")


def _check_names(claims: dict[str, Any], rules: StatementRules) -> None:
    if (rules.needs_issuer or "iss" in claims) and claims.get("iss") != rules.issuer:
        raise StatementInvalid("issuer", "iss is not the issuer of this endpoint")
    if rules.audience is not None and rules.audience.isdisjoint(audience_of(claims)):
        raise StatementInvalid("audience", "aud does not name us")


def _check_times(claims: dict[str, Any], rules: StatementRules, now: float) -> None:
    issued_at, expires_at = moment(claims, "iat"), moment(claims, "exp")
    if issued_at is None:
        raise StatementInvalid("request", "iat is missing")
    if issued_at - rules.leeway_s > now:
        raise StatementInvalid("request", "iat lies in the future")
    if expires_at is None and rules.needs_end:
        raise StatementInvalid("request", "exp is missing")
    if expires_at is not None and now >= expires_at + rules.leeway_s:
        raise StatementInvalid("request", "exp has passed")
