"""Browsers: the tokens in cookies that no script can read, and everything that this asks for.

    request ─▶ no cookie of ours, or an Authorization header ─▶ as it is, without our cookies
       │
       ├─ unsafe and not from our own pages ─▶ 403 cross_site
       ├─ access token there ─▶ used
       └─ none, or one that has ended ─▶ refreshed here; the response carries the new cookies, the page notices nothing
                                   └ session over ─▶ cookies cleared, request goes on without

Both cookies are `__Host-`, HttpOnly, Secure and SameSite; they are sent to this host only, and the gateway passes
neither on. The access token's cookie ends with the token, so its absence is what starts a refresh; a browser whose
clock was put back keeps it longer, so a token that has ended does too. Pages that ask in parallel refresh with the same
token and get the same successor.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from gateway.config.issuance import ACCESS_COOKIE, REFRESH_COOKIE
from gateway.issuer.grants import SessionOver, Tokens
from gateway.issuer.refusals import CrossSite, StoreDown
from gateway.issuer.service import Issuer
from gateway.issuer.store import StoreUnavailable

Message = dict[str, Any]  # ASGI scopes and messages are open mappings
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ACCESS, _REFRESH = ACCESS_COOKIE.encode(), REFRESH_COOKIE.encode()
_PREFIX = b"__Host-gateway-"
_SPACE = b" \t"
CAME_IN_COOKIES = "gateway.cookies"
"""In the scope of requests whose token came in a cookie."""
_EARLY_S = 5  # the cookie ends before the token does


class Browsers:
    """Reads and writes the cookies of one issuer; keeps nothing."""

    def __init__(self, issuer: Issuer) -> None:
        assert issuer.config.web is not None
        self._issuer = issuer
        self._same_site = issuer.config.web.same_site.capitalize()
        url = urlsplit(issuer.config.url)
        self._origins = frozenset({f"{url.scheme}://{url.netloc}", *issuer.config.web.origins})

    # --- in ----------------------------------------------------------------------------------------------------------

    async def admit(self, scope: Message, send: Send, *, is_own: bool) -> tuple[Message, Send]:
        """The request as the gateway should see it, and where its response goes. CrossSite, StoreDown.

        `is_own`: it is for the issuer itself, which reads `Authorization` only.
        """
        headers: list[Header] = scope["headers"]
        if not any(name == b"cookie" and _PREFIX in value for name, value in headers):
            return scope, send
        access, refresh = _find(headers, _ACCESS), _find(headers, _REFRESH)
        rest = [_without_ours(pair) for pair in headers]
        kept = [pair for pair in rest if pair is not None]
        # What is none here must not become one further on, where nobody asks which page has sent it.
        if (access is None and refresh is None) or any(name == b"authorization" for name, _ in headers):
            return {**scope, "headers": kept}, send
        # A WebSocket carries the cookies too, and no CORS holds it back.
        writes = scope["type"] != "http" or scope["method"] not in _SAFE
        if writes and not self.is_from_our_pages(headers):
            raise CrossSite
        changes: list[str] = []
        if refresh is not None and (access is None or _has_ended(access, self._issuer.wall())):
            access, changes = await self._refresh(refresh.decode("latin-1"), scope)
        if access is not None:
            own = (b"authorization", b"Bearer " + access) if is_own else (b"cookie", _ACCESS + b"=" + access)
            kept.append(own)
        admitted = {**scope, "headers": kept, CAME_IN_COOKIES: True}
        return admitted, _adding(changes, send) if changes else send

    def is_from_our_pages(self, headers: list[Header]) -> bool:
        """Whether a browser says that one of our own pages has sent this."""
        fields = dict(headers)
        origin = fields.get(b"origin")
        if origin is not None:
            return origin.decode("latin-1") in self._origins
        return fields.get(b"sec-fetch-site") == b"same-origin"

    async def _refresh(self, token: str, scope: Message) -> tuple[bytes | None, list[str]]:
        if not self._issuer.is_open:
            raise StoreDown
        address = scope["client"][0] if scope["client"] else "unknown"
        try:
            tokens = await self._issuer.grants.refresh(token, self._issuer.config.client_id, address)
        except SessionOver:
            return None, self.cleared()
        except StoreUnavailable as exc:
            raise StoreDown(cause=str(exc)) from exc
        return tokens.access_token.encode(), self.cookies(tokens)

    # --- out ---------------------------------------------------------------------------------------------------------

    def cookies(self, tokens: Tokens) -> list[str]:
        """The `Set-Cookie` values of these tokens."""
        assert tokens.session is not None
        lasting_s = int(tokens.session.expires_at - self._issuer.wall())
        return [
            self._cookie(ACCESS_COOKIE, tokens.access_token, max(tokens.expires_in - _EARLY_S, 1)),
            self._cookie(REFRESH_COOKIE, tokens.refresh_token or "", lasting_s),
        ]

    def cleared(self) -> list[str]:
        """The `Set-Cookie` values that remove both."""
        return [self._cookie(ACCESS_COOKIE, "", 0), self._cookie(REFRESH_COOKIE, "", 0)]

    def _cookie(self, name: str, value: str, max_age_s: int) -> str:
        return f"{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; Secure; SameSite={self._same_site}"


def _find(headers: list[Header], name: bytes) -> bytes | None:
    """The value of a cookie; None if there is none, or more than one, which no browser sends for `__Host-`."""
    found = [
        pair.partition(b"=")[2].strip(_SPACE)
        for field, value in headers
        if field == b"cookie"
        for pair in value.split(b";")
        if _name_of(pair) == name
    ]
    return found[0] if len(found) == 1 and found[0] else None


def _has_ended(access: bytes, now: float) -> bool:
    """Whether a token says that its time has passed; unverified, for asking for another one needs no proof."""
    try:
        payload = access.split(b".")[1]
        return bool(json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["exp"] <= now)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _name_of(item: bytes) -> bytes:
    """A cookie's name, read as `tokens.bearer` reads it."""
    return item.partition(b"=")[0].strip(_SPACE)


def _without_ours(pair: Header) -> Header | None:
    """A header without our cookies; None if nothing is left of it."""
    name, value = pair
    if name != b"cookie" or _PREFIX not in value:
        return pair
    kept = [item for item in value.split(b";") if _name_of(item) not in (_ACCESS, _REFRESH)]
    rest = b";".join(kept).strip()
    return (name, rest) if rest else None


def _adding(cookies: list[str], send: Send) -> Send:
    """`send`, with these cookies on the response, which then must not be kept by any cache."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"cache-control"]
            if not any(
                name == b"set-cookie" and _PREFIX in value for name, value in headers
            ):  # a log-out has cleared them
                headers += [(b"set-cookie", value.encode()) for value in cookies]
            message = {**message, "headers": [*headers, (b"cache-control", b"no-store")]}
        await send(message)

    return sending
