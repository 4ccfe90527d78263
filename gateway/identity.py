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
from collections.abc import Callable
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
# One entry per token: the next generation overwrites it, so that a long-lived token does not collect them.
_MEMO = "identity"


class IdentityHeaders:
    """The identity headers of one configuration; immutable."""

    __slots__ = ("_rules", "stripped")

    def __init__(self, identity: Identity) -> None:
        self._rules: tuple[tuple[bytes, str, Callable[[Any], str]], ...] = tuple(
            (name.encode(), header.claim, _FORMATS[header.format]) for name, header in identity.headers.items()
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
        return [] if token is None else self._remember(token)[0]

    def lines(self, permit: Permit) -> bytes:
        """What `render` gives, as the lines of a head."""
        token = permit.token
        if token is None:
            return b""
        remembered = token.memo.get(_MEMO)
        if remembered is not None and remembered[0] is self:
            lines: bytes = remembered[2]
            return lines
        return self._remember(token)[1]

    def _remember(self, token: Token) -> tuple[_Headers, bytes]:
        remembered = token.memo.get(_MEMO)
        if remembered is None or remembered[0] is not self:
            headers = self._render(token)
            remembered = (self, headers, b"".join(b"%b: %b\r\n" % pair for pair in headers))
            token.memo[_MEMO] = remembered
        return remembered[1], remembered[2]

    def _render(self, token: Token) -> _Headers:
        headers: _Headers = []
        for name, path, text_of in self._rules:
            claim = claim_at(token.claims, path)
            if claim is ABSENT or claim is None:
                continue
            try:
                value = text_of(claim).encode("ascii")
            except (ValueError, RecursionError):  # a lone surrogate, an infinite number, endless digits or depth
                raise TokenInvalid(cause=f"claim {path} cannot be written as a header") from None
            if len(value) > MAX_VALUE_BYTES:
                raise TokenInvalid(cause=f"claim {path} is longer than a header may be")
            headers.append((name, value))
        return headers


def _json(claim: Any) -> str:
    return json.dumps(claim, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _base64url(claim: Any) -> str:
    return urlsafe_b64encode(_json(claim).encode("ascii")).rstrip(b"=").decode("ascii")


def _comma(claim: Any) -> str:
    if type(claim) is list:
        return ",".join(_encoded(_UNSAFE_IN_LIST, item) for item in claim)
    return _encoded(_UNSAFE, claim)


def _encoded(unsafe: re.Pattern[str], claim: Any) -> str:
    text = claim if type(claim) is str else _json(claim)
    return unsafe.sub(lambda found: quote(found[0], safe=""), text)


_FORMATS: dict[str, Callable[[Any], str]] = {"comma": _comma, "json": _json, "base64url": _base64url}
