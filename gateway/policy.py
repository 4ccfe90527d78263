"""May this token use this route? A `Policy` is compiled from a route's `auth` when the configuration loads.

    mode       no token        a token
    required   TokenMissing    must carry the scopes and claims
    optional   anonymous       must carry the scopes and claims: it may be absent, never insufficient
    none       anonymous       not looked at

Values compare as JSON has them: `true` is not 1, `"1"` is not 1, and 1 is 1.0. A `Permit` is made nowhere else, so
whoever holds one has passed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config.schema import Auth, ClaimRule
from gateway.errors import Denied, InsufficientScope, TokenMissing
from gateway.tokens.claims import Token, claim_at


@dataclass(frozen=True, slots=True)
class Permit:
    """That a request may use its route, as this token's subject or as nobody in particular."""

    token: Token | None


_ANONYMOUS = Permit(None)
_Claims = Mapping[str, Any]  # as parsed from JSON
_Check = Callable[[_Claims], bool]
_Values = Mapping[type, frozenset[Any]]


class Policy:
    """What one route asks of the caller; immutable."""

    __slots__ = ("_all", "_any", "_challenge", "_checks", "_ignores_token", "_requires_token")

    def __init__(self, auth: Auth) -> None:
        self._ignores_token = auth.mode == "none"
        self._requires_token = auth.mode == "required"
        self._all = frozenset(auth.scopes.all)
        self._any = frozenset(auth.scopes.any)
        # RFC 6750 §3: "the required scope of the access token for accessing the requested resource"
        self._challenge = " ".join(dict.fromkeys((*auth.scopes.all, *auth.scopes.any)))
        self._checks = tuple((path, _check(path, rule)) for path, rule in auth.claims.items())

    def authorize(self, token: Token | None) -> Permit:
        """A permit for the caller; TokenMissing, InsufficientScope, or Denied, whose cause names the claim only."""
        if token is None or self._ignores_token:
            if self._requires_token:
                raise TokenMissing()
            return _ANONYMOUS
        # Scopes before claims: a missing scope is something the client can ask its issuer for.
        if not self._all <= token.scopes or (self._any and self._any.isdisjoint(token.scopes)):
            raise InsufficientScope(self._challenge)
        for path, holds in self._checks:
            if not holds(token.claims):
                raise Denied(cause=f"claim {path} is not as the route requires")
        return Permit(token)


def _check(path: str, rule: ClaimRule) -> _Check:
    if rule.contains is not None:
        item = _by_type((rule.contains,))
        return lambda claims: _has_one(claim_at(claims, path), item)
    values = _by_type((rule.equals,) if rule.one_of is None else rule.one_of)
    return lambda claims: _is_one(claim_at(claims, path), values)


def _by_type(values: Iterable[Any]) -> _Values:
    """The values that a claim of each type may have; for Python True is 1, for JSON it is not."""
    known = tuple(values)
    numbers = frozenset(value for value in known if type(value) in (int, float))
    texts, booleans = (frozenset(value for value in known if type(value) is kind) for kind in (str, bool))
    return {str: texts, bool: booleans, int: numbers, float: numbers}


def _is_one(claim: Any, values: _Values) -> bool:
    """Whether a claim is one of the values; a list, an object, null and ABSENT never are."""
    wanted = values.get(type(claim))
    return wanted is not None and claim in wanted


def _has_one(claim: Any, values: _Values) -> bool:
    """Only of lists: a string that happens to contain the wanted one is another string."""
    return type(claim) is list and any(_is_one(item, values) for item in claim)
