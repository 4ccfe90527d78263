"""The issuer over HTTP: JSON for first-party apps, OAuth and OpenID for any.

Errors are problem documents, but in OAuth's words where a standard says so. Nothing here is kept by caches except the
public documents.
"""

from gateway.issuer.endpoints.application import create_endpoints

__all__ = ["create_endpoints"]
