"""The built-in issuer beside what else the file says."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from gateway.config.checks.finding import Finding, Parts, folder_of_sqlite, is_clear_text, mappings, written_secret
from gateway.config.document import Path as Place
from gateway.config.issuance import Issuance


def examine_issuance(parts: Parts) -> Iterator[Finding]:
    """What is wrong with the built-in issuer, if there is one."""
    if parts.issuer is not None:
        yield from _beside_others(parts.issuer, parts)
        yield from _settings(parts.issuer)
        for place in _secrets(parts.issuer):
            yield from written_secret(place, parts)
        yield from folder_of_sqlite(("issuer", "store"), parts.issuer.store)
        yield from _driver(parts.issuer)


def _beside_others(own: Issuance, parts: Parts) -> Iterator[Finding]:
    if own.name in parts.issuers:
        message = f"the built-in issuer is called `{own.name}` too, and is trusted without an entry here"
        yield Finding(("issuers", own.name), message, "remove this entry, or rename one of them", on="key")
    for name, issuer in parts.issuers.items():
        if issuer is not None and issuer.issuer == own.url and name != own.name:
            message = "the built-in issuer has the same `iss`: a token would belong to both"
            yield Finding(("issuers", name, "issuer"), message)
    for index, route in mappings(parts.written_routes):
        path = route.get("path")
        if isinstance(path, str) and (path + "/").startswith(own.path + "/"):
            message = f"below {own.path} stands the built-in issuer: this route gets no requests"
            yield Finding(("routes", index, "path"), message, "use another path, or move `issuer.path`")


def _driver(own: Issuance) -> Iterator[Finding]:
    if own.store.startswith("postgresql+asyncpg:") and find_spec("asyncpg") is None:
        message = "PostgreSQL is spoken by the package asyncpg, which is not installed"
        yield Finding(("issuer", "store"), message, "pip install 'gateway-edge[postgresql]'")


def _settings(own: Issuance) -> Iterator[Finding]:
    if is_clear_text(own.url):
        message = "passwords and tokens over plain http can be read by whoever is on the way"
        yield Finding(("issuer", "url"), message, "use https", severity="warning")
    if not 300 <= own.access_token <= 900:
        message = "shorter than 5 minutes costs refreshes, longer than 15 leaves revocation to the denylist alone"
        yield Finding(("issuer", "access_token"), message, severity="warning")
    if own.registration == "open":
        message = "whoever registers learns whether a name is taken, and may give an e-mail address of somebody else"
        hint = "`verified` tells strangers nothing, and asks the address"
        yield Finding(("issuer", "registration"), message, hint, severity="warning")
    if own.webhook is not None and is_clear_text(own.webhook.url):
        message = "one-time tokens over plain http can be read by whoever is on the way"
        yield Finding(("issuer", "webhook", "url"), message, "use https", severity="warning")
    if own.signing.encryption_key is None:
        message = "private keys are not encrypted: whoever reads the store can sign tokens"
        yield Finding(("issuer",), message, "add `signing: {encryption_key: …}`", severity="warning", on="key")


def _secrets(own: Issuance) -> Iterator[Place]:
    yield ("issuer", "signing", "encryption_key")
    yield ("issuer", "webhook", "secret")
    for name in own.clients:
        yield ("issuer", "clients", name, "secret")
