"""Clients that other people wrote, unmodified: Authlib; `openid-client` and `jose` for Node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from authlib.integrations.requests_client import OAuth2Session

from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.house import PASSWORD, config_text
from tests.npm import find_node, packages

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

NODE_PACKAGES = ("openid-client@6.8.9", "jose@6.2.17")
SECRET = "worker-secret-0123456789"
REDIRECT = "http://127.0.0.1:40000/callback"
CLIENTS = f"""\
  clients:
    native:
      redirect_uris: ["http://127.0.0.1/callback"]
      scopes: [openid, email]
    worker:
      secret: {SECRET}
      grants: [client_credentials]
      scopes: [jobs]
      introspection: true
"""


class _Hidden(HTMLParser):
    """The hidden field of the log-in page."""

    value = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden":
            self.value = given.get("value") or ""


def _log_in(url: str) -> str:
    """What the user does in the browser; where the app is sent."""
    with requests.Session() as browser:
        page = _Hidden()
        page.feed(browser.get(url, timeout=10).text)
        fields = {"request": page.value, "username": "alice", "password": PASSWORD}
        answer = browser.post(url.partition("?")[0], data=fields, timeout=10, allow_redirects=False)
        return urljoin(url, answer.headers["location"])


def _use_authlib(base: str) -> None:
    requests.post(f"{base}/auth/register", json={"username": "alice", "password": PASSWORD}, timeout=10)
    metadata: dict[str, Any] = requests.get(f"{base}/auth/.well-known/openid-configuration", timeout=10).json()
    with OAuth2Session(
        "native",
        scope="openid email",
        redirect_uri=REDIRECT,
        code_challenge_method="S256",
        token_endpoint_auth_method="none",
    ) as app:
        verifier = "v" * 48
        url, state = app.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
        back = _log_in(url)
        assert f"state={state}" in back
        token = app.fetch_token(metadata["token_endpoint"], authorization_response=back, code_verifier=verifier)
        assert app.get(f"{base}/api/x", timeout=10).status_code == 200
        first = token["refresh_token"]
        token = app.refresh_token(metadata["token_endpoint"], refresh_token=first)
        assert token["refresh_token"] != first
        assert app.get(metadata["userinfo_endpoint"], timeout=10).json()["sub"]
        with OAuth2Session("worker", SECRET, scope="jobs") as worker:
            own = worker.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
            assert own["scope"] == "jobs"
            said = worker.introspect_token(metadata["introspection_endpoint"], token=token["access_token"])
            assert said.json()["active"] is True
            revoked = app.revoke_token(metadata["revocation_endpoint"], token=token["refresh_token"])
            assert revoked.status_code == 200
            said = worker.introspect_token(metadata["introspection_endpoint"], token=token["access_token"])
            assert said.json() == {"active": False}


async def test_authlib_does_every_grant(
    sqlite_url: str,
    redis_url: str,
    upstream: RecordingUpstream,
    start_gateway: Callable[..., GatewayProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Code with PKCE, refresh, client credentials, introspection, revocation, by discovery."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # loopback without TLS
    async with start_gateway(config_text(sqlite_url, redis_url, upstream.url, issuer=CLIENTS)) as gateway:
        await asyncio.to_thread(_use_authlib, f"http://127.0.0.1:{gateway.port}")


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The packages, installed."""
    return packages(*NODE_PACKAGES)


@pytest.mark.timeout(240)  # npm may take its time
async def test_openid_client_signs_in_and_jose_verifies(
    node_modules: Path,
    sqlite_url: str,
    redis_url: str,
    upstream: RecordingUpstream,
    start_gateway: Callable[..., GatewayProcess],
) -> None:
    """Discovery, code with PKCE, refresh, userinfo, client credentials, introspection, revocation, and the key set."""
    async with start_gateway(config_text(sqlite_url, redis_url, upstream.url, issuer=CLIENTS)) as gateway:
        origin = f"http://127.0.0.1:{gateway.port}"
        alice = {"username": "alice", "email": "alice@example.org", "password": PASSWORD}
        registered = await asyncio.to_thread(requests.post, f"{origin}/auth/register", json=alice, timeout=10)
        assert registered.status_code == 201
        with Path(__file__).with_name("openid_client.mjs").open("rb") as script:
            app = await asyncio.create_subprocess_exec(
                *(find_node(20), "--input-type=module", "-", origin, PASSWORD, SECRET),
                cwd=node_modules.parent,  # where the script's imports are looked for
                stdin=script,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "NO_PROXY": "*"},
            )
            out, _ = await asyncio.wait_for(app.communicate(), 60)
    assert app.returncode == 0, out.decode()
    assert upstream.seen[-1].all(b"x-user-email") == [b"alice@example.org"]
