"""Issuers: distinct, fetched safely, and their revocations kept somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.config.checks.finding import Finding, Parts, is_clear_text, written_secret
from gateway.config.document import Path as Place
from gateway.config.schema import Issuer
from gateway.config.schema.algorithms import SYMMETRIC


def examine_issuers(parts: Parts) -> Iterator[Finding]:
    """What is wrong with issuers, by themselves and beside each other."""
    yield from _issuers(parts)
    yield from _query_credentials(parts)
    yield from _revocation(parts)


def _issuers(parts: Parts) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, issuer in parts.issuers.items():
        if issuer is None:
            continue
        place: Place = ("issuers", name)
        if issuer.issuer in seen:
            message = f"issuer `{seen[issuer.issuer]}` has the same `iss`: a token would belong to both"
            yield Finding((*place, "issuer"), message, "one entry with both audiences, or distinct issuers")
        seen.setdefault(issuer.issuer, name)
        if issuer.secret is None and issuer.jwks_file is None:
            key, url = ("jwks_uri", issuer.jwks_uri) if issuer.jwks_uri else ("issuer", issuer.issuer)
            if is_clear_text(url):
                message = "keys fetched over plain http can be replaced by whoever is on the way"
                yield Finding((*place, key), message, "use https", severity="warning")
        if issuer.secret is not None:
            yield from written_secret((*place, "secret"), parts)


def _query_credentials(parts: Parts) -> Iterator[Finding]:
    message = "a token in a URL ends up in browser histories and in other servers' logs (RFC 6750 §5.3)"
    for name, issuer in parts.issuers.items():
        if issuer is not None and issuer.credentials.query is not None:
            yield Finding(("issuers", name, "credentials", "query"), message, severity="warning")
    for index, route in enumerate(parts.routes):
        if route is not None and route.credentials is not None and route.credentials.query is not None:
            yield Finding(("routes", index, "credentials", "query"), message, severity="warning")


def _revocation(parts: Parts) -> Iterator[Finding]:
    """Revocations that could not be kept, look-ups that could not be made."""
    for name, issuer in parts.issuers.items():
        if issuer is None:
            continue
        place: Place = ("issuers", name, "revocation")
        settings = issuer.revocation
        if settings.has_endpoints and not parts.has_denylist:
            yield Finding(place, "revocations would have nowhere to go", "add `denylist`", on="key")
        yield from _transmitter(name, issuer)
        lists = settings.status_list
        if lists is not None and not lists.origins and not re.match(r"https?://[^/\s]+", issuer.issuer):
            message = "`issuer` is not a URL, so it does not say where lists may be fetched from"
            yield Finding((*place, "status_list"), message, "name the `origins`", on="key")
        for client in settings.clients:
            yield from written_secret((*place, "clients", client, "secret"), parts)


def _transmitter(name: str, issuer: Issuer) -> Iterator[Finding]:
    """Shared signals signed with keys of their own."""
    signals = issuer.revocation.shared_signals
    if signals is None or not signals.has_own_keys:
        return
    place: Place = ("issuers", name, "revocation", "shared_signals")
    transmitter = signals.issuer or issuer.issuer
    if signals.discovery and not re.match(r"https?://[^/\s]+", transmitter):
        message = "the transmitter's `issuer` is not a URL, so its keys cannot be discovered"
        yield Finding((*place, "discovery"), message, "give jwks_uri")
    elif is_clear_text(signals.jwks_uri or transmitter):
        message = "keys fetched over plain http can be replaced by whoever is on the way"
        yield Finding(
            (*place, "jwks_uri" if signals.jwks_uri else "discovery"), message, "use https", severity="warning"
        )
    if signals.algorithms is None and issuer.algorithms[0] in SYMMETRIC:
        message = "access tokens are signed with a shared secret, event tokens are not"
        yield Finding(place, message, "name their `algorithms`", on="key")
