"""A real OpenID provider as a process, and a browser that logs in and out of it.

`oidc-provider` comes from npm.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2

from tests.npm import packages

VERSION = "9.13.3"  # of oidc-provider
_LEAST_NODE = 20
_READY_S = 30.0
REDIRECT_URI = "https://app.example/signed-in"  # nobody follows it; an address of the app itself


def library() -> Path:
    """The provider's main file, installed first if need be; skips the test where that cannot be."""
    return packages(f"oidc-provider@{VERSION}", least_node=_LEAST_NODE) / "oidc-provider/lib/index.js"


@asynccontextmanager
async def openid_provider(main: Path, port: int, logout_uri: str) -> AsyncIterator[str]:
    """A running provider: its issuer address."""
    node = shutil.which("node")
    assert node is not None
    script = Path(__file__).with_name("openid_provider.mjs")
    process = await asyncio.create_subprocess_exec(
        *(node, str(script), str(main), str(port), REDIRECT_URI, logout_uri),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "NODE_ENV": "test", "NO_PROXY": "*"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(_READY_S):
            while (line := await process.stdout.readline()).strip() != b"ready":
                assert line, "the OpenID provider ended before it was ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()  # its sign to end
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Browser:
    """Somebody's browser, at one provider: keeps cookies, follows redirects, fills in forms."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._client = httpx2.AsyncClient(trust_env=False, timeout=20)

    async def close(self) -> None:
        """Forget everything."""
        await self._client.aclose()

    async def log_in(self, user: str) -> dict[str, str]:
        """Authorization Code with PKCE, as an app does it; the token response."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        metadata = (await self._client.get(f"{self._issuer}/.well-known/openid-configuration")).json()
        query = {
            "client_id": "app",
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": "openid api",
            "resource": "urn:example:api",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        page = await self._follow(await self._client.get(metadata["authorization_endpoint"], params=query))
        while isinstance(page, httpx2.Response):  # the log-in form, then the consent form
            page = await self._fill_in(page, {"login": user, "password": "any"})
        code = parse_qs(urlsplit(page).query)["code"][0]
        form = {
            "grant_type": "authorization_code",
            "client_id": "app",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": verifier,
            "resource": "urn:example:api",
        }
        answer = await self._client.post(metadata["token_endpoint"], data=form)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, str] = answer.json()
        return tokens

    async def log_out(self) -> None:
        """RP-initiated logout, confirmed; the provider tells every app by back-channel before it answers."""
        page = await self._client.get(f"{self._issuer}/session/end", params={"client_id": "app"})
        left = await self._fill_in(page, {"logout": "yes"})
        assert not isinstance(left, httpx2.Response) or left.status_code == 200

    async def _fill_in(self, page: httpx2.Response, values: dict[str, str]) -> httpx2.Response | str:
        """Send the page's form with its hidden fields and those values."""
        action = re.search(r'<form[^>]*action="([^"]+)"', page.text)
        assert action is not None, page.text
        hidden = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page.text))
        address = urljoin(str(page.url), unescape(action[1]))
        return await self._follow(await self._client.post(address, data={**hidden, **values}))

    async def _follow(self, answer: httpx2.Response) -> httpx2.Response | str:
        """The page that redirects lead to, or the app's address with what the provider added."""
        while answer.is_redirect:
            address = urljoin(str(answer.url), answer.headers["location"])
            if address.startswith(REDIRECT_URI):
                return address
            answer = await self._client.get(address)
        assert answer.status_code == 200, answer.text
        return answer
