"""The five ways in which people and programs use a gateway with its own issuer, over TLS, on SQLite and PostgreSQL.

- *web*: a page in a real browser, tokens in cookies
- *mobile*: an app with its own sign-in, among other devices of its user
- *desktop*: a native app that signs in through the browser (RFC 8252)
- *service-to-service*: a program with a secret and nobody at the keyboard
- *offline-return*: a device that comes back after days or months
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import secrets
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
import pytest_asyncio

from gateway.issuer.service import Issuer
from gateway.issuer.store.tables import sessions
from tests.browser import Browser, why_not
from tests.certificates import make_certificate
from tests.edge import GatewayProcess, RecordingUpstream, SeenRequest
from tests.issuer.desk import issuance
from tests.issuer.house import PASSWORD
from tests.ports import release_port, reserve_port
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

DAY_S = 86_400.0
SECRET = "worker-secret-0123456789"
ACCESS, REFRESH = "__Host-gateway-access", "__Host-gateway-refresh"

CONFIG = """\
server:
  listen: 127.0.0.1:{port}
  tls: {certificate: CERTIFICATE, key: KEY}
admin:
  listen: 127.0.0.1:{admin}
denylist:
  store: DENYLIST
issuer:
  url: https://127.0.0.1:{port}/auth
  store: STORE
  registration: open
  passwords: {time_cost: 1, memory: 64KiB}
  throttle: {account: 100000, address: 100000}
  web: {}
  clients:
    desktop:
      name: Notes for the desktop
      redirect_uris: ["http://127.0.0.1/signed-in"]
      scopes: [openid, email, account]
    worker:
      secret: SECRET
      grants: [client_credentials]
      scopes: [jobs, reports]
identity:
  headers:
    x-user-id: sub
    x-user-email: email
upstreams:
  app:
    endpoints: [UPSTREAM]
routes:
  - name: api
    path: /api/**
    upstream: app
  - name: jobs
    path: /jobs/**
    upstream: app
    auth: {scopes: [jobs]}
  - name: page
    path: /page/**
    upstream: app
    auth: none
"""


class House:
    """A running gateway with its issuer, the app behind it, and a way to let time pass for one session."""

    def __init__(
        self, gateway: GatewayProcess, upstream: RecordingUpstream, store_url: str, certificate: tuple[Path, Path]
    ) -> None:
        self.upstream, self.certificate = upstream, certificate
        self.origin = f"https://127.0.0.1:{gateway.port}"
        self.issuer = Issuer(issuance(store_url, url=f"{self.origin}/auth"), None)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the test's own certificate
        self.http = httpx2.AsyncClient(base_url=self.origin, trust_env=False, timeout=10, verify=context)

    async def post(self, name: str, members: Any = None, token: str | None = None) -> httpx2.Response:
        """`POST /auth/<name>` with JSON."""
        return await self.http.post(f"/auth/{name}", json=members, headers=bearer(token))

    async def form(self, name: str, **fields: str) -> httpx2.Response:
        """`POST /auth/<name>` with a form."""
        return await self.http.post(f"/auth/{name}", data=fields)

    async def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """`GET`, with an access token."""
        return await self.http.get(path, headers=bearer(token))

    async def register(self, **more: Any) -> dict[str, Any]:
        """Somebody new, signed in: the tokens, and the `username`."""
        username = f"user-{uuid.uuid4().hex}"
        answer = await self.post("register", {"username": username, "password": PASSWORD, **more})
        assert answer.status_code == 201, answer.text
        return {**answer.json(), "username": username}

    async def until_refused(self, token: str, path: str = "/api/x") -> httpx2.Response:
        """The answer once the revocation has arrived, which takes milliseconds."""
        async with asyncio.timeout(10):
            while (answer := await self.get(path, token)).status_code == 200:
                await asyncio.sleep(0.01)
        return answer

    async def let_pass(self, seconds: float, tokens: dict[str, Any]) -> str:
        """Everything of this session happened so much earlier; its access token as it was issued then."""
        moments = ("created_at", "last_seen_at", "idle_expires_at", "expires_at", "rotated_at")
        earlier = {name: sessions.c[name] - seconds for name in moments}
        async with self.issuer.database.write() as connection:
            await connection.execute(sessions.update().where(sessions.c.id == tokens["session_id"]).values(**earlier))
        claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
        claims |= {name: claims[name] - int(seconds) for name in ("iat", "exp", "auth_time")}
        key = self.issuer.keys.current(time.time())
        assert key.private is not None
        return jwt.encode(claims, key.private, key.algorithm, {"typ": "at+jwt", "kid": key.kid})


def bearer(token: str | None) -> dict[str, str]:
    """The header of a token, if there is one."""
    return {} if token is None else {"authorization": f"Bearer {token}"}


async def answer_page(seen: SeenRequest, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The app: one empty page for every address; it answers with whom it was told is calling."""
    user = b"".join(seen.all(b"x-user-id"))
    body = b"<!DOCTYPE html><title>App</title><p>" + user
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def open_house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_session: RedisServer
) -> AsyncIterator[House]:
    """One gateway for all flows: embedded stores, or PostgreSQL and Redis."""
    folder = tmp_path_factory.mktemp("house")
    if request.param == "sqlite":
        store, denylist = f"sqlite://{folder}/issuer.db", f"sqlite://{folder}/denylist.db"
    else:
        store, denylist = request.getfixturevalue("postgres").fresh(), redis_session.url
    upstream = await RecordingUpstream.start(answer_page)
    certificate, key = make_certificate(folder)
    text = CONFIG
    given = {"CERTIFICATE": certificate, "KEY": key, "DENYLIST": denylist, "STORE": store, "SECRET": SECRET}
    for name, value in {**given, "UPSTREAM": upstream.url}.items():
        text = text.replace(name, str(value))
    ports = reserve_port(), reserve_port()
    async with GatewayProcess(folder, text, *ports) as gateway:
        house = House(gateway, upstream, store, (certificate, key))
        await house.issuer.open()
        yield house
        await house.http.aclose()
        await house.issuer.close()
    await upstream.close()
    for port in ports:
        release_port(port)


@pytest.fixture
def house(open_house: House) -> House:
    """The gateway, before anything has come to the app."""
    open_house.upstream.seen.clear()
    open_house.http.cookies.clear()
    return open_house


# --- web -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    async with Browser() as browser:
        yield browser


class Page:
    """A page of the app, and a second tab of it."""

    def __init__(self, browser: Browser, house: House) -> None:
        self.browser = browser
        self.origin = house.origin

    async def fetch(self, method: str, path: str, members: Any = None, *, tab: str = "window") -> tuple[int, Any]:
        """What a script of the page gets: status, and the JSON or text of the answer."""
        options: dict[str, Any] = {"method": method}
        if members is not None:
            options |= {"headers": {"content-type": "application/json"}, "body": json.dumps(members)}
        script = f"{tab}.fetch({json.dumps(path)}, {json.dumps(options)}).then(async a => [a.status, await a.text()])"
        status, text = await self.browser.evaluate(script)
        return status, json.loads(text) if text.startswith("{") else text

    async def open_tab(self) -> None:
        """A second tab, called `tab` in the first one's scripts."""
        await self.browser.evaluate("void (window.tab = open('/page/second'))")
        await self.browser.wait_for("tab.document.title === 'App'")


class OtherOrigin(RecordingUpstream):
    """A server of somebody else on the same machine, with pages of his own, over TLS too."""

    def __init__(self, certificate: tuple[Path, Path]) -> None:
        super().__init__(answer_page)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(*certificate)

    async def listen(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]


async def test_web(house: House, open_browser: Browser) -> None:
    """Registered, refreshed and signed out without a token in any script; other people's pages write nothing."""
    await open_browser.renew()
    page = Page(open_browser, house)
    await open_browser.goto(f"{house.origin}/page/first")
    members = {"username": f"alice-{uuid.uuid4().hex}", "password": PASSWORD, "platform": "web", "cookies": True}
    status, answer = await page.fetch("POST", "/auth/register", members)
    assert (status, set(answer)) == (201, {"expires_in", "scope", "session_id"})
    assert await open_browser.evaluate("document.cookie") == ""
    cookies = await open_browser.cookies()
    for name in (ACCESS, REFRESH):
        assert (cookies[name]["httpOnly"], cookies[name]["secure"], cookies[name]["sameSite"]) == (True, True, "Lax")

    user = (await page.fetch("GET", "/auth/me"))[1]["id"]
    assert (await page.fetch("POST", "/api/write", {}))[0] == 200
    assert house.upstream.seen[-1].all(b"x-user-id") == [user.encode()]
    assert house.upstream.seen[-1].all(b"cookie") == []

    # The access token's time has come: the gateway refreshes, in whichever tab asks, also in both at once.
    await page.open_tab()
    await open_browser.delete_cookie(ACCESS)
    both = await asyncio.gather(page.fetch("GET", "/api/a"), page.fetch("GET", "/api/b", tab="tab"))
    assert [status for status, _ in both] == [200, 200]
    assert all(user in text for _, text in both)
    renewed = await open_browser.cookies()
    assert renewed[REFRESH]["value"] != cookies[REFRESH]["value"]
    assert ACCESS in renewed

    await refuse_other_pages(house, open_browser)

    # Signed out in one tab, the other has nothing left either, nor has a copy of the cookie.
    await open_browser.goto(f"{house.origin}/page/first")
    await page.open_tab()
    assert (await page.fetch("GET", "/api/c", tab="tab"))[0] == 200
    assert (await page.fetch("POST", "/auth/logout"))[0] == 204
    assert await open_browser.cookies() == {}
    status, answer = await page.fetch("GET", "/api/c", tab="tab")
    assert (status, answer["code"]) == (401, "token_missing")
    copied = await house.http.get("/api/c", headers={"cookie": f"{REFRESH}={renewed[REFRESH]['value']}"})
    assert (copied.status_code, copied.json()["code"]) == (401, "token_missing")
    assert (await house.until_refused(renewed[ACCESS]["value"])).json()["code"] == "token_revoked"


async def refuse_other_pages(house: House, browser: Browser) -> None:
    """A page of the same host on another port gets the cookies sent, one of another site does not: neither writes."""
    other = OtherOrigin(house.certificate)
    await other.listen()
    reached = len(house.upstream.seen)
    for host, status, code in (("127.0.0.1", 403, "cross_site"), ("localhost", 401, "token_missing")):
        await browser.goto(f"https://{host}:{other.port}/")
        form = f"<form method='post' action='{house.origin}/api/write'><input name='a' value='1'></form>"
        await browser.evaluate(f"document.body.innerHTML = {json.dumps(form)}")
        await browser.evaluate("void setTimeout(() => document.forms[0].submit())")
        shown = await browser.wait_for("document.body.innerText.startsWith('{') && document.body.innerText")
        problem = json.loads(shown)
        assert (problem["status"], problem["code"]) == (status, code)
    assert len(house.upstream.seen) == reached
    assert {ACCESS, REFRESH} <= set(await browser.cookies())
    await other.close()


# --- mobile ----------------------------------------------------------------------------------------------------------


async def test_mobile(house: House) -> None:
    """Signed in with a device name, refreshed over a bad network, ended from the user's other device."""
    computer = await house.register(platform="desktop", device_name="Computer")
    members = {"username": computer["username"], "password": PASSWORD, "platform": "mobile", "device_name": "Phone"}
    phone = (await house.post("login", members)).json()
    assert (await house.get("/api/x", phone["access_token"])).status_code == 200

    # The answer was lost in a tunnel: the same question has the same answer, and only the last one asked goes on.
    lost = (await house.post("refresh", {"refresh_token": phone["refresh_token"]})).json()
    again = (await house.post("refresh", {"refresh_token": phone["refresh_token"]})).json()
    assert again["refresh_token"] == lost["refresh_token"]
    assert again["session_id"] == phone["session_id"]
    for tokens in (phone, lost, again):
        assert (await house.get("/api/x", tokens["access_token"])).status_code == 200

    devices = (await house.get("/auth/sessions", computer["access_token"])).json()["sessions"]
    assert {(device["device_name"], device["platform"], device["current"]) for device in devices} == {
        ("Computer", "desktop", True),
        ("Phone", "mobile", False),
    }
    ended = await house.http.delete(f"/auth/sessions/{phone['session_id']}", headers=bearer(computer["access_token"]))
    assert ended.status_code == 204
    assert (await house.until_refused(again["access_token"])).json()["code"] == "token_revoked"
    refused = await house.post("refresh", {"refresh_token": again["refresh_token"]})
    assert (refused.status_code, refused.json()["code"]) == (401, "session_ended")
    assert (await house.get("/api/x", computer["access_token"])).status_code == 200


# --- desktop ---------------------------------------------------------------------------------------------------------


class NativeApp:
    """A program that opens the browser for the sign-in and listens on loopback for the way back."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.verifier, self.state = secrets.token_urlsafe(48), secrets.token_urlsafe()

    async def sign_in(self, use_browser: Callable[[str], Any]) -> dict[str, str]:
        """What came back in the address, after `use_browser` was given the one to open."""
        came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        async def answer(seen: SeenRequest, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            address = urlsplit(seen.line.split(b" ")[1].decode())
            if address.path == "/signed-in" and not came.done():
                came.set_result({name: values[0] for name, values in parse_qs(address.query).items()})
            body = b"<title>Signed in</title>You may close this window."
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )

        listening = await RecordingUpstream.start(answer)
        try:
            self.redirect_uri = f"{listening.url}/signed-in"
            digest = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
            query = {
                "response_type": "code",
                "client_id": "desktop",
                "redirect_uri": self.redirect_uri,
                "scope": "openid email account",
                "state": self.state,
                "code_challenge": digest,
                "code_challenge_method": "S256",
            }
            await use_browser(str(httpx2.URL(f"{self.house.origin}/auth/authorize", params=query)))
            return await asyncio.wait_for(came, 20)
        finally:
            await listening.close()

    async def redeem(self, code: str) -> httpx2.Response:
        """Tokens for the code."""
        return await self.house.form(
            "token",
            grant_type="authorization_code",
            client_id="desktop",
            code=code,
            redirect_uri=self.redirect_uri,
            code_verifier=self.verifier,
            platform="desktop",
            device_name="Work laptop",
        )


async def fill_in_without_scripts(house: House, username: str, address: str) -> None:
    """What a browser does that runs no scripts."""
    page = await house.http.get(address)
    hidden = re.search(r'name="request" value="([^"]+)"', page.text)
    assert hidden is not None, page.text
    fields = {"request": unescape(hidden[1]), "username": username, "password": PASSWORD}
    answer = await house.http.post("/auth/authorize", data=fields)
    assert answer.status_code == 303
    async with httpx2.AsyncClient(trust_env=False) as browser:
        await browser.get(answer.headers["location"])


async def test_desktop(house: House) -> None:
    """Signed in through the browser, used, refreshed, and ended by its user's log-out everywhere."""
    alice = await house.register(email=f"{uuid.uuid4().hex}@example.org")
    app = NativeApp(house)
    came = await app.sign_in(lambda address: fill_in_without_scripts(house, alice["username"], address))
    assert (came["state"], came["iss"]) == (app.state, f"{house.origin}/auth")
    tokens = (await app.redeem(came["code"])).json()
    assert (await house.get("/api/x", tokens["access_token"])).status_code == 200
    me = (await house.get("/auth/userinfo", tokens["access_token"])).json()
    assert house.upstream.seen[-1].all(b"x-user-id") == [me["sub"].encode()]
    assert house.upstream.seen[-1].all(b"x-user-email") == [me["email"].encode()]

    fields = {"grant_type": "refresh_token", "client_id": "desktop", "refresh_token": tokens["refresh_token"]}
    tokens = (await house.form("token", **fields)).json()
    devices = (await house.get("/auth/sessions", tokens["access_token"])).json()["sessions"]
    assert ("Work laptop", "desktop", "desktop") in {
        (device["device_name"], device["platform"], device["client_id"]) for device in devices
    }
    assert (await house.post("logout-all", {}, alice["access_token"])).json() == {"ended": 2}
    assert (await house.until_refused(tokens["access_token"])).json()["code"] == "token_revoked"
    refused = await house.form("token", **{**fields, "refresh_token": tokens["refresh_token"]})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")

    # Somebody who saw the code go by has no use for it, and its session ends with the attempt.
    came = await app.sign_in(lambda address: fill_in_without_scripts(house, alice["username"], address))
    tokens = (await app.redeem(came["code"])).json()
    assert (await app.redeem(came["code"])).json()["error"] == "invalid_grant"
    assert (await house.until_refused(tokens["access_token"])).json()["code"] == "token_revoked"


async def test_desktop_with_a_browser(house: House, open_browser: Browser) -> None:
    """The log-in page in Chromium, under its own content security policy: a wrong password, then the right one."""
    alice = await house.register()
    await open_browser.renew()

    async def fill_in(address: str) -> None:
        await open_browser.goto(address)
        assert "Notes for the desktop" in await open_browser.text("main")
        for password in ("wrong horse battery", PASSWORD):
            await open_browser.fill("#username", alice["username"])
            await open_browser.fill("#password", password)
            await open_browser.click("button")
            if password != PASSWORD:
                await open_browser.wait_for("document.querySelector('[role=alert]')?.innerText.includes('wrong')")
        await open_browser.wait_for("document.title === 'Signed in'")

    app = NativeApp(house)
    came = await app.sign_in(fill_in)
    assert came["state"] == app.state
    tokens = (await app.redeem(came["code"])).json()
    assert (await house.get("/api/x", tokens["access_token"])).status_code == 200


# --- service to service ----------------------------------------------------------------------------------------------


async def test_service_to_service(house: House) -> None:
    """A token for the program itself, for what its scopes allow, until it is revoked."""
    fields = {"grant_type": "client_credentials", "client_id": "worker", "client_secret": SECRET}
    answer = await house.form("token", scope="jobs", **fields)
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
    token = answer.json()["access_token"]
    assert (await house.get("/jobs/next", token)).status_code == 200
    assert house.upstream.seen[-1].all(b"x-user-id") == [b"worker"]

    narrow = (await house.form("token", scope="reports", **fields)).json()["access_token"]
    refused = await house.get("/jobs/next", narrow)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert (await house.get("/auth/me", token)).status_code == 403
    wrong = await house.form("token", **{**fields, "client_secret": SECRET + "x"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")

    revoked = await house.form("revoke", token=token, client_id="worker", client_secret=SECRET)
    assert revoked.status_code == 200
    assert (await house.until_refused(token, "/jobs/next")).json()["code"] == "token_revoked"
    fresh = (await house.form("token", scope="jobs", **fields)).json()["access_token"]
    assert (await house.get("/jobs/next", fresh)).status_code == 200


# --- offline-return --------------------------------------------------------------------------------------------------


async def worth(house: House, token: str) -> tuple[str, str]:
    """What the re-sync call says of a token: its state and what to do."""
    answer = (await house.get("/auth/session", token)).json()
    assert abs(answer["server_time"] - time.time()) < 60
    return answer["token"], answer["action"]


async def test_offline_return(house: House) -> None:
    """Back after two months: told to refresh, served, and the queue goes out as the same user."""
    phone = await house.register(platform="mobile", device_name="Phone")
    user = (await house.get("/auth/me", phone["access_token"])).json()["id"]
    # The last answer before the flight was lost.
    await house.post("refresh", {"refresh_token": phone["refresh_token"]})
    expired = await house.let_pass(60 * DAY_S, phone)

    refused = await house.http.post("/api/queued", headers=bearer(expired))
    assert (refused.status_code, refused.json()["code"]) == (401, "token_expired")
    assert "date" in refused.headers
    assert not house.upstream.seen
    assert await worth(house, expired) == ("expired", "refresh")
    assert await worth(house, phone["refresh_token"]) == ("valid", "refresh")
    tokens = (await house.post("refresh", {"refresh_token": phone["refresh_token"]})).json()
    assert tokens["session_id"] == phone["session_id"]
    assert (await house.http.post("/api/queued", headers=bearer(tokens["access_token"]))).status_code == 200
    assert house.upstream.seen[-1].all(b"x-user-id") == [user.encode()]
    assert await worth(house, tokens["access_token"]) == ("valid", "continue")


async def test_offline_return_after_too_long(house: House) -> None:
    """A browser's session does not last so long: sign in again, and the queue is kept for whoever is the same user."""
    page = await house.register(platform="web")
    expired = await house.let_pass(60 * DAY_S, page)
    assert await worth(house, expired) == ("expired", "sign_in")
    assert await worth(house, page["refresh_token"]) == ("expired", "sign_in")
    refused = await house.post("refresh", {"refresh_token": page["refresh_token"]})
    assert (refused.status_code, refused.json()["code"]) == (401, "session_ended")
    members = {"username": page["username"], "password": PASSWORD, "platform": "web"}
    tokens = (await house.post("login", members)).json()
    subjects = [
        jwt.decode(token, options={"verify_signature": False})["sub"] for token in (expired, tokens["access_token"])
    ]
    assert subjects[0] == subjects[1]


async def test_offline_return_to_sign_out(house: House) -> None:
    """A log-out that waited for two days, with nothing but old tokens, ends the session once and for all."""
    for what in ("access", "refresh"):
        laptop = await house.register(platform="desktop")
        expired = await house.let_pass(2 * DAY_S, laptop)
        fresh = (await house.post("refresh", {"refresh_token": laptop["refresh_token"]})).json()
        for _ in range(2):
            if what == "access":
                answer = await house.post("logout", token=expired)
            else:
                answer = await house.post("logout", {"refresh_token": laptop["refresh_token"]})
            assert answer.status_code == 204
        assert (await house.until_refused(fresh["access_token"])).json()["code"] == "token_revoked"
        assert await worth(house, fresh["refresh_token"]) == ("revoked", "sign_in")
        assert await worth(house, expired) == ("revoked", "sign_in")
