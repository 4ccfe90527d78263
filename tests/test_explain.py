"""`gateway explain` gives the pipeline's answer before the pipeline is asked, and says why."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.cli import main
from gateway.config.load import load
from gateway.explain import Explanation, Probe, explain
from gateway.revoke import revoke

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
