"""The words of the denylist: kinds of entry, their keys, and what a value means. Rules only, no I/O.

    token:<issuer>:<jti>         one token
    session:<issuer>:<sid>       all tokens of one session
    subject:<issuer>:<sub>       the user's tokens with `iat` at or before the value
    client:<issuer>:<client_id>  one client, likewise by `iat`
    key:<issuer>:<kid>           everything signed by one key
    issuer:<issuer>              everything of one issuer, by `iat`

`<issuer>` is the issuer's name in the YAML and holds no colon; what follows it may hold any character. In the store
each key stands behind the configured prefix; everywhere in this package a *key* is without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

Kind = Literal["token", "session", "subject", "client", "key", "issuer"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
BY_TIME: Final[frozenset[str]] = frozenset({"subject", "client", "issuer"})
"""The kinds whose value is a moment: only tokens issued at or before it are denied."""

EVERYTHING: Final = float("inf")
"""The cutoff of a value that is not a moment: when unsure, refuse."""

_ISSUER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # as `gateway.config.values.Name`
_MOMENT = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_LONGEST_IDENT = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One denial: what is denied and for how long.

    `ident` is the `jti`, `sid`, `sub`, `client_id` or `kid`, and empty for the kind `issuer`. `value` is what the
    store holds: epoch seconds for the kinds in `BY_TIME`, anything for the others. `ttl_s` is in seconds, > 0; None
    lasts until somebody deletes it.
    """

    kind: Kind
    issuer: str
    ident: str = ""
    value: str = field(default="1")
    ttl_s: float | None = None

    @property
    def key(self) -> str:
        """The key without the prefix."""
        return key_for(self.kind, self.issuer, self.ident)


def make_entry(kind: str, issuer: str, ident: str = "", *, now: float, ttl_s: float | None = None) -> Entry:
    """The entry that denies from `now` on; ValueError with a public reason if it cannot be a key.

    The value is the moment of the revocation to the millisecond, for every kind: the kinds by time need it, and for the
    others it lets each gateway measure how long the entry took to arrive.
    """
    key_for(kind, issuer, ident)
    if ttl_s is not None and not 0 < ttl_s < 1e9:
        raise ValueError("the time to live must be longer than zero")
    return Entry(cast(Kind, kind), issuer, ident, f"{now:.3f}", ttl_s)


def key_for(kind: str, issuer: str, ident: str = "") -> str:
    """The key of one entry, without the prefix; ValueError with a public reason if there is none."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of entry; use one of {', '.join(KINDS)}")
    if _ISSUER.fullmatch(issuer) is None:
        raise ValueError(f"{issuer!r} is not the name of an issuer in the configuration")
    if kind == "issuer":
        if ident:
            raise ValueError("an entry of the kind issuer has no further id")
        return f"issuer:{issuer}"
    if not ident:
        raise ValueError(f"an entry of the kind {kind} needs an id")
    if len(ident) > _LONGEST_IDENT:
        raise ValueError(f"an id is at most {_LONGEST_IDENT} characters long")
    return f"{kind}:{issuer}:{ident}"


def parse_key(key: str) -> tuple[Kind, str, str] | None:
    """Kind, issuer and id of a key without the prefix; None if it is no key of ours."""
    kind, _, rest = key.partition(":")
    if kind == "issuer":
        return ("issuer", rest, "") if rest and ":" not in rest else None
    issuer, _, ident = rest.partition(":")
    if kind not in KINDS or not issuer or not ident:
        return None
    return kind, issuer, ident


def is_by_time(key: str) -> bool:
    """Whether the value of this key counts; otherwise its presence alone denies."""
    return key.startswith(("subject:", "client:", "issuer:"))


def cutoff(value: str | bytes | None) -> float:
    """The moment a value names, in epoch seconds; `EVERYTHING` if it names none.

    A moment in milliseconds lies far in the future and so denies later tokens too: the safe side of a mistake.
    """
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value or ""
    return float(text) if _MOMENT.fullmatch(text) else EVERYTHING


def is_denied(kind: str, value: str | bytes | None, issued_at: float | None) -> bool:
    """Whether an entry that exists, with this value, denies a token issued then."""
    return kind not in BY_TIME or issued_at is None or issued_at <= cutoff(value)


def keys_naming(
    issuer: str,
    *,
    token_id: str | None = None,
    session_id: str | None = None,
    subject: str | None = None,
    client_id: str | None = None,
    kid: str | None = None,
) -> Iterator[tuple[Kind, str]]:
    """Every key that could deny such a token, with its kind, narrowest first; for look-ups in the store itself."""
    idents = (("token", token_id), ("session", session_id), ("subject", subject), ("client", client_id), ("key", kid))
    for kind, ident in idents:
        if ident:
            yield cast(Kind, kind), f"{kind}:{issuer}:{ident}"
    yield "issuer", f"issuer:{issuer}"
