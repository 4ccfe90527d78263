"""Where metadata is looked for, and what in it is believed."""

from __future__ import annotations

import json

import pytest

from gateway.keys.discovery import metadata_urls, read_jwks_uri, transmitter_metadata_urls


@pytest.mark.parametrize(
    ("issuer", "openid", "oauth"),
    [
        (
            "https://issuer.example",
            "https://issuer.example/.well-known/openid-configuration",
            "https://issuer.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://issuer.example/",
            "https://issuer.example/.well-known/openid-configuration",
            "https://issuer.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://issuer.example:8443/realms/shop",
            "https://issuer.example:8443/realms/shop/.well-known/openid-configuration",
            "https://issuer.example:8443/.well-known/oauth-authorization-server/realms/shop",
        ),
    ],
)
def test_addresses(issuer: str, openid: str, oauth: str) -> None:
    """OpenID appends its path to the issuer; RFC 8414 inserts its own behind the host."""
    assert metadata_urls(issuer) == (openid, oauth)


@pytest.mark.parametrize(
    ("transmitter", "address"),
    [
        ("https://signals.example", "https://signals.example/.well-known/ssf-configuration"),
        ("https://signals.example/", "https://signals.example/.well-known/ssf-configuration"),
        ("https://signals.example/one", "https://signals.example/.well-known/ssf-configuration/one"),
    ],
)
def test_a_transmitters_address(transmitter: str, address: str) -> None:
    """Inserted behind the host (Shared Signals Framework 1.0 §7.2)."""
    assert transmitter_metadata_urls(transmitter) == (address,)


@pytest.mark.parametrize(
    "issuer", ["main", "ftp://issuer.example", "https://", "https://a?b", "https://a#b", "https://user@issuer.example"]
)
def test_no_address(issuer: str) -> None:
    """An issuer that is not a plain web address cannot be discovered; the remedy is named."""
    with pytest.raises(ValueError, match="jwks_uri"):
        metadata_urls(issuer)


def test_tls_is_not_given_up() -> None:
    """An issuer with https cannot send us to keys over http; one with http, in a test bed, may."""
    document = json.dumps({"issuer": "https://issuer.example", "jwks_uri": "http://issuer.example/jwks.json"}).encode()
    with pytest.raises(ValueError, match="TLS"):
        read_jwks_uri(document, "https://issuer.example")
    plain = document.replace(b"https://", b"http://")
    assert read_jwks_uri(plain, "http://issuer.example") == "http://issuer.example/jwks.json"


def test_the_issuer_is_compared_exactly() -> None:
    """A trailing slash makes another issuer (RFC 8414 §3.3)."""
    document = json.dumps(
        {"issuer": "https://issuer.example/", "jwks_uri": "https://issuer.example/jwks.json"}
    ).encode()
    assert read_jwks_uri(document, "https://issuer.example/")
    with pytest.raises(ValueError, match="another issuer"):
        read_jwks_uri(document, "https://issuer.example")
