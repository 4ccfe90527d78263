"""The credential of a request (RFC 6750 §2): found in exactly one place, and removed from where upstreams could see it.

`Authorization: Bearer` always counts, and so does a WebSocket's subprotocol `bearer`; a cookie or a query parameter
only where the configuration names it. Two credentials are refused, also if they are equal: two readers could choose
differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.config.schema import Credentials
from gateway.errors import BadRequest, TokenInvalid

_BEARER = "bearer"


@dataclass(frozen=True, slots=True)
class CredentialSources:
    """The cookies and query parameters that may hold a token; names as bytes, compared with case."""

    cookies: frozenset[bytes]
    queries: frozenset[bytes]

    @classmethod
    def of(cls, settings: Iterable[Credentials]) -> CredentialSources | None:
        """Every place that one of the settings names; None if none does."""
        found = tuple(settings)
        cookies = frozenset(setting.cookie.encode() for setting in found if setting.cookie is not None)
        queries = frozenset(setting.query.encode() for setting in found if setting.query is not None)
        return cls(cookies, queries) if cookies or queries else None


def find_token(
    headers: Iterable[tuple[bytes, bytes]], query_string: bytes, sources: CredentialSources | None
) -> bytes | None:
    """The raw token of a request, or None if it carries none; never empty.

    `headers` are pairs as received, names in lower case. BadRequest for two credentials and for a Bearer field that is
    not `Bearer SP token`; other schemes are not credentials here. TokenInvalid for an empty cookie or parameter.
    """
    authorization: bytes | None = None
    found: list[bytes] = []
    for name, value in headers:
        if name == b"authorization":
            if authorization is not None:
                raise BadRequest("The request has more than one Authorization field.")
            authorization = value
        elif sources is not None and name == b"cookie" and sources.cookies:
            found += _cookies(value, sources.cookies)
    token = None if authorization is None else _bearer(authorization)
    if sources is None:
        return token
    if sources.queries and query_string:
        found += _parameters(query_string, sources.queries)
    if not found:
        return token
    if token is not None or len(found) > 1:
        raise BadRequest("The request carries more than one access token.")
    if not found[0]:
        raise TokenInvalid(cause="empty cookie or query parameter")
    return found[0]


def from_subprotocols(offered: Iterable[str]) -> tuple[list[bytes], list[str]]:
    """The tokens that stand behind a subprotocol `bearer` (`bearer, <token>, chat.v1`), and the other subprotocols.

    Browsers let a page choose nothing else of a WebSocket's handshake. A `bearer` without anything behind it gives an
    empty token.
    """
    tokens: list[bytes] = []
    others: list[str] = []
    rest = iter(offered)
    for name in rest:
        if name.lower() == _BEARER:
            tokens.append(next(rest, "").encode("latin-1"))
        else:
            others.append(name)
    return tokens, others


def without_query(query_string: bytes, names: frozenset[bytes]) -> bytes:
    """A query without the named parameters, otherwise octet for octet; names are compared after decoding."""
    pairs = query_string.split(b"&")
    kept = [pair for pair in pairs if _decoded(pair.partition(b"=")[0]) not in names]
    return query_string if len(kept) == len(pairs) else b"&".join(kept)


def _bearer(value: bytes) -> bytes | None:
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":
        if scheme[:7].lower() == b"bearer\t":
            raise BadRequest("The Authorization field is malformed.")
        return None
    token = token.strip(b" ")  # RFC 9110 §11.4: one space or more
    if not token or b" " in token or b"\t" in token or b"," in token:
        raise BadRequest("The Authorization field is malformed.")
    return token


def _cookies(value: bytes, names: frozenset[bytes]) -> list[bytes]:
    return [pair.partition(b"=")[2].strip(b" \t") for pair in value.split(b";") if _cookie_name(pair) in names]


def _cookie_name(pair: bytes) -> bytes:
    return pair.partition(b"=")[0].strip(b" \t")


def _parameters(query_string: bytes, names: frozenset[bytes]) -> list[bytes]:
    found = []
    for pair in query_string.split(b"&"):
        name, _, value = pair.partition(b"=")
        if _decoded(name) in names:
            found.append(_decoded(value))
    return found


def _decoded(text: bytes) -> bytes:
    if b"%" in text or b"+" in text:
        return unquote_to_bytes(text.replace(b"+", b" "))
    return text
