"""`gateway explain` gives the pipeline's answer before the pipeline is asked, and says why."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.cli import main
from gateway.config.load import load
from gateway.explain import explain
from gateway.explanation import Explanation, Probe
from gateway.revoke import revoke
from tests.keys.key_server import answer, key_server
from tests.tokens.mint import base64url

_FILE = """\
denylist: {store: "sqlite://deny.db"}
issuers:
  main:
    issuer: https://issuer.example
    jwks_file: keys.json
    audience: [api]
    algorithms: [ES256]
    credentials: {cookie: session}
identity:
  headers: {x-user-id: sub}
upstreams:
  orders: {endpoints: [http://127.0.0.1:9]}
routes:
  - {name: api, path: /api/**, upstream: orders}
  - {name: read, path: /api/orders, methods: [GET], upstream: orders, auth: {scopes: [orders:read]}}
  - {name: staff, path: /staff, upstream: orders, auth: {claims: {team: {equals: blue}}}}
  - {name: public, path: /public/**, upstream: orders, auth: none}
  - {name: pay, path: /pay, upstream: orders, idempotency: required}
"""


class Site:
    """A configuration with a key that the test holds."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "gateway.yaml"
        self.file.write_text(_FILE)
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        (folder / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256"}]}))
        self.config = load(self.file, {})
        self.now = time.time()

    def token(self, *, kid: str = "one", typ: str = "at+jwt", **claims: Any) -> str:
        """A good token, but for what is said."""
        good = {
            "iss": "https://issuer.example",
            "aud": "api",
            "sub": "alice",
            "jti": "t1",
            "iat": int(self.now) - 10,
            "exp": int(self.now) + 300,
        }
        return jwt.encode({**good, **claims}, self._key, algorithm="ES256", headers={"kid": kid, "typ": typ})

    def status_list(self, uri: str, octets: bytes, bits: int = 2) -> bytes:
        """A list that the issuer signs."""
        listed = {"bits": bits, "lst": base64url(zlib.compress(octets)).decode()}
        payload = {"sub": uri, "iat": int(self.now), "ttl": 60, "status_list": listed}
        headers = {"kid": "one", "typ": "statuslist+jwt"}
        return jwt.encode(payload, self._key, algorithm="ES256", headers=headers).encode()

    def with_lists(self, origin: str, when_unknown: str = "refuse") -> None:
        """Let the issuer have status lists."""
        section = f"    revocation: {{status_list: {{origins: [{origin}], when_unknown: {when_unknown}}}}}\n"
        self.file.write_text(_FILE.replace("    credentials:", section + "    credentials:"))
        self.config = load(self.file, {})

    async def ask(self, method: str, url: str, token: str | None = None, *headers: str) -> Explanation:
        """What is explained of one request."""
        found = await explain(self.config, Probe.of(method, url, headers, token), now=self.now)
        if token is not None:
            assert token not in found.render()
            assert token not in repr(found)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site in a folder of its own."""
    return Site(tmp_path)


@pytest.mark.asyncio
async def test_a_good_request_is_followed_to_the_upstream(site: Site) -> None:
    """Every step is told, with the identity that the upstream would see and what is taken away."""
    found = await site.ask("POST", "/api/orders", site.token(), "X_User_Id: root")
    assert [(step.name, step.outcome) for step in found.steps] == [
        ("match", "ok"),
        ("credential", "ok"),
        ("verify", "ok"),
        ("revoked?", "ok"),
        ("authorize", "ok"),
        ("identify", "ok"),
        ("forward", "ok"),
    ]
    text = found.render()
    assert "x-user-id: alice" in text
    assert "removed, because only the gateway may say it: x_user_id" in text
    assert text.endswith("The request would be forwarded.")


# method, URL, claims of the token (None: no token), headers; the step that refuses, the code, and what it says.
_REFUSED: list[tuple[str, str, dict[str, Any] | None, list[str], str, str, str]] = [
    ("GET", "/nowhere", None, [], "match", "no_route", "gateway routes"),
    ("GET", "/api/../admin", None, [], "match", "bad_request", "plain form of the path"),
    ("GET", "/api/%2e%2e/x", None, [], "match", "bad_request", "plain form of the path"),
    ("GET", "/api/x", None, [], "authorize", "token_missing", "Authorization: Bearer"),
    ("GET", "/api/x", {}, ["Cookie: session=a.b.c"], "credential", "bad_request", "exactly one token"),
    ("GET", "/api/x", None, ["Authorization: Bearer abc"], "verify", "token_invalid", "compact form"),
    ("GET", "/api/x", {"iss": "https://issuer.example/"}, [], "verify", "token_invalid", "trailing slash"),
    ("GET", "/api/x", {"aud": "other"}, [], "verify", "token_invalid", "`audience`"),
    ("GET", "/api/x", {"kid": "two"}, [], "verify", "token_invalid", "rotated"),
    ("GET", "/api/x", {"typ": "JWT"}, [], "verify", "token_invalid", "`token_type`"),
    ("GET", "/api/x", {"exp": 1_000_000_000, "iat": 999_999_000}, [], "verify", "token_expired", "refreshes"),
    ("GET", "/api/orders", {}, [], "authorize", "insufficient_scope", "scope orders:read"),
    ("GET", "/staff", {"team": "red"}, [], "authorize", "denied", "claim team"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("case", _REFUSED, ids=[f"{case[5]} {case[6]}" for case in _REFUSED])
async def test_a_refusal_names_step_code_reason_and_remedy(site: Site, case: Any) -> None:
    """The same code as the gateway's answer, with words for the operator."""
    method, url, claims, headers, step, code, says = case
    found = await site.ask(method, url, None if claims is None else site.token(**claims), *headers)
    assert found.error is not None
    assert (found.steps[-1].name, found.error.code) == (step, code)
    assert says in found.render()
    assert f"refused with {found.error.status} {code}." in found.render()


@pytest.mark.asyncio
async def test_a_revoked_token_names_the_entry(site: Site) -> None:
    """The key in the store, so that the operator can look at it or remove it."""
    await revoke(site.config, "subject", "main", "alice", now=site.now, ttl_s=60)
    found = await site.ask("GET", "/api/x", site.token())
    assert found.error is not None
    assert found.error.code == "token_revoked"
    assert "gateway:deny:subject:main:alice" in found.render()
    later = await site.ask("GET", "/api/x", site.token(iat=int(site.now) + 2))
    assert not later.is_refused


@pytest.mark.asyncio
async def test_a_status_is_told_with_its_list_and_place(site: Site) -> None:
    """Which list, which place, which status; a list's query is nobody's business."""
    async with key_server() as server:
        uri = f"{server.url}/status?key=private"
        server.answers["/status?key=private"] = answer(site.status_list(uri, b"\xe4"))
        site.with_lists(server.url)
        told = []
        for index in range(5):
            status = {"status_list": {"idx": index, "uri": uri}}
            found = await site.ask("GET", "/api/x", site.token(status=status))
            [step] = [step for step in found.steps if step.name == "status"]
            assert "private" not in found.render()
            told.append((step.outcome, found.error.code if found.error else "", step.says[-1]))
        place = f"of the list at {server.url}/status"
        assert told == [
            ("ok", "", f"VALID at place 0 {place}"),
            ("refused", "token_revoked", f"because it is INVALID at place 1 {place}"),
            ("refused", "token_revoked", f"because it is SUSPENDED at place 2 {place}"),
            (
                "refused",
                "token_revoked",
                f"because it is 3, which has a meaning to the issuer alone at place 3 {place}",
            ),
            ("refused", "token_invalid", f"there is no place 4 {place}"),
        ]


# when_unknown, path of the list, idx; the outcome, the code, and what it says.
_UNKNOWN = [
    ("refuse", "/gone", 1, "refused", "status_unavailable", "answered 404"),
    ("allow", "/gone", 1, "unknown", "", "`when_unknown: allow` lets the token pass"),
    ("refuse", "/gone", -1, "refused", "token_invalid", "non-negative integer"),
    ("refuse", "https://elsewhere.example/1", 1, "refused", "status_unavailable", "lists may not come from there"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("case", _UNKNOWN)
async def test_a_status_that_cannot_be_told(site: Site, case: Any) -> None:
    """The list could not be had, and why; or what the token says of it cannot be read."""
    when_unknown, path, index, outcome, code, says = case
    async with key_server() as server:
        site.with_lists(server.url, when_unknown)
        uri = path if "://" in path else server.url + path
        found = await site.ask("GET", "/api/x", site.token(status={"status_list": {"idx": index, "uri": uri}}))
        [step] = [step for step in found.steps if step.name == "status"]
        assert (step.outcome, found.error.code if found.error else "") == (outcome, code)
        assert says in found.render()


@pytest.mark.asyncio
async def test_a_status_that_nobody_looks_up_is_named(site: Site) -> None:
    """An issuer without lists, a token without a status, and --offline."""
    status = {"status_list": {"idx": 1, "uri": "https://issuer.example/1"}}
    assert "is not looked up" in (await site.ask("GET", "/api/x", site.token(status=status))).render()
    site.with_lists("https://issuer.example")
    assert "refers to no status list" in (await site.ask("GET", "/api/x", site.token())).render()
    probe = Probe.of("GET", "/api/x", (), site.token(status=status))
    offline = (await explain(site.config, probe, now=site.now, is_offline=True)).render()
    assert "--offline; it stands at place 1 of the list at https://issuer.example/1" in offline


@pytest.mark.asyncio
async def test_a_public_route_looks_at_no_token(site: Site) -> None:
    """Also a wrong token passes there; nothing of it becomes an identity."""
    found = await site.ask("GET", "https://any.example/public/a", "wrong")
    assert not found.is_refused
    assert "no identity headers" in found.render()


@pytest.mark.asyncio
async def test_what_cannot_be_checked_offline_is_said(site: Site) -> None:
    """Keys on a server and the store are left alone, and the conclusion depends on them."""
    site.file.write_text(_FILE.replace("    jwks_file: keys.json\n", ""))
    config = load(site.file, {})
    probe = Probe.of("GET", "/api/x", (), site.token())
    found = await explain(config, probe, now=site.now, is_offline=True)
    assert [(step.name, step.outcome) for step in found.steps][-1] == ("verify", "unknown")
    assert found.render().endswith("if what could not be checked here holds.")


def test_the_command_takes_the_token_from_stdin_or_the_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument would show in process lists; exit 0 for forwarded, 1 for refused, and the token never shows."""
    token = site.token()
    argv = ["explain", "--config", str(site.file), "GET", "/api/x"]
    monkeypatch.setenv("GATEWAY_TOKEN", token)
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "x-user-id: alice" in out
    assert token not in out
    monkeypatch.delenv("GATEWAY_TOKEN")
    assert main(argv) == 1
    assert "401 token_missing" in capsys.readouterr().out
    assert main([*argv, "--header", "nonsense"]) == 2
    assert main([*argv[:-1], "api/x"]) == 2


@pytest.mark.asyncio
async def test_a_key_is_read_and_missed(site: Site) -> None:
    """What the route does with it, or why the request would be refused; reads are not concerned."""
    told = (await site.ask("POST", "/pay", site.token(), 'Idempotency-Key: "k-1"')).render()
    assert "Idempotency-Key `k-1`: forwarded once" in told
    assert "kept for 1d" in told
    missing = (await site.ask("POST", "/pay", site.token())).error
    assert missing is not None
    assert missing.code == "idempotency_key_missing"
    malformed = (await site.ask("POST", "/pay", site.token(), "Idempotency-Key: a b")).error
    assert malformed is not None
    assert malformed.code == "bad_request"
    assert "forwarded each time" in (await site.ask("PUT", "/pay", site.token())).render()
    assert "Idempotency-Key" not in (await site.ask("GET", "/pay", site.token())).render()
