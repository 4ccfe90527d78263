"""Browsers: tokens in cookies, writes from our own pages only, refreshes that the page does not notice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from http.cookies import SimpleCookie
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from gateway.issuer.browser import Browsers
from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.desk import Desk
from tests.issuer.house import PASSWORD, App, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

ACCESS, REFRESH = "__Host-gateway-access", "__Host-gateway-refresh"


class Page:
    """A page in a browser: keeps cookies as a browser on loopback does, and says where its requests come from."""

    def __init__(self, http: httpx2.AsyncClient, gateway: GatewayProcess) -> None:
        self.http = http
        self.base = f"http://127.0.0.1:{gateway.port}"
        self.cookies: dict[str, str] = {"theme": "dark"}
        self.attributes: dict[str, Any] = {}

    async def send(self, method: str, path: str, members: Any = None, **headers: str) -> httpx2.Response:
        """One `fetch`."""
        fields = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if method != "GET":
            fields["origin"] = self.base
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {name: value for name, value in fields.items() if value}
        body = {} if members is None else {"json": members}
        answer = await self.http.request(method, self.base + path, headers=fields, **body)
        for value in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(value).items():
                self.attributes[name] = morsel
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer


@pytest_asyncio.fixture
async def page(
    sqlite_url: str, redis_url: str, upstream: RecordingUpstream, start_gateway: Callable[..., GatewayProcess]
) -> AsyncIterator[Page]:
    """A page of a signed-in user."""
    text = config_text(sqlite_url, redis_url, upstream.url, issuer="  web: {}\n")
    async with start_gateway(text) as gateway, httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        page = Page(http, gateway)
        members = {"username": "alice", "password": PASSWORD, "platform": "web", "cookies": True}
        answer = await page.send("POST", "/auth/register", members)
        assert answer.status_code == 201
        assert set(answer.json()) == {"expires_in", "scope", "session_id"}
        yield page


async def test_scripts_and_backends_never_see_a_token(page: Page, upstream: RecordingUpstream) -> None:
    """The cookies are for this host, for https, not for scripts; the upstream gets the other ones and the identity."""
    for name in (ACCESS, REFRESH):
        morsel = page.attributes[name]
        assert (morsel["path"], morsel["domain"], morsel["samesite"]) == ("/", "", "Lax")
        assert morsel["secure"]
        assert morsel["httponly"]
    assert (await page.send("GET", "/api/x")).status_code == 200
    [seen] = upstream.seen
    assert seen.all(b"cookie") == [b"theme=dark"]
    assert len(seen.all(b"x-user-id")) == 1
    assert seen.all(b"authorization") == []


async def test_a_page_needs_no_token_code(page: Page, upstream: RecordingUpstream) -> None:
    """When the access token's cookie has ended, the gateway refreshes; parallel requests get the same successor."""
    first = page.cookies.copy()
    del page.cookies[ACCESS]
    answer = await page.send("GET", "/api/x")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert page.cookies[REFRESH] != first[REFRESH]
    assert REFRESH.encode() not in b"".join(upstream.seen[-1].all(b"cookie"))
    late = page.cookies.copy()
    page.cookies = {REFRESH: first[REFRESH]}  # was on its way at the same time
    assert (await page.send("GET", "/api/x")).status_code == 200
    assert page.cookies[REFRESH] == late[REFRESH]


async def test_only_our_own_pages_may_write(page: Page, upstream: RecordingUpstream) -> None:
    """A write with the cookies from elsewhere is refused before it reaches anything; nothing is refreshed for it."""
    for ours in ({}, {"origin": "", "sec_fetch_site": "same-origin"}):
        assert (await page.send("POST", "/api/x", {}, **ours)).status_code == 200
    before, reached = page.cookies.copy(), len(upstream.seen)
    for foreign in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "", "sec_fetch_site": "same-site"},
        {"origin": "", "sec_fetch_site": "cross-site"},
        {"origin": ""},
    ):
        answer = await page.send("POST", "/api/x", {}, **foreign)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
        assert (await page.send("POST", "/auth/logout", **foreign)).status_code == 403
        page.cookies = {REFRESH: before[REFRESH]}
        assert (await page.send("POST", "/api/x", {}, **foreign)).status_code == 403
        assert page.cookies == {REFRESH: before[REFRESH]}
        page.cookies = before.copy()
    assert len(upstream.seen) == reached


async def test_a_socket_from_another_site_is_refused(page: Page) -> None:
    """A WebSocket handshake is a GET that carries cookies and is not held back by CORS."""
    hijack = {"upgrade": "websocket", "connection": "Upgrade", "origin": "https://evil.example"}
    hijack |= {"sec_websocket_version": "13", "sec_websocket_key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    assert (await page.send("GET", "/api/x", **hijack)).status_code == 403


async def test_signing_out_clears_the_cookies_and_the_session(page: Page) -> None:
    """The next request has no identity; a copy of the cookies is of no use either."""
    copied = page.cookies.copy()
    assert (await page.send("GET", "/auth/me")).json()["username"] == "alice"
    assert (await page.send("POST", "/auth/logout")).status_code == 204
    assert set(page.cookies) == {"theme"}
    page.cookies = {REFRESH: copied[REFRESH]}
    answer = await page.send("GET", "/api/x")
    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
    assert page.cookies == {}
    members = {"username": "alice", "password": PASSWORD, "cookies": True}
    assert (await page.send("POST", "/auth/login", members)).status_code == 200
    del page.cookies[ACCESS]  # refreshed on the way, and gone nevertheless
    assert (await page.send("POST", "/auth/logout")).status_code == 204
    assert page.cookies == {}


async def test_an_authorization_header_counts_before_the_cookies(page: Page) -> None:
    """A script with its own token is not mixed up with the browser's session."""
    app = App(page.http, [], random.Random(1))
    answer = await page.http.post(f"{page.base}/auth/register", json={"username": "bob", "password": PASSWORD})
    app.take(answer)
    own = await page.send("POST", "/auth/logout-all", {}, authorization=f"Bearer {app.access}", origin="")
    assert own.json() == {"ended": 1}
    assert (await page.send("GET", "/auth/me")).json()["username"] == "alice"


async def test_cookies_are_refused_where_they_are_not_configured(
    sqlite_url: str, redis_url: str, upstream: RecordingUpstream, start_gateway: Callable[..., GatewayProcess]
) -> None:
    """A page that relies on them learns so at once."""
    async with (
        start_gateway(config_text(sqlite_url, redis_url, upstream.url)) as gateway,
        httpx2.AsyncClient(trust_env=False, timeout=10) as http,
    ):
        members = {"username": "alice", "password": PASSWORD, "cookies": True}
        answer = await Page(http, gateway).send("POST", "/auth/register", members)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_cookie_that_outlived_its_token_is_refreshed_too(sqlite_url: str) -> None:
    """A browser whose clock was put back keeps the cookie, and would be told of an expired token for hours."""
    async with Desk(sqlite_url, web={}) as desk:
        tokens = await desk.register()
        pair = f"{ACCESS}={tokens['access_token']}; {REFRESH}={tokens['refresh_token']}"
        scope = {
            "type": "http",
            "method": "GET",
            "client": ("192.0.2.1", 1),
            "headers": [(b"cookie", pair.encode())],
        }

        async def admitted() -> str:
            seen, _ = await Browsers(desk.issuer).admit(scope, _ignore, is_own=True)
            return str(dict(seen["headers"])[b"authorization"].decode())

        assert await admitted() == f"Bearer {tokens['access_token']}"
        desk.clock.wind(700)
        renewed = desk.issuer.access_tokens.read((await admitted()).partition(" ")[2])
        assert renewed is not None
        assert renewed.expires_at > desk.clock()
        pair = f"{ACCESS}=no.token.at-all; {REFRESH}={tokens['refresh_token']}"
        scope["headers"] = [(b"cookie", pair.encode())]
        assert await admitted() == "Bearer no.token.at-all"


async def _ignore(_: Any) -> None:
    """Nothing is sent."""
