"""Access tokens (RFC 9068) and ID tokens: what is in them, and what one that comes back to us is worth.

Gateways check these tokens by themselves; here they are read only at the issuer's own endpoints, where the store says
whether their session lives. Reading is for tokens that we have signed: of anything else nothing is believed.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from gateway.config.issuance import Issuance
from gateway.issuer.signing import SigningKeys

JITTER = 0.1  # of the lifetime, either way
_LONGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token is about. `claims` are those of the account, by name; empty for a client itself."""

    sub: str
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh token. `lifetime_s` is what is left of it now."""

    token: str
    lifetime_s: int
    token_id: str


@dataclass(frozen=True, slots=True)
class Presented:
    """A token of ours that came back. `sid` is "" for a client's own token."""

    claims: Mapping[str, Any]
    sub: str
    sid: str
    token_id: str
    client_id: str
    expires_at: float

    def __repr__(self) -> str:
        return f"<Presented {self.token_id} of session {self.sid or '-'}>"

    @property
    def scopes(self) -> frozenset[str]:
        """Its scopes."""
        return frozenset(str(self.claims.get("scope", "")).split())


class AccessTokens:
    """Signs and reads access tokens with the keys of the moment."""

    def __init__(self, config: Issuance, keys: SigningKeys, chance: Callable[[], float] = random.random) -> None:
        """`chance` in [0, 1) spreads the lifetimes."""
        self._config = config
        self._keys = keys
        self._chance = chance

    def issue(
        self,
        subject: Subject,
        *,
        client_id: str,
        scope: str,
        now: float,
        sid: str = "",
        auth_time: float | None = None,
    ) -> Issued:
        """An access token. `sid` and `auth_time` are those of the session; none for a client's own token."""
        lifetime_s = max(1, round(self._config.access_token * (1 + JITTER * (2 * self._chance() - 1))))
        token_id = secrets.token_hex(16)
        client = self._config.clients.get(client_id)
        audience = (client.audience if client is not None else None) or self._config.audience
        claims: dict[str, Any] = {name: subject.claims[name] for name in self._config.claims if name in subject.claims}
        claims |= {
            "iss": self._config.url,
            "aud": audience[0] if len(audience) == 1 else list(audience),
            "sub": subject.sub,
            "client_id": client_id,
            "iat": int(now),
            "exp": int(now) + lifetime_s,
            "jti": token_id,
        }
        claims |= {"scope": scope} if scope else {}
        claims |= {"sid": sid} if sid else {}
        claims |= {"auth_time": int(auth_time)} if auth_time is not None else {}
        return Issued(self._sign(claims, "at+jwt", now), lifetime_s, token_id)

    def issue_id_token(
        self, subject: Subject, *, client_id: str, sid: str, auth_time: float, nonce: str | None, scope: str, now: float
    ) -> str:
        """An ID token (OpenID Connect Core §2) for the client that the session belongs to."""
        claims: dict[str, Any] = {
            **released_claims(subject.claims, frozenset(scope.split())),
            "iss": self._config.url,
            "aud": client_id,
            "sub": subject.sub,
            "sid": sid,
            "iat": int(now),
            "exp": int(now) + round(self._config.access_token),
            "auth_time": int(auth_time),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return self._sign(claims, "JWT", now)

    def _sign(self, claims: dict[str, Any], typ: str, now: float) -> str:
        key = self._keys.current(now)
        assert key.private is not None
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"typ": typ, "kid": key.kid})

    def read(self, raw: str) -> Presented | None:
        """The access token that this text is, expired or not; None if we have not signed it."""
        if len(raw) > _LONGEST_TOKEN:
            return None
        try:
            header = jwt.get_unverified_header(raw)
            key = self._keys.find(str(header.get("kid")))
            if key is None or header.get("typ") != "at+jwt":
                return None
            # The signature only: the claims are our own, and whether it has expired is the caller's to say.
            claims = json.loads(jwt.PyJWS().decode(raw, key.public, algorithms=[key.algorithm]))
        except (jwt.InvalidTokenError, ValueError):
            return None
        if claims.get("iss") != self._config.url:
            return None
        return Presented(
            claims, claims["sub"], claims.get("sid", ""), claims["jti"], claims["client_id"], float(claims["exp"])
        )


def released_claims(claims: Mapping[str, Any], scopes: frozenset[str]) -> dict[str, Any]:
    """What the scopes `profile` and `email` let a client see (OpenID Connect Core §5.4)."""
    released: dict[str, Any] = {}
    if "profile" in scopes and "username" in claims:
        released["preferred_username"] = claims["username"]
    if "email" in scopes and "email" in claims:
        released |= {"email": claims["email"], "email_verified": claims["email_verified"]}
    return released
