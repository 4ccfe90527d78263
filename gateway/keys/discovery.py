"""Where an issuer publishes its key set: OpenID Connect Discovery 1.0 §4 and RFC 8414 §3, without the fetching.

Transmitters of security events do it in a like manner (OpenID Shared Signals Framework 1.0 §7).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.keys.notation import parse_object


def metadata_urls(issuer: str) -> tuple[str, str]:
    """The addresses of an issuer's metadata, in the order to ask; ValueError if the issuer is not a plain web address.

    OpenID Connect appends its well-known path to the issuer; RFC 8414 §3.1 inserts its own between host and path.
    """
    origin, path = _split(issuer)
    return (
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    )


def transmitter_metadata_urls(issuer: str) -> tuple[str, ...]:
    """The address of a transmitter's metadata, as `metadata_urls`; its path is inserted as RFC 8414 does it."""
    origin, path = _split(issuer)
    return (f"{origin}/.well-known/ssf-configuration{path}",)


def _split(issuer: str) -> tuple[str, str]:
    parts = urlsplit(issuer)
    if (
        parts.scheme not in ("https", "http")
        or not parts.netloc
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError("the issuer is not a plain http(s) address, so its keys cannot be discovered; set jwks_uri")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def read_jwks_uri(document: bytes, issuer: str) -> str:
    """The `jwks_uri` of a metadata document; ValueError if it is not this issuer's, or names no usable address."""
    metadata = parse_object(document)
    # RFC 8414 §3.3: "MUST be identical …; if these values are not identical, the data MUST NOT be used."
    if metadata.get("issuer") != issuer:
        raise ValueError("the metadata names another issuer")
    uri = metadata.get("jwks_uri")
    if not isinstance(uri, str):
        raise ValueError("the metadata has no jwks_uri")
    parts = urlsplit(uri)
    if parts.scheme not in ("https", "http") or not parts.netloc or "@" in parts.netloc:
        raise ValueError("the metadata's jwks_uri is not an http(s) address")
    if issuer.startswith("https:") and parts.scheme != "https":
        raise ValueError("the metadata's jwks_uri gives up TLS")
    return uri
