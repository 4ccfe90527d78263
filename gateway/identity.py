"""Who is calling, as headers for the upstream; and which headers no client may send.

How a claim becomes a value, by the header's `format`:

    comma      a string as it is, a number or boolean as JSON writes it, an object as JSON; a list as its items joined
               by commas. In all of these what a header cannot hold, and `%` itself, is percent-encoded UTF-8 (RFC 3986
               §2.1), as are spaces at either end and commas inside a list's item: an upstream that splits, then
               percent-decodes, has exactly the issuer's text.
    json       compact JSON in ASCII, escaped as JSON escapes
    base64url  of that JSON, without padding

Whatever an issuer puts into a claim, the result is visible ASCII, space and tab: it can neither end a header nor begin
another. A claim that is absent or null gives no header, and the client's own copy is stripped all the same.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from gateway.config.schema import Identity
from gateway.errors import TokenInvalid
from gateway.policy import Permit
from gateway.tokens.claims import ABSENT, Token, claim_at

MAX_VALUE_BYTES = 8 * 1024  # one header; what most servers accept for all of them

_Headers = list[tuple[bytes, bytes]]
# The lookbehind keeps a long run of spaces inside a text from being tried again at each of them.
_ENDS = r"^[ \t]+|(?<![ \t])[ \t]+\Z"
_UNSAFE = re.compile(r"[^\t -$&-~]+|" + _ENDS)
_UNSAFE_IN_LIST = re.compile(r"[^\t -$&-+\--~]+|" + _ENDS)
# A text is plain if this changes nothing in it, and it has no space at an end: most are, and need no pattern.
_PLAIN = bytes(octet if octet in range(32, 127) and octet != ord("%") else octet ^ 1 for octet in range(256))
_PLAIN_IN_LIST = _PLAIN.replace(b",", b"-")
# One entry each per token: the next generation overwrites it, so that a long-lived token does not collect them.
_PAIRS = "identity"
_LINES = "identity lines"


class IdentityHeaders:
    """The identity headers of one configuration; immutable."""

    __slots__ = ("_rules", "stripped")

    def __init__(self, identity: Identity) -> None:
        self._rules: tuple[tuple[bytes, bytes, str, Callable[[Any], bytes]], ...] = tuple(
            (name.encode(), name.encode() + b": ", header.claim, _FORMATS[header.format])
            for name, header in identity.headers.items()
        )
        self.stripped: frozenset[bytes] = frozenset(
            name.lower().replace("_", "-").encode() for name in (*identity.headers, *identity.strip)
        )
        """Names no client may send: lower-case, underscores as hyphens; a received name is to be folded alike first."""

    def render(self, permit: Permit) -> _Headers:
        """The headers for an upstream, in the order of the configuration; none for an anonymous caller.

        Rendered once per token and remembered in it: the list is shared and not to be changed. TokenInvalid for a claim
        that cannot be told faithfully: longer than 8 KiB as a header, or no Unicode text.
        """
        token = permit.token
        if token is None:
            return []
        remembered = token.memo.get(_PAIRS)
        if remembered is None or remembered[0] is not self:
            found = ((name, _value(token.claims, path, octets_of)) for name, _, path, octets_of in self._rules)
            pairs = [(name, value) for name, value in found if value is not None]
            remembered = token.memo[_PAIRS] = (self, pairs)
        headers: _Headers = remembered[1]
        return headers

    def lines(self, permit: Permit) -> bytes:
        """What `render` gives, as the lines of a head."""
        token = permit.token
        if token is None:
            return b""
        remembered = token.memo.get(_LINES)
        if remembered is None or remembered[0] is not self:
            remembered = token.memo[_LINES] = (self, self._render_lines(token))
        lines: bytes = remembered[1]
        return lines

    def _render_lines(self, token: Token) -> bytes:
        parts: list[bytes] = []
        for _, label, path, octets_of in self._rules:
            value = _value(token.claims, path, octets_of)
            if value is not None:
                parts.append(label)
                parts.append(value)
                parts.append(b"\r\n")
        return b"".join(parts)


def _value(claims: Mapping[str, Any], path: str, octets_of: Callable[[Any], bytes]) -> bytes | None:
    """A claim as a header has it; None if there is none."""
    claim = claim_at(claims, path)
    if claim is ABSENT or claim is None:
        return None
    try:
        value = octets_of(claim)
    except (ValueError, RecursionError):  # a lone surrogate, an infinite number, endless digits or depth
        raise TokenInvalid(cause=f"claim {path} cannot be written as a header") from None
    if len(value) > MAX_VALUE_BYTES:
        raise TokenInvalid(cause=f"claim {path} is longer than a header may be")
    return value


def _json(claim: Any) -> bytes:
    return json.dumps(claim, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _base64url(claim: Any) -> bytes:
    return urlsafe_b64encode(_json(claim)).rstrip(b"=")


def _comma(claim: Any) -> bytes:
    if type(claim) is not list:
        return _encoded(_octets(claim), _PLAIN, _UNSAFE)
    return b",".join([_encoded(_octets(item), _PLAIN_IN_LIST, _UNSAFE_IN_LIST) for item in claim])


def _octets(claim: Any) -> bytes:
    """A string in UTF-8, anything else as JSON."""
    return claim.encode() if type(claim) is str else _json(claim)


def _encoded(octets: bytes, plain: bytes, unsafe: re.Pattern[str]) -> bytes:
    if octets.translate(plain) == octets and not octets.startswith(b" ") and not octets.endswith(b" "):
        return octets
    return unsafe.sub(_quoted, octets.decode()).encode("ascii")


def _quoted(found: re.Match[str]) -> str:
    return quote(found[0], safe="")


_FORMATS: dict[str, Callable[[Any], bytes]] = {"comma": _comma, "json": _json, "base64url": _base64url}
