"""Those who mean harm, endpoint by endpoint: what they send, and that it gets them nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import re
import threading
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from sqlalchemy import select

from gateway.config.schema import Credentials
from gateway.issuer.browser import Browsers
from gateway.issuer.refusals import CrossSite
from gateway.issuer.store.tables import one_time_tokens, users
from gateway.tokens.bearer import CredentialSources, find_token
from tests.issuer.desk import PASSWORD, URL, Desk
from tests.issuer.test_accounts import GENEROUS, VERIFIED, WEBHOOK, mail_of
from tests.issuer.test_oauth import CLIENTS, SERVICE, asking, get_code, open_page, redeeming, send_page

pytestmark = pytest.mark.asyncio

# --- what is believed ------------------------------------------------------------------------------------------------


async def test_a_registration_sets_nothing_but_what_it_may(sqlite_url: str) -> None:
    """Roles, claims, an id, a verified address: members that nobody asked for are not taken (mass assignment)."""
    async with Desk(sqlite_url, claims=["roles", "tenant", "email_verified"]) as desk:
        wanted: dict[str, Any] = {
            "roles": ["admin"],
            "claims": {"tenant": 1},
            "tenant": 1,
            "email_verified": True,
            "disabled": False,
        }
        tokens = await desk.register("alice", email="a@example.org", **wanted, id="f" * 32, session_id="e" * 32)
        token = desk.issuer.access_tokens.read(tokens["access_token"])
        assert token is not None
        assert (token.claims["roles"], token.claims["email_verified"]) == ([], False)
        assert "tenant" not in token.claims
        assert token.sub != "f" * 32
        assert token.sid != "e" * 32


async def test_a_name_is_never_part_of_a_statement(desk: Desk) -> None:
    """Quotes, wildcards and comments are characters like any other."""
    await desk.register("alice")
    names = [
        "'or'1'='1",
        "alice'--",
        '"alice"',
        "alice%",
        "a_ice",
        "alice\\",
        ";drop/**/table/**/users",
        "$1",
        ":n",
        "%s",
    ]
    for count, name in enumerate(names, start=2):
        assert (await desk.post("login", {"username": name, "password": PASSWORD})).status_code == 401
        tokens = await desk.register(name)
        assert (await desk.get("me", tokens["access_token"])).json()["username"] == name
        assert len(await desk.issuer.accounts.list()) == count


async def test_the_host_header_is_not_believed(sqlite_url: str) -> None:
    """Metadata, tokens and messages name the configured address, so no reset can lead to somebody else's host."""
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    async with Desk(sqlite_url, webhook=WEBHOOK) as desk:
        tokens = await desk.register("alice", email="a@example.org")
        found = await desk.client.get("/auth/.well-known/openid-configuration", headers=evil)
        assert found.json()["issuer"] == URL
        assert "evil.example" not in found.text
        json_type = {**evil, "content-type": "application/json"}
        asked = json.dumps({"email": "a@example.org"}).encode()
        assert (await desk.client.post("/auth/password/forgot", content=asked, headers=json_type)).status_code == 202
        assert "evil.example" not in str(await mail_of(desk))
        token = desk.issuer.access_tokens.read(tokens["access_token"])
        assert token is not None
        assert token.claims["iss"] == URL


async def test_credentials_in_a_url_are_not_read(sqlite_url: str) -> None:
    """They would be in logs and histories; so nobody gets used to it."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        tokens = await desk.register("alice")
        query = f"refresh_token={tokens['refresh_token']}&grant_type=refresh_token&client_id=native"
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (await desk.client.post(f"/auth/token?{query}", headers=form)).json()["error"] == "invalid_client"
        json_type = {"content-type": "application/json"}
        answer = await desk.client.post(f"/auth/refresh?{query}", content=b"{}", headers=json_type)
        assert answer.json()["code"] == "invalid_request"
        assert (await desk.client.get(f"/auth/me?access_token={tokens['access_token']}")).status_code == 401
        assert (await desk.client.post("/auth/login?username=alice&password=x", content=b"")).status_code == 415


async def test_each_log_in_makes_its_own_session(sqlite_url: str) -> None:
    """What the browser or the attacker had before is neither taken over nor of any use (session fixation)."""
    async with Desk(sqlite_url, web={}) as desk:
        planted = await desk.register("mallory")
        ours = {"origin": "https://api.example", "content-type": "application/json"}
        headers = {**ours, "cookie": f"__Host-gateway-refresh={planted['refresh_token']}"}
        await desk.register("alice")
        members = {"username": "alice", "password": PASSWORD, "cookies": True, "session_id": planted["session_id"]}
        answer = await desk.client.post("/auth/login", content=json.dumps(members).encode(), headers=headers)
        assert answer.status_code == 200
        assert answer.json()["session_id"] != planted["session_id"]
        set_cookies = " ".join(answer.headers.get_list("set-cookie"))
        assert planted["refresh_token"] not in set_cookies


# --- what is sent back -----------------------------------------------------------------------------------------------


async def test_no_answer_with_a_token_is_kept_by_a_cache(sqlite_url: str) -> None:
    """`no-store` on tokens, on refusals and on the redirect with the code; nothing can be taken for a page."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        tokens = await desk.register("alice")
        form, cookie = await open_page(desk)
        redirect = await send_page(desk, form, cookie)
        code = parse_qs(urlsplit(redirect.headers["location"]).query)["code"][0]
        answers = [
            await desk.post("login", {"username": "alice", "password": PASSWORD}),
            await desk.refresh(tokens["refresh_token"]),
            await desk.form("token", redeeming(code)),
            await desk.form("token", {"grant_type": "client_credentials"}, SERVICE),
            await desk.form("introspect", {"token": tokens["access_token"]}, SERVICE),
            await desk.get("session", tokens["access_token"]),
            await desk.get("sessions", tokens["access_token"]),
            await desk.get("me", tokens["access_token"]),
            await desk.get("userinfo", tokens["access_token"]),
            await desk.post("logout", token=tokens["access_token"]),
            redirect,
            await desk.post("login", {"username": "alice", "password": "wrong password"}),
            await desk.form("token", {"grant_type": "client_credentials"}, ("worker", "guess")),
            await desk.client.get("/auth/authorize?client_id=nobody"),
        ]
        for answer in answers:
            assert answer.headers["cache-control"] == "no-store", answer.url
            is_problem = answer.headers.get("content-type") == "application/problem+json"
            assert is_problem or answer.headers["x-content-type-options"] == "nosniff", answer.url


async def test_no_other_site_may_read_an_answer_or_send_json(sqlite_url: str) -> None:
    """No CORS: a preflight is refused, and only public documents are readable from elsewhere."""
    foreign = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    async with Desk(sqlite_url, web={}) as desk:
        tokens = await desk.register("alice")
        for path in ("login", "refresh", "me", "token", "sessions", "authorize"):
            assert (await desk.client.options(f"/auth/{path}", headers=foreign)).status_code == 405
        bearer = {**foreign, "authorization": f"Bearer {tokens['access_token']}"}
        for path in ("me", "sessions", "session"):
            answer = await desk.client.get(f"/auth/{path}", headers=bearer)
            assert answer.status_code == 200
            assert "access-control-allow-origin" not in answer.headers
        for path in ("jwks.json", ".well-known/openid-configuration", "openapi.json"):
            answer = await desk.client.get(f"/auth/{path}", headers=foreign)
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers


async def test_pages_of_every_kind_refuse_to_be_framed(sqlite_url: str) -> None:
    """The form, the form again, the error page, the redirect (clickjacking)."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        await desk.register("alice")
        form, cookie = await open_page(desk)
        for answer in (
            await desk.client.get(asking()),
            await desk.client.get("/auth/authorize"),
            await send_page(desk, form, cookie, "wrong password"),
            await send_page(desk, form, cookie),
            await send_page(desk, form, ""),
        ):
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("algorithm", "members"), [("ES256", {"crv", "x", "y"}), ("EdDSA", {"crv", "x"}), ("RS256", {"e", "n"})]
)
async def test_the_key_set_holds_public_members_only(sqlite_url: str, algorithm: str, members: set[str]) -> None:
    """Of every kind of key."""
    async with Desk(sqlite_url, signing={"algorithm": algorithm}) as desk:
        [key] = (await desk.get("jwks.json")).json()["keys"]
        assert set(key) == {"kty", "kid", "use", "alg"} | members


async def test_no_secret_reaches_the_log_or_a_number(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Passwords, tokens, codes and hashes of a whole life, at the most talkative level."""
    caplog.set_level(logging.DEBUG)
    secrets: list[str] = [PASSWORD, "another good one", SERVICE[1]]
    async with Desk(sqlite_url, clients=CLIENTS, webhook=WEBHOOK) as desk:
        tokens = await desk.register("alice", email="a@example.org")
        secrets += [tokens["access_token"], tokens["refresh_token"]]
        code = await get_code(desk)
        redeemed = (await desk.form("token", redeeming(code))).json()
        secrets += [code, redeemed["access_token"], redeemed["refresh_token"], redeemed["id_token"]]
        await desk.form("token", redeeming(code))
        await desk.form("token", {"grant_type": "client_credentials"}, SERVICE)
        await desk.post("password/forgot", {"username": "alice"})
        [message] = await mail_of(desk)
        secrets.append(str(message["token"]))
        await desk.post("password/reset", {"token": message["token"], "new_password": "another good one"})
        await desk.refresh(tokens["refresh_token"])
        await desk.post("login", {"username": "alice", "password": "another good one"})
        async with desk.issuer.database.read() as connection:
            secrets.append((await connection.execute(select(users.c.password_hash))).scalar_one())
        numbers = str([(sample.name, sample.labels) for sample in desk.issuer.samples()])
    shown = caplog.text + numbers
    assert [secret for secret in secrets if secret in shown] == []
    assert "alice" not in numbers


# --- redirects and the log-in page -----------------------------------------------------------------------------------


_TIDIED = [
    "\thttp://127.0.0.1/callback",  # a parser drops these before it looks
    "http://127.0.0.1:1/call\nback",
    " http://127.0.0.1/callback",
    "http://127.0.0.1:1/callback#",
    "http://127.0.0.1:1\\@evil.example/callback",
    "http://127.0.0.1.evil.example/callback",
    "http://127.0.0.1%2eevil.example/callback",
    "HTTP://127.0.0.1:1/callback/../callback",
    "//127.0.0.1/callback",
    "com.example.app:/cb?x=1",
    "com.example.app:/cb/../evil",
]


async def test_a_redirect_uri_is_compared_as_it_is_sent(sqlite_url: str) -> None:
    """What only looks like a registered one after tidying up is not registered (open redirect)."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        for uri in _TIDIED:
            answer = await desk.client.get(asking(redirect_uri=uri))
            assert answer.status_code == 400, uri
            assert "location" not in answer.headers


async def test_a_form_is_bound_to_cookies_of_ours_only(sqlite_url: str) -> None:
    """A cookie that somebody has planted is replaced, and nothing of it comes back."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        for value in ["x", "a" * 43 + "!", '"\\015\\012set-cookie: a=b"', "é" * 43, "a" * 4000]:
            cookie = f"__Host-gateway-form={value}".encode("latin-1")
            answer = await desk.client.get(asking(), headers=[(b"cookie", cookie)])
            assert answer.status_code == 200
            assert len(answer.headers.get_list("set-cookie")) == 1
            fresh = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
            assert re.fullmatch(r"[A-Za-z0-9_-]{43}", fresh)
            assert fresh != value[:43]


async def test_a_narrower_scope_is_written_as_everybody_reads_it(sqlite_url: str) -> None:
    """Whatever white space or repetition the client sends, the token holds plain scopes."""
    async with Desk(sqlite_url, clients=CLIENTS) as desk:
        await desk.register("alice")
        tokens = (await desk.form("token", redeeming(await get_code(desk)))).json()
        form = {"grant_type": "refresh_token", "client_id": "native", "refresh_token": tokens["refresh_token"]}
        answer = (await desk.form("token", {**form, "scope": "email\r\nopenid\x0bemail\xa0openid"})).json()
        assert answer["scope"] == "email openid"
        token = desk.issuer.access_tokens.read(answer["access_token"])
        assert token is not None
        assert token.claims["scope"] == "email openid"


# --- cookies ---------------------------------------------------------------------------------------------------------


_WHERE_FROM: list[tuple[dict[str, str], bool]] = [
    ({"origin": "https://api.example"}, True),
    ({"sec-fetch-site": "same-origin"}, True),
    ({"origin": "https://evil.example"}, False),
    ({"origin": "null"}, False),
    ({"origin": "https://api.example.evil.example"}, False),
    ({"sec-fetch-site": "cross-site"}, False),
    ({}, False),
]


async def test_no_other_site_signs_a_visitor_in(sqlite_url: str) -> None:
    """Into cookies a log-in and a registration come from our own pages only (login CSRF)."""
    async with Desk(sqlite_url, web={}) as desk:
        await desk.register("alice")
        for number, (headers, is_ours) in enumerate(_WHERE_FROM):
            for path, name in (("login", "alice"), ("register", f"bob{number}")):
                sent = {**headers, "content-type": "application/json"}
                members = json.dumps({"username": name, "password": PASSWORD, "cookies": True}).encode()
                answer = await desk.client.post(f"/auth/{path}", content=members, headers=sent)
                assert answer.status_code == ({"login": 200, "register": 201}[path] if is_ours else 403), headers
                assert bool(answer.headers.get_list("set-cookie")) is is_ours


_COOKIES = [
    b"__Host-gateway-refresh=%b; __Host-gateway-refresh=%b",
    b"__host-gateway-refresh=%b",
    b"x__Host-gateway-refresh=%b",
    b"__Host-gateway-refresh",
    b"__Host-gateway-refresh=",
    b"__Host-gateway-access=; __Host-gateway-access=%b",
]
_READ_ALIKE = [
    b"__Host-gateway-refresh=%b",
    b"__Host-gateway-refresh =\t%b",
    b'x="; __Host-gateway-refresh=%b',  # RFC 6265 §5.4 knows no quotes around several cookies
]


async def test_a_cookie_that_no_browser_would_send_is_none(sqlite_url: str) -> None:
    """Twice, empty, in other letters: none, and nobody further on finds one (cookie tossing)."""
    async with Desk(sqlite_url, web={}) as desk:
        tokens = await desk.register("alice")
        for cookie in (*_COOKIES, *_READ_ALIKE):
            value = cookie.replace(b"%b", tokens["refresh_token"].encode())
            scope = {"type": "http", "method": "GET", "client": ("192.0.2.1", 1), "headers": [(b"cookie", value)]}
            admitted, _ = await Browsers(desk.issuer).admit(scope, _nowhere, is_own=False)
            sources = CredentialSources.of([Credentials(cookie="__Host-gateway-access")])
            found = find_token(admitted["headers"], b"", sources)
            assert (found is not None) is (cookie in _READ_ALIKE), cookie
            with pytest.raises(CrossSite) if cookie in _READ_ALIKE else contextlib.nullcontext():
                await Browsers(desk.issuer).admit({**scope, "method": "POST"}, _nowhere, is_own=False)


async def _nowhere(_: Any) -> None:
    """A `send` for requests that get no answer."""


# --- wearing out -----------------------------------------------------------------------------------------------------


async def test_a_reset_without_a_token_costs_no_hash_and_is_slowed_down(sqlite_url: str) -> None:
    """Otherwise anybody could keep the threads busy that everybody's log-in needs."""
    async with Desk(sqlite_url, throttle={"address": 3}) as desk:
        before = desk.issuer.pool.hashes
        answers = [
            await desk.post("password/reset", {"token": "x" * 43, "new_password": "another good one"}) for _ in range(6)
        ]
        assert desk.issuer.pool.hashes == before
        assert [answer.status_code for answer in answers] == [400] * 4 + [429] * 2


async def test_one_mailbox_cannot_be_filled(sqlite_url: str) -> None:
    """Registrations and resets for one address are counted, wherever they come from."""
    async with Desk(sqlite_url, **VERIFIED, throttle={"account": 2, "address": 1000}) as desk:
        asked = {"email": "a@example.org", "password": PASSWORD}
        statuses = [(await desk.post("register", asked)).status_code for _ in range(5)]
        assert statuses == [202] * 3 + [429] * 2
        statuses = [(await desk.post("password/forgot", {"email": "a@example.org"})).status_code for _ in range(5)]
        assert statuses == [202] * 3 + [429] * 2
        assert len(await mail_of(desk)) == 3
        other = await desk.post("register", {**asked, "email": "b@example.org"})
        assert other.status_code == 202


async def test_who_was_turned_away_for_want_of_a_thread_has_not_failed(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy moment does not become a block of honest users."""
    passwords = {"time_cost": 2, "memory": "8MiB", "threads": 1, "waiting": 0}
    async with Desk(sqlite_url, passwords=passwords, throttle={"account": 2, "address": 1000}) as desk:
        await desk.register("alice")
        members = {"username": "alice", "password": PASSWORD}
        pool, may_end = desk.issuer.pool, threading.Event()
        ask = pool._ask
        monkeypatch.setattr(pool, "_ask", lambda question: (may_end.wait(30), ask(question))[1])
        for _ in range(3):
            may_end.clear()
            busy = asyncio.create_task(pool.hash("somebody else's"))
            await asyncio.sleep(0)  # the task has the thread
            assert (await desk.post("login", members)).status_code == 503
            may_end.set()
            await busy
        assert (await desk.post("login", members)).status_code == 200


async def test_a_long_password_takes_no_longer(sqlite_url: str) -> None:
    """It is bounded before it is normalised, and refused where one is chosen."""
    async with Desk(sqlite_url, throttle=GENEROUS) as desk:
        await desk.register("alice")
        for password in ("x" * 1024, "\ufdfa" * 1000, "a\u0323\u0307" * 300, "\U0001f468\u200d" * 500):
            assert (await desk.post("login", {"username": "alice", "password": password})).status_code == 401
            weak = await desk.post("register", {"username": "bob", "password": password})
            assert weak.json()["code"] == "weak_password"
            hashes = desk.issuer.pool.hashes
            too_long = await desk.post("login", {"username": "alice", "password": password + "x" * 1024})
            assert too_long.json()["code"] == "invalid_request"
            assert desk.issuer.pool.hashes == hashes


async def test_the_longest_password_works_however_it_is_typed(sqlite_url: str) -> None:
    """256 characters, each typed as three."""
    async with Desk(sqlite_url) as desk:
        letters = [chr(code) for code in range(0x1EA4, 0x1EA4 + 64)]  # Latin letters with two marks
        composed = "".join(letters * 4)
        decomposed = unicodedata.normalize("NFD", composed)
        assert len(decomposed) > 512
        await desk.register("alice", decomposed)
        assert (await desk.login("alice", composed))["session_id"]
        assert (await desk.login("alice", decomposed))["session_id"]


async def test_a_compressed_body_is_not_unfolded(sqlite_url: str) -> None:
    """Nothing is decompressed for a stranger: a small body cannot become a large one."""
    async with Desk(sqlite_url) as desk:
        bomb = gzip.compress(b'{"username": "' + b"x" * 30_000_000 + b'"}')
        assert len(bomb) < 64 * 1024
        for encoding in ("gzip", "deflate", "identity"):
            headers = {"content-type": "application/json", "content-encoding": encoding}
            answer = await desk.client.post("/auth/login", content=bomb, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


# --- proofs by mail --------------------------------------------------------------------------------------------------


async def test_a_changed_password_ends_resets_and_codes_on_their_way(sqlite_url: str) -> None:
    """Whoever had read the mail before, or has a code from the old password, is too late."""
    async with Desk(sqlite_url, webhook=WEBHOOK, clients=CLIENTS) as desk:
        tokens = await desk.register("alice", email="a@example.org")
        code = await get_code(desk)
        await desk.post("password/forgot", {"username": "alice"})
        [message] = await mail_of(desk)
        change = {"password": PASSWORD, "new_password": "another good one"}
        assert (await desk.post("password", change, tokens["access_token"])).status_code == 204
        reset = {"token": message["token"], "new_password": "the thief's choice"}
        assert (await desk.post("password/reset", reset)).json()["code"] == "token_unusable"
        assert (await desk.form("token", redeeming(code))).json()["error"] == "invalid_grant"


async def test_a_one_time_token_is_for_one_purpose(sqlite_url: str) -> None:
    """A reset confirms no registration and a confirmation resets nothing; what is kept is a hash."""
    async with Desk(sqlite_url, **VERIFIED) as desk:
        await desk.post("register", {"email": "a@example.org", "password": PASSWORD})
        [verify] = await mail_of(desk)
        reset = {"token": verify["token"], "new_password": "another good one"}
        assert (await desk.post("password/reset", reset)).json()["code"] == "token_unusable"
        await desk.post("verify", {"token": verify["token"]})
        await desk.post("password/forgot", {"email": "a@example.org"})
        [message] = await mail_of(desk)
        assert (await desk.post("verify", {"token": message["token"]})).json()["code"] == "token_unusable"
        async with desk.issuer.database.read() as connection:
            rows = (await connection.execute(select(one_time_tokens))).all()
        assert [row.purpose for row in rows] == ["reset"]
        assert str(message["token"]) not in str(rows)


@pytest.mark.parametrize(
    ("path", "members"),
    [("password", {"password": "guess", "new_password": "another good one"}), ("me/delete", {"password": "guess"})],
)
async def test_a_stolen_access_token_cannot_guess_the_password(
    sqlite_url: str, path: str, members: dict[str, str]
) -> None:
    """What changes or removes the account needs the password, and guesses are counted as at the log-in."""
    async with Desk(sqlite_url, throttle={"account": 3}) as desk:
        tokens = await desk.register("alice")
        send: Callable[[], Any] = lambda: desk.post(path, members, tokens["access_token"])  # noqa: E731
        answers: list[httpx2.Response] = [await send() for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 4 + [429] * 2
