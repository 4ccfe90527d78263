"""The origin that is a key server: one bounded GET, or discovery and then one.

What a key server answers decides whom the gateway believes, so nothing is followed or repaired: exactly 200, no
redirect, no content coding, at most 1 MiB; proxies and certificates of the environment are not consulted.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpcore2  # noqa: F401 - httpx2 would import it with the first request, and stall the loop for 100 ms
import httpx2

from gateway import __version__
from gateway.keys.discovery import metadata_urls, read_jwks_uri
from gateway.keys.origin import MAX_DOCUMENT_BYTES, Document, OriginFailed

SHORTEST_LIFETIME_S = 30.0  # a server that says max-age=0 is not asked all the time
LONGEST_LIFETIME_S = 86_400.0  # a withdrawn key is forgotten within a day, whatever the server says

_KEY_SET = "application/jwk-set+json, application/json"


class _WrongStatus(OriginFailed):
    """An answer other than 200; during discovery the next address is asked."""


class Fetcher:
    """Bounded GETs from an issuer's servers. Each opens a new connection: the next one is minutes away."""

    def __init__(
        self, *, timeout_s: float, ca: Path | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """`timeout_s` for each wait, the whole is the caller's to bound; `ca` replaces the system's authorities."""
        self._timeout_s = timeout_s
        self._ca = ca
        self._transport = transport
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, address: str, accept: str) -> Document:
        """The document at an address, by the media types of `accept`; OriginFailed if there is none to be had."""
        async with self.client() as client:
            return await _get(client, address, accept)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client for a few GETs in a row; whatever goes wrong while it is open becomes OriginFailed."""
        try:
            if self._tls is None:
                # Reading the authorities takes tens of milliseconds.
                self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca)
            async with httpx2.AsyncClient(
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                timeout=self._timeout_s,
                transport=self._transport,
            ) as client:
                yield client
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as exc:
            raise OriginFailed(f"{type(exc).__name__}: {exc}") from exc


class RemoteOrigin:
    """A key server."""

    def __init__(
        self,
        issuer: str,
        jwks_uri: str | None,
        *,
        timeout_s: float,
        ca: Path | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        metadata: Callable[[str], tuple[str, ...]] = metadata_urls,
    ) -> None:
        """`jwks_uri` None means discovery below `issuer`, at what `metadata` gives; the rest is as for `Fetcher`."""
        self._metadata = metadata
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._fetcher = Fetcher(timeout_s=timeout_s, ca=ca, transport=transport)

    async def load(self) -> Document:
        """The key set as the server gives it now, with the lifetime from `Cache-Control`."""
        async with self._fetcher.client() as client:
            # Asked again each time: an issuer may move its keys.
            return await _get(client, self._jwks_uri or await self._discover(client), _KEY_SET)

    async def _discover(self, client: httpx2.AsyncClient) -> str:
        try:
            *others, last = self._metadata(self._issuer)
            for address in others:
                try:
                    return read_jwks_uri((await _get(client, address, _KEY_SET)).octets, self._issuer)
                except _WrongStatus:
                    continue
            return read_jwks_uri((await _get(client, last, _KEY_SET)).octets, self._issuer)
        except ValueError as exc:
            raise OriginFailed(f"discovery: {exc}") from exc


async def _get(client: httpx2.AsyncClient, address: str, accept: str) -> Document:
    url = httpx2.URL(address)
    shown = f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}"  # neither user information nor query
    headers = {"accept": accept, "accept-encoding": "identity", "user-agent": f"gateway/{__version__}"}
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            redirect = "; redirects are not followed" if response.is_redirect else ""
            raise _WrongStatus(f"{shown} answered {response.status_code}{redirect}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise OriginFailed(f"{shown} answered with a content coding that was not asked for")
        octets = bytearray()
        async for chunk in response.aiter_raw():
            octets += chunk
            if len(octets) > MAX_DOCUMENT_BYTES:
                raise OriginFailed(f"{shown} answered more than 1 MiB")
        return Document(bytes(octets), _lifetime(response.headers))


def _lifetime(headers: httpx2.Headers) -> float | None:
    """Seconds of `max-age` (RFC 9111 §5.2.2.1) less `Age`, within bounds; None where the server does not say."""
    for directive in headers.get("cache-control", "").split(","):
        name, _, value = directive.strip().partition("=")
        value = value.strip('"')
        if name.lower() == "max-age" and value.isascii() and value.isdigit():
            age = headers.get("age", "0")
            left = _seconds(value) - (_seconds(age) if age.isascii() and age.isdigit() else 0.0)
            return min(max(left, SHORTEST_LIFETIME_S), LONGEST_LIFETIME_S)
    return None


def _seconds(digits: str) -> float:
    # RFC 9111 §1.2.2: what is too large to represent counts as 2^31.
    return float(digits) if len(digits) < 10 else 2.0**31
