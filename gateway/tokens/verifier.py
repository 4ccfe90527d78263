"""Is this token genuine, in time, and meant for us? The only maker of `Token` values.

The order of the checks, and why: shape, then algorithm, then issuer, type, times and audience, because they cost little
and a forged token must not cause a key to be fetched; then the key; then the signature. `token_expired` is said only
once the signature has held, for it tells the client that the token was genuine; an expired token never causes a fetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.config.schema import Issuer
from gateway.errors import TokenExpired, TokenInvalid
from gateway.keys.jwks import KeySet, VerificationKey, accepted_algorithms
from gateway.keys.source import KeySource
from gateway.tokens.cache import Remembered, TokenCache
from gateway.tokens.claims import (
    Token,
    UnverifiedHeader,
    UnverifiedToken,
    parse_compact,
    parse_unverified_claims,
    read_token,
)
from gateway.tokens.signatures import Signatures, signing_key

_SIGNER: Final = "signer"  # in a token's memo: what a `Signer` is made of, because few are asked for
_HEADERS = 64  # header segments remembered; an issuer has one for each key and type


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """What the tokens of one issuer must look like."""

    name: str  # in the YAML
    issuer: str  # the exact `iss`
    audience: frozenset[str]  # one of these must be in `aud`
    algorithms: frozenset[str]  # the `alg` values accepted, aliases included
    token_type: str | None  # the `typ` as `media_type` gives it; None: any
    leeway_s: float
    max_age_s: float | None  # refuse tokens issued longer ago; None: as long as `exp` says
    keys: KeySource

    @classmethod
    def of(cls, name: str, issuer: Issuer, keys: KeySource) -> IssuerRules:
        """The rules that one issuer of the configuration stands for."""
        anything = issuer.token_type == "any"  # noqa: S105 - the `typ` of a header, no password
        return cls(
            name=name,
            issuer=issuer.issuer,
            audience=frozenset(issuer.audience),
            algorithms=accepted_algorithms(issuer.algorithms),
            token_type=None if anything else media_type(issuer.token_type),
            leeway_s=issuer.leeway,
            max_age_s=issuer.max_age,
            keys=keys,
        )


class Signer(NamedTuple):
    """The key that a token was verified with."""

    keys: KeySource
    identity: str  # in `keys.key_set.identities` while the key is trusted

    @property
    def is_withdrawn(self) -> bool:
        """Whether the key has left its set: what it signed is worth nothing any more."""
        key_set = self.keys.key_set
        return key_set is not None and self.identity not in key_set.identities


def signer_of(token: Token) -> Signer | None:
    """The key of a token from `Verifier`; None for one from elsewhere."""
    found = token.memo.get(_SIGNER)
    return None if found is None else Signer(*found)


class Verifier:
    """Verifies tokens of the configured issuers; remembers those that held in its cache."""

    __slots__ = ("_algorithms", "_by_name", "_headers", "_latest", "_rules", "cache", "signatures")

    def __init__(self, issuers: Sequence[IssuerRules], cache: TokenCache) -> None:
        """ValueError if two issuers claim the same `iss`: a token could then be judged by either's rules."""
        self._rules = {rules.issuer: rules for rules in issuers}
        self._by_name = {rules.name: rules for rules in issuers}
        if len(self._rules) != len(issuers):
            raise ValueError("two issuers have the same `issuer`")
        self._algorithms = frozenset().union(*(rules.algorithms for rules in issuers))
        self._headers: dict[bytes, UnverifiedHeader] = {}
        self.signatures: Signatures = Signatures()
        # The claims of a token are at hand for the request it came with; those of older ones have to be read again.
        self._latest: tuple[Token, bytes] | None = None
        self.cache = cache

    def recall(self, raw: bytes, now: float) -> Token | None:
        """The token if it was verified before and still holds, without computing anything; None if it must be verified.

        TokenExpired once its time has passed, TokenInvalid while its time has not come (a clock that was set back).
        """
        entry = self.cache.get(raw)
        if entry is None:
            return None
        key_set = entry.keys.key_set
        if key_set is None or entry.key_identity not in key_set.identities:
            self.cache.forget(raw)  # the key was withdrawn: what it signed is worth nothing any more
            return None
        if entry.valid_from <= now < entry.valid_until:
            return entry.token
        if now >= entry.valid_until:
            self.cache.forget(raw)
            raise TokenExpired(cause="remembered token past its time")
        raise TokenInvalid(cause="remembered token before its time")

    async def verify(self, raw: bytes, now: float) -> Token:
        """The token in `raw`, verified.

        TokenInvalid, TokenExpired, or KeysUnavailable. Waits only if the key is not at hand, bounded by the issuer's
        `timeout`; remembers the token for `recall`.
        """
        unverified = parse_compact(raw, self._headers)
        header = unverified.unverified_header
        if header.alg not in self._algorithms:
            raise TokenInvalid(cause="alg is not accepted")
        claims = parse_unverified_claims(unverified)
        rules = self._choose_rules(header, claims)
        token = read_token(rules.name, header, claims)
        if rules.audience.isdisjoint(token.audience):
            raise TokenInvalid(cause="aud does not name us")
        valid_from, valid_until = _validity(token, rules)
        if now < valid_from:
            raise TokenInvalid(cause="not valid yet")
        expired = now >= valid_until
        keys = rules.keys
        # Nearly always the key is at hand, and a coroutine to find it costs eight times as much as looking.
        key_set: KeySet | None = keys.key_set
        candidates = () if key_set is None else key_set.candidates(token.kid, token.alg)
        if not candidates:
            candidates = keys.known(token.kid, token.alg) if expired else await keys.find(token.kid, token.alg)
        key: VerificationKey | None = None
        if candidates:
            key = await self.signatures.find_key(unverified, candidates)
        if key is None:
            raise _no_signature(candidates)
        if expired:
            raise TokenExpired(cause="past its time")
        self._remember_header(unverified)
        token.memo[_SIGNER] = (keys, key.identity)
        self.cache.put(raw, Remembered(token, keys, key.identity, valid_from, valid_until))
        self._put_latest_to_rest(token, raw)
        return token

    def valid_until(self, token: Token) -> float:
        """The moment (epoch seconds) from which a token verified here is refused as expired, leeway included."""
        return _validity(token, self._by_name[token.issuer])[1]

    def _put_latest_to_rest(self, token: Token, raw: bytes) -> None:
        latest, self._latest = self._latest, (token, raw)
        if latest is not None:
            before: Token = latest[0]
            before.put_to_rest(latest[1])

    def _remember_header(self, genuine: UnverifiedToken) -> None:
        # Only of genuine tokens, so that nobody else can fill it; `kid` still goes through the key set each time.
        if genuine.header_segment in self._headers:
            return
        if len(self._headers) >= _HEADERS:
            self._headers.clear()
        self._headers[genuine.header_segment] = genuine.unverified_header

    def _choose_rules(self, header: UnverifiedHeader, claims: dict[str, Any]) -> IssuerRules:
        issuer = claims.get("iss")
        rules = self._rules.get(issuer) if isinstance(issuer, str) else None
        if rules is None:
            raise TokenInvalid(cause="iss is missing or not a known issuer")
        if header.alg not in rules.algorithms:
            raise TokenInvalid(cause="alg is not accepted from this issuer")
        if rules.token_type is not None and (header.typ is None or media_type(header.typ) != rules.token_type):
            raise TokenInvalid(cause="typ is not the accepted one")
        return rules


def check_signature(unverified: UnverifiedToken, candidates: Sequence[VerificationKey]) -> VerificationKey:
    """The key whose signature holds; TokenInvalid if none of the candidates signed."""
    key = signing_key(unverified, candidates)
    if key is None:
        raise _no_signature(candidates)
    return key


def _no_signature(candidates: Sequence[VerificationKey]) -> TokenInvalid:
    return TokenInvalid(cause="signature does not hold" if candidates else "no key of that kid and alg")


def check_route(token: Token, issuers: frozenset[str] | None, audience: frozenset[str] | None) -> None:
    """TokenInvalid if a route narrows issuers (YAML names) or audience and the token is outside; None does not."""
    if issuers is not None and token.issuer not in issuers:
        raise TokenInvalid(cause="issuer is not accepted on this route")
    if audience is not None and audience.isdisjoint(token.audience):
        raise TokenInvalid(cause="aud does not name this route")


def media_type(typ: str) -> str:
    """A `typ` for comparison: in lower case, without the prefix that may be left out (RFC 7515 §4.1.9)."""
    return typ.lower().removeprefix("application/")


def _validity(token: Token, rules: IssuerRules) -> tuple[float, float]:
    """The first moment at which the token is accepted, and the first at which it no longer is."""
    leeway_s = rules.leeway_s
    issued_at = token.issued_at
    valid_from = 0.0 if token.not_before is None else token.not_before - leeway_s
    valid_until = token.expires_at + leeway_s
    if issued_at is not None:
        valid_from = max(valid_from, issued_at - leeway_s)  # issued in the future: a forger's or a broken clock
    if rules.max_age_s is not None:
        if issued_at is None:
            raise TokenInvalid(cause="iat is missing, and the issuer has a max_age")
        # Said as `token_expired` like `exp`, because the same helps: a new token.
        valid_until = min(valid_until, issued_at + rules.max_age_s + leeway_s)
    return valid_from, valid_until
