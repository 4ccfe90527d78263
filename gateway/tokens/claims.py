"""A compact JWS and its claims, read once and strictly: `UnverifiedToken` before the signature, `Token` after.

Only the shapes are judged here (RFC 7515 §3.1, RFC 7519 §4.1); whether they suffice is the verifier's decision. What
the registered claims may be: identifiers are non-empty strings without control characters, times are numbers between
1970 and 9999, audiences and scopes are strings or lists of strings. A claim of another shape is refused rather than
guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import TokenInvalid
from gateway.keys.notation import ALPHABET, decode_base64url, parse_object

MAX_TOKEN_BYTES = 16 * 1024  # twice what servers usually accept for all cookies together
_NOT_THREE = "not three base64url segments"
_LATEST = 253_402_300_799.0  # 9999-12-31T23:59:59Z; also catches times written in milliseconds
_NO_SCOPE = frozenset(("",))  # between two spaces
_KEPT_SETS = 256  # audiences and scopes, of each
_KEPT_CHARACTERS = 256  # of a claim
_AUDIENCES: dict[str, frozenset[str]] = {}
_SCOPES: dict[str, frozenset[str]] = {}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# `crit` and `b64` change what is signed; the others bring a key of the sender's choice, or mean another format.
_REFUSED_PARAMETERS = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c", "enc", "zip"})


class _Absent:
    """The type of `ABSENT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()
"""What `claim_at` gives for a claim that is not there; JSON's null is a value (None) and something else."""


class ClaimsAtRest(Mapping[str, Any]):
    """The claims of a token that was read before: read again when somebody asks, and kept from then on.

    As objects they take several times the memory of the token itself, and few ask for them a second time.
    """

    __slots__ = ("_members", "_raw")

    def __init__(self, raw: bytes) -> None:
        """`raw` is a compact JWS whose claims were accepted."""
        self._raw = raw
        self._members: dict[str, Any] | None = None

    @property
    def _claims(self) -> dict[str, Any]:
        if self._members is None:
            self._members = parse_object(decode_base64url(self._raw.split(b".")[1]))
        return self._members

    def __getitem__(self, name: str) -> Any:
        return self._claims[name]

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        return self._claims.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)


@dataclass(slots=True, eq=False)
class Token:
    """A verified token. Made once per token and shared by the requests that carry it, so nobody changes it but `memo`.

    Its `repr` names the issuer and the key, never a claim.
    """

    issuer: str  # the issuer's name in the YAML
    alg: str
    kid: str | None
    claims: Mapping[str, Any] = field(repr=False)
    subject: str | None = field(repr=False)  # `sub`
    token_id: str | None = field(repr=False)  # `jti`
    session_id: str | None = field(repr=False)  # `sid`
    client_id: str | None = field(repr=False)  # `client_id` (RFC 9068 §2.2), else `azp`
    issued_at: float | None  # epoch seconds, as the other two
    expires_at: float
    not_before: float | None
    audience: frozenset[str] = field(repr=False)
    scopes: frozenset[str] = field(repr=False)  # of `scope` and `scp` together
    # What others derive from it; dies with it. Never given: compiled, a default for a parameter is looked up each time.
    memo: dict[object, Any] = field(default_factory=dict, init=False, repr=False)

    def put_to_rest(self, raw: bytes) -> None:
        """Let go of the claims, which are to be read again from `raw`, the token's own text, if anybody asks."""
        self.claims = ClaimsAtRest(raw)


@dataclass(frozen=True, slots=True, repr=False)
class UnverifiedHeader:
    """What a JOSE header says, as far as it counts here (RFC 7515 §4.1)."""

    alg: str
    kid: str | None
    typ: str | None


@dataclass(slots=True, eq=False, repr=False)
class UnverifiedToken:
    """The parts of a well-formed compact JWS whose signature nobody has checked yet."""

    header_segment: bytes  # as received
    unverified_header: UnverifiedHeader
    unverified_payload: bytes
    signing_input: bytes
    signature: bytes


def parse_compact(
    raw: bytes,
    headers: dict[bytes, UnverifiedHeader] | None = None,
    max_bytes: int = MAX_TOKEN_BYTES,
) -> UnverifiedToken:
    """Header, payload and signature of a compact JWS (RFC 7515 §7.1); TokenInvalid for anything else.

    `headers` are segments read before: an issuer's tokens usually share theirs, and reading it again is a tenth of the
    cost of a whole verification.
    """
    if len(raw) > max_bytes:
        raise TokenInvalid(cause=f"longer than {max_bytes // 1024} KiB")
    signing_input, _, mac = raw.rpartition(b".")
    head, first_dot, body = signing_input.partition(b".")
    if not first_dot:
        raise TokenInvalid(cause=_NOT_THREE)
    try:
        header = None if headers is None else headers.get(head)
        if header is None:
            _require_alphabet(raw)
            header = _read_header(parse_object(decode_base64url(head)))
        return UnverifiedToken(head, header, decode_base64url(body), signing_input, decode_base64url(mac))
    except ValueError as exc:
        _require_alphabet(raw)
        raise TokenInvalid(cause=f"malformed token: {exc}") from None


def _require_alphabet(raw: bytes) -> None:
    """To be said before all else that is wrong; to look for it in each genuine token costs as much as decoding it."""
    if raw.translate(None, ALPHABET) != b"..":
        raise TokenInvalid(cause=_NOT_THREE)


def _read_header(members: dict[str, Any]) -> UnverifiedHeader:
    if not _REFUSED_PARAMETERS.isdisjoint(members):
        raise TokenInvalid(cause="a header parameter that is never accepted")
    alg = members.get("alg")
    if type(alg) is not str:
        raise TokenInvalid(cause="alg is missing or not a string")
    return UnverifiedHeader(alg, identifier(members, "kid"), identifier(members, "typ"))


def parse_unverified_claims(unverified: UnverifiedToken) -> dict[str, Any]:
    """The payload as a claims set (RFC 7519 §7.2), of nobody in particular; TokenInvalid if it is not an object."""
    try:
        return parse_object(unverified.unverified_payload)
    except ValueError as exc:
        raise TokenInvalid(cause=f"malformed claims: {exc}") from None


def read_token(issuer: str, header: UnverifiedHeader, claims: dict[str, Any]) -> Token:
    """The typed claims of a token of the named issuer; TokenInvalid if a registered claim has another type.

    For the verifier only: the result counts as a `Token` once its signature has held.
    """
    expires_at = moment(claims, "exp")
    if expires_at is None:
        raise TokenInvalid(cause="exp is missing")
    client_id = identifier(claims, "client_id")
    authorized_party = identifier(claims, "azp")
    return Token(  # by position: names would have to be sorted out for each token
        issuer,
        header.alg,
        header.kid,
        claims,
        identifier(claims, "sub"),
        identifier(claims, "jti"),
        identifier(claims, "sid"),
        authorized_party if client_id is None else client_id,
        moment(claims, "iat"),
        expires_at,
        moment(claims, "nbf"),
        audience_of(claims),
        _scopes(claims),
    )


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at a dotted path, or ABSENT.

    A claim whose name is the whole path wins; then the longest prefix that names an object is entered, so claims named
    by URLs (`https://shop.example/roles.eu`) can be reached. Lists are values, never steps.
    """
    value = claims.get(path, ABSENT)
    if value is not ABSENT:
        return value
    end = path.rfind(".")
    while end > 0:
        inner = claims.get(path[:end])
        if isinstance(inner, dict):
            value = claim_at(inner, path[end + 1 :])
            if value is not ABSENT:
                return value
        end = path.rfind(".", 0, end)
    return ABSENT


def identifier(members: dict[str, Any], name: str) -> str | None:
    """The identifier of that name, None if absent; TokenInvalid if it is not a non-empty string without controls."""
    value = members.get(name, ABSENT)
    if value is ABSENT:
        return None
    # Identifiers become parts of denylist keys, log lines and header values.
    if type(value) is not str or not value or (not value.isprintable() and _CONTROL.search(value)):
        raise TokenInvalid(cause=f"{name} is not a plain string")
    return value


def moment(claims: dict[str, Any], name: str) -> float | None:
    """The NumericDate of that name in epoch seconds, None if absent; TokenInvalid if it is not one (RFC 7519 §2)."""
    value = claims.get(name, ABSENT)
    if value is ABSENT:
        return None
    if (type(value) is not int and type(value) is not float) or not 0 <= value <= _LATEST:  # `type`: a bool is an int
        raise TokenInvalid(cause=f"{name} is not a time")
    return float(value)


def audience_of(claims: dict[str, Any]) -> frozenset[str]:
    """Everyone that `aud` names; TokenInvalid if it is missing or of another shape (RFC 7519 §4.1.3)."""
    value = claims.get("aud", ABSENT)
    if type(value) is str:
        known = _AUDIENCES.get(value)
        return _keep(_AUDIENCES, value, frozenset((value,))) if known is None else known
    if type(value) is list and _are_strings(value):
        return frozenset(value)
    raise TokenInvalid(cause="aud is missing, or not a string or a list of strings")


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    text = claims.get("scope")
    if type(text) is str and "scp" not in claims:
        known = _SCOPES.get(text)
        return _keep(_SCOPES, text, frozenset(text.split(" ")) - _NO_SCOPE) if known is None else known
    found = _strings(claims, "scope")
    if "scp" in claims:
        found = found + _strings(claims, "scp")
    scopes = frozenset(found)
    return scopes - _NO_SCOPE if "" in scopes else scopes


def _keep(sets: dict[str, frozenset[str]], text: str, items: frozenset[str]) -> frozenset[str]:
    """Share what a claim means among the tokens that have the same: nearly all of an issuer's do."""
    if len(text) <= _KEPT_CHARACTERS:
        if len(sets) >= _KEPT_SETS:
            sets.clear()
        sets[text] = items
    return items


def _strings(claims: dict[str, Any], name: str) -> list[str]:
    value = claims.get(name, ABSENT)
    if type(value) is str:
        return value.split(" ")
    if value is ABSENT:
        return []
    if type(value) is list and _are_strings(value):
        return value
    raise TokenInvalid(cause=f"{name} is not a string or a list of strings")


def _are_strings(items: list[Any]) -> bool:
    for item in items:  # noqa: SIM110 - a generator for `all` costs more than what it would look at
        if type(item) is not str:
            return False
    return True
