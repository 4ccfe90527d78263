"""OAuth and OpenID: the token endpoint, the log-in page, revocation, introspection, discovery."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import jwt
import pytest
import pytest_asyncio

from gateway.issuer.endpoints.openapi import paths
from tests.issuer.desk import PASSWORD, URL, Desk

pytestmark = pytest.mark.asyncio

REDIRECT = "http://127.0.0.1/callback"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SERVICE = ("worker", "worker secret 0123456789")
CLIENTS = {
    "native": {
        "name": "Native <App>",
        "redirect_uris": [REDIRECT, "com.example.app:/cb"],
        "scopes": ["openid", "email", "notes"],
    },
    "website": {
        "secret": "website secret 0123456789",
        "redirect_uris": ["https://app.example/cb?tenant=1"],
        "scopes": ["openid"],
        "grants": ["authorization_code"],
    },
    "worker": {
        "secret_sha256": hashlib.sha256(SERVICE[1].encode()).hexdigest(),
        "grants": ["client_credentials"],
        "scopes": ["jobs:read", "jobs:write"],
        "audience": ["jobs"],
        "introspection": True,
    },
}


@pytest_asyncio.fixture
async def oauth(store_url: str) -> Any:
    """An issuer with a native app, a website and a service, and one user."""
    async with Desk(store_url, clients=CLIENTS) as desk:
        await desk.register("alice", email="a@example.org")
        yield desk


class Form(HTMLParser):
    """The inputs of the log-in page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inputs: dict[str, str] = {}
        self.labels: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        given = dict(attrs)
        if tag == "input":
            self.inputs[given["name"] or ""] = given.get("value") or ""
        if tag == "label":
            self.labels.add(given["for"] or "")


def asking(**changes: str | None) -> str:
    """The path of a right authorization request of the native app, with changes."""
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": "native",
        "redirect_uri": "http://127.0.0.1:51515/callback",
        "scope": "openid email",
        "state": "s1",
        "nonce": "n1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return "/auth/authorize?" + urlencode({name: value for name, value in parameters.items() if value is not None})


async def open_page(desk: Desk, **changes: str | None) -> tuple[Form, str]:
    """The form, and the cookie that belongs to it."""
    answer = await desk.client.get(asking(**changes))
    assert answer.status_code == 200, answer.text
    return Form(answer.text), answer.headers["set-cookie"].partition(";")[0]


async def send_page(desk: Desk, form: Form, cookie: str, password: str = PASSWORD) -> httpx2.Response:
    """Fill it in."""
    desk.client.cookies.clear()
    fields = {**form.inputs, "username": "alice", "password": password}
    return await desk.client.post("/auth/authorize", data=fields, headers={"cookie": cookie})


async def get_code(desk: Desk, **changes: str | None) -> str:
    """The code of a whole log-in."""
    answer = await send_page(desk, *await open_page(desk, **changes))
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def redeeming(code: str, **changes: str) -> dict[str, str]:
    """The right form for a code of the native app, with changes."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": "native",
        "redirect_uri": "http://127.0.0.1:51515/callback",
        "code_verifier": VERIFIER,
        **changes,
    }


async def test_a_native_app_logs_in_by_code_and_refreshes(oauth: Desk) -> None:
    """Page, redirect with code, state and issuer, tokens with an ID token, refresh, userinfo."""
    form, cookie = await open_page(oauth)
    answer = await send_page(oauth, form, cookie)
    location = urlsplit(answer.headers["location"])
    assert (location.scheme, location.netloc, location.path) == ("http", "127.0.0.1:51515", "/callback")
    query = parse_qs(location.query)
    assert (query["state"], query["iss"]) == (["s1"], [URL])
    tokens = (await oauth.form("token", redeeming(query["code"][0], platform="mobile"))).json()
    key = jwt.PyJWK((await oauth.get("jwks.json")).json()["keys"][0])
    identity = jwt.decode(
        tokens["id_token"],
        key.key,
        ["ES256"],
        audience="native",
        issuer=URL,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert (identity["nonce"], identity["email"]) == ("n1", "a@example.org")
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "native"}
    again = (await oauth.form("token", {**refresh, "scope": "openid"})).json()
    assert again["scope"] == "openid"
    info = (await oauth.get("userinfo", tokens["access_token"])).json()
    assert info == {"sub": identity["sub"], "email": "a@example.org", "email_verified": False}
    narrow = (await oauth.get("userinfo", again["access_token"])).json()
    assert narrow == {"sub": identity["sub"]}
    other = {**refresh, "refresh_token": again["refresh_token"], "client_id": "first-party"}
    assert (await oauth.form("token", other)).json()["error"] == "invalid_grant"
    wide = {**refresh, "refresh_token": again["refresh_token"], "scope": "openid jobs:read"}
    assert (await oauth.form("token", wide)).json()["error"] == "invalid_scope"
    assert (await oauth.form("token", {**wide, "scope": ""})).status_code == 200


async def test_the_page_needs_no_script_and_tells_nothing_to_others(oauth: Desk) -> None:
    """Labels, a language, an alert that is read out; nothing is loaded, framed or kept; names are escaped."""
    answer = await oauth.client.get(asking())
    page = answer.text
    form = Form(page)
    assert {"username", "password"} <= form.labels
    assert '<html lang="en">' in page
    assert "Native &lt;App&gt;" in page
    assert "<script" not in page
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:51515" in policy
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-gateway-form=")
    assert all(part in cookie for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"))
    wrong = await send_page(oauth, form, cookie.partition(";")[0], "wrong password")
    assert wrong.status_code == 400
    assert '<p role="alert"' in wrong.text
    assert "<title>Error:" in wrong.text
    assert 'value="alice"' in wrong.text
    assert "wrong password" not in wrong.text


async def test_a_form_from_elsewhere_is_not_taken(oauth: Desk) -> None:
    """Without its cookie, with another browser's, changed, or too late: no log-in (login CSRF)."""
    form, cookie = await open_page(oauth)
    oauth.client.cookies.clear()
    _, other = await open_page(oauth)
    for wrong in ("", other, "__Host-gateway-form="):
        assert (await send_page(oauth, form, wrong)).status_code == 400
    changed = Form("")
    changed.inputs = {**form.inputs, "request": form.inputs["request"][:-6] + "AAAAA="}
    assert (await send_page(oauth, changed, cookie)).status_code == 400
    oauth.clock.wind(3601)
    assert (await send_page(oauth, form, cookie)).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": "worker"},
        {"client_id": "first-party"},
        {"client_id": None},
        {"redirect_uri": None},  # it has two
        {"redirect_uri": "http://127.0.0.1:51515/callback/"},
        {"redirect_uri": "http://127.0.0.1:51515/callback?x=1"},
        {"redirect_uri": "http://localhost:51515/callback"},
        {"redirect_uri": "https://127.0.0.1/callback"},
        {"redirect_uri": "http://127.0.0.1@evil.example/callback"},
        {"redirect_uri": "http://user@127.0.0.1/callback"},
        {"redirect_uri": "http://127.0.0.1:x/callback"},
        {"redirect_uri": "https://evil.example/"},
        {"client_id": "website", "redirect_uri": "https://app.example:444/cb?tenant=1"},
    ],
)
async def test_a_wrong_addressee_is_not_sent_anything(sqlite_url: str, changes: dict[str, str | None]) -> None:
    """Client or redirect URI wrong: an error page, no redirect."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        answer = await desk.client.get(asking(**changes))
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"request": "x"}, "request_not_supported"),
    ],
)
async def test_what_else_is_wrong_goes_back_to_the_app(
    sqlite_url: str, changes: dict[str, str | None], error: str
) -> None:
    """With the error, the state and the issuer."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        answer = await desk.client.get(asking(**changes))
        assert answer.status_code == 303
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert (query["error"], query["state"], query["iss"]) == ([error], ["s1"], [URL])


async def test_redirect_uris_keep_their_query_and_custom_schemes_work(oauth: Desk) -> None:
    """What the client has registered is added to, not replaced."""
    site = {"client_id": "website", "redirect_uri": "https://app.example/cb?tenant=1", "scope": "openid"}
    answer = await send_page(oauth, *await open_page(oauth, **site))
    assert answer.headers["location"].startswith("https://app.example/cb?tenant=1&code=")
    app = await send_page(oauth, *await open_page(oauth, redirect_uri="com.example.app:/cb"))
    assert app.headers["location"].startswith("com.example.app:/cb?code=")
    assert "form-action 'self' com.example.app:" in app.headers["content-security-policy"]


async def test_a_code_is_for_one_client_one_verifier_one_minute_and_one_use(oauth: Desk) -> None:
    """Anything else is `invalid_grant`; a code that comes twice ends the session that it began."""
    code = await get_code(oauth)
    wrong = [
        redeeming(code, code_verifier="w" * 64),
        redeeming(code, redirect_uri="http://127.0.0.1:1/callback"),
        redeeming("nonsense"),
    ]
    for form in wrong:
        answer = await oauth.form("token", form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    site = await oauth.form("token", redeeming(code, client_id="website", client_secret="website secret 0123456789"))
    assert site.json()["error"] == "invalid_grant"
    tokens = (await oauth.form("token", redeeming(code))).json()
    assert (await oauth.form("token", redeeming(code))).json()["error"] == "invalid_grant"
    assert oauth.denylist.keys == [f"session:own:{tokens['session_id']}"]
    late = await get_code(oauth)
    oauth.clock.wind(61)
    assert (await oauth.form("token", redeeming(late))).json()["error"] == "invalid_grant"


async def test_a_client_that_may_not_refresh_gets_no_refresh_token(oauth: Desk) -> None:
    """The website has the one grant; it authenticates by Basic or in the form, never both."""
    site = {"client_id": "website", "redirect_uri": "https://app.example/cb?tenant=1", "scope": "openid"}
    credentials = ("website", "website secret 0123456789")
    code = await get_code(oauth, **site)
    form = {**redeeming(code), "redirect_uri": site["redirect_uri"]}
    assert (await oauth.form("token", {**form, "client_id": "website"})).json()["error"] == "invalid_client"
    both = {**form, "client_id": "website", "client_secret": credentials[1]}
    assert (await oauth.form("token", both, credentials)).json()["error"] == "invalid_request"
    del form["client_id"]
    tokens = (await oauth.form("token", form, credentials)).json()
    assert "refresh_token" not in tokens
    assert "id_token" in tokens
    refresh = {"grant_type": "refresh_token", "refresh_token": "gwr_x"}
    assert (await oauth.form("token", refresh, credentials)).json()["error"] == "unauthorized_client"


async def test_a_service_gets_tokens_for_itself(oauth: Desk) -> None:
    """Its own audience and scopes, no session, no refresh token; its secret is kept as a hash."""
    answer = await oauth.form("token", {"grant_type": "client_credentials", "scope": "jobs:read"}, SERVICE)
    tokens = answer.json()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "scope"}
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    token = oauth.issuer.access_tokens.read(tokens["access_token"])
    assert token is not None
    assert (token.sub, token.client_id, token.claims["aud"]) == ("worker", "worker", "jobs")
    assert (token.claims["scope"], token.sid) == ("jobs:read", "")
    assert (await oauth.get("me", tokens["access_token"])).json()["code"] == "denied"
    wrong = await oauth.form("token", {"grant_type": "client_credentials"}, ("worker", "guess"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic")
    public = await oauth.form("token", {"grant_type": "client_credentials", "client_id": "native"})
    assert public.json()["error"] == "unauthorized_client"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "refresh_token"}, 401, "invalid_client"),
        ({"client_id": "native"}, 400, "invalid_request"),
        ({"client_id": "native", "grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": "native", "grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"client_id": "native", "grant_type": "authorization_code", "code": "x"}, 400, "invalid_request"),
        ({"client_id": "native", "client_secret": "x", "grant_type": "refresh_token"}, 401, "invalid_client"),
    ],
)
async def test_token_requests_that_cannot_be_are_refused_in_oauths_words(
    sqlite_url: str, form: dict[str, str], status: int, error: str
) -> None:
    """RFC 6749 §5.2."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        answer = await desk.form("token", form)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        json_body = await desk.post("token", form)
        assert (json_body.status_code, json_body.json()["error"]) == (400, "invalid_request")
        form_type = {"content-type": "application/x-www-form-urlencoded"}
        twice = await desk.client.post("/auth/token", content=b"grant_type=a&grant_type=b", headers=form_type)
        assert twice.json()["error"] == "invalid_request"
        bad = await desk.client.post("/auth/token", content=b"a=%ff%fe", headers=form_type)
        assert bad.json()["error"] == "invalid_request"


async def test_revocation_ends_what_the_token_stands_for(oauth: Desk) -> None:
    """A refresh token or an access token: its session; a service's token: itself. Unknown and others' tokens: 200."""
    code = await get_code(oauth)
    tokens = (await oauth.form("token", redeeming(code))).json()
    for text in (tokens["refresh_token"], tokens["access_token"], "unknown"):
        assert (await oauth.form("revoke", {"token": text}, SERVICE)).status_code == 200  # not the worker's
    assert oauth.denylist.entries == []
    assert (await oauth.form("revoke", {"token": tokens["refresh_token"], "client_id": "native"})).status_code == 200
    assert oauth.denylist.keys == [f"session:own:{tokens['session_id']}"]
    own = (await oauth.form("token", {"grant_type": "client_credentials"}, SERVICE)).json()["access_token"]
    for _ in range(2):
        assert (await oauth.form("revoke", {"token": own}, SERVICE)).status_code == 200
    token = oauth.issuer.access_tokens.read(own)
    assert token is not None
    assert oauth.denylist.keys[1:] == [f"token:own:{token.token_id}"]
    assert (await oauth.form("introspect", {"token": own}, SERVICE)).json() == {"active": False}


async def test_introspection_tells_those_who_may_ask(oauth: Desk) -> None:
    """A service with the right may ask about any token, others about their own, public clients not at all."""
    tokens = await oauth.login("alice")
    said = (await oauth.form("introspect", {"token": tokens["access_token"]}, SERVICE)).json()
    assert (said["active"], said["sid"], said["client_id"]) == (True, tokens["session_id"], "first-party")
    refresh = (await oauth.form("introspect", {"token": tokens["refresh_token"]}, SERVICE)).json()
    assert (refresh["active"], refresh["sub"]) == (True, said["sub"])
    site = ("website", "website secret 0123456789")
    assert (await oauth.form("introspect", {"token": tokens["access_token"]}, site)).json() == {"active": False}
    public = await oauth.form("introspect", {"token": tokens["access_token"], "client_id": "native"})
    assert (public.status_code, public.json()["error"]) == (401, "invalid_client")
    await oauth.post("logout", token=tokens["access_token"])
    for text in (tokens["access_token"], tokens["refresh_token"], "unknown"):
        assert (await oauth.form("introspect", {"token": text}, SERVICE)).json() == {"active": False}


async def test_an_apps_token_manages_the_account_only_with_the_scope_for_it(sqlite_url: str) -> None:
    """An OAuth client sees the user, but needs `account` to end sessions or to change the password."""
    native = {**CLIENTS["native"], "scopes": ["openid", "account"]}  # type: ignore[dict-item]
    async with Desk(sqlite_url, clients={"native": native}) as desk:
        await desk.register("alice")
        for scope, status in (("openid", 403), ("openid account", 200)):
            tokens = (await desk.form("token", redeeming(await get_code(desk, scope=scope)))).json()
            assert (await desk.get("me", tokens["access_token"])).status_code == 200
            assert (await desk.get("sessions", tokens["access_token"])).status_code == status


async def test_the_metadata_is_found_where_both_standards_look(oauth: Desk) -> None:
    """RFC 8414 puts the path last, OpenID first; every address in it exists."""
    beside = await oauth.client.get("/.well-known/oauth-authorization-server/auth")
    below = await oauth.get(".well-known/openid-configuration")
    assert beside.json() == below.json()
    document = below.json()
    assert document["issuer"] == URL
    assert below.headers["cache-control"] == "public, max-age=3600"
    for name, address in document.items():
        if name.endswith(("_endpoint", "_uri")):
            path = urlsplit(address).path
            assert path.removeprefix("/auth") in paths()
            method = "GET" if name in ("jwks_uri", "authorization_endpoint", "userinfo_endpoint") else "POST"
            assert (await oauth.client.request(method, path)).status_code not in (404, 405)


async def test_the_description_names_every_endpoint(oauth: Desk) -> None:
    """What is routed is described, and what is described is routed."""
    from gateway.issuer.endpoints.authorize import Authorize
    from gateway.issuer.endpoints.first_party import FirstParty
    from gateway.issuer.endpoints.metadata import Metadata
    from gateway.issuer.endpoints.oauth import OAuth

    routed = {
        (route.path.removeprefix("/auth"), method.lower())
        for part in (FirstParty, OAuth, Authorize, Metadata)
        for route in part(oauth.issuer).routes("/auth")
        for method in (route.methods or set()) - {"HEAD"}
        if route.path.startswith("/auth")
    }
    assert routed == {(path, method) for path, operations in paths().items() for method in operations}
