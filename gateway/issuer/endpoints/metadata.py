"""What the issuer says of itself: discovery (RFC 8414, OpenID Connect Discovery), key set, OpenAPI document."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.config.issuance import Issuance
from gateway.issuer.endpoints.answers import json_answer
from gateway.issuer.endpoints.openapi import document as openapi_document
from gateway.issuer.service import Issuer

_METADATA_MAX_AGE_S = 3600


def well_known_paths(config: Issuance) -> tuple[str, ...]:
    """The paths of discovery that do not stand below the issuer's own (RFC 8414 §3.1: the path comes last)."""
    return (f"/.well-known/oauth-authorization-server{config.path}",)


def authorization_server(config: Issuance) -> dict[str, Any]:
    """The metadata document, good for OAuth and for OpenID."""
    url = config.url
    scopes = {scope for client in config.clients.values() for scope in client.scopes} | set(config.scopes) | {"openid"}
    methods = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": url,
        "authorization_endpoint": f"{url}/authorize",
        "token_endpoint": f"{url}/token",
        "userinfo_endpoint": f"{url}/userinfo",
        "jwks_uri": f"{url}/jwks.json",
        "revocation_endpoint": f"{url}/revoke",
        "introspection_endpoint": f"{url}/introspect",
        "scopes_supported": sorted(scopes),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "token_endpoint_auth_methods_supported": [*methods, "none"],
        "revocation_endpoint_auth_methods_supported": [*methods, "none"],
        "introspection_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,  # RFC 9207
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [config.signing.algorithm],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "sid", "email", "email_verified"],
        "prompt_values_supported": ["login", "none"],
        "service_documentation": _beside(url, f"{config.path}/openapi.json"),
    }


def _beside(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=path))


class Metadata:
    """The endpoints that anybody may read and keep for a while."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._server = authorization_server(issuer.config)
        self._openapi = openapi_document(issuer.config)

    def routes(self, path: str) -> list[Route]:
        """Every endpoint, below `path` and at the well-known places."""
        return [
            Route(f"{path}/jwks.json", self.jwks, methods=["GET"]),
            Route(f"{path}/openapi.json", self.openapi, methods=["GET"]),
            Route(f"{path}/.well-known/openid-configuration", self.server, methods=["GET"]),
            Route(f"{path}/.well-known/oauth-authorization-server", self.server, methods=["GET"]),
            *(Route(known, self.server, methods=["GET"]) for known in well_known_paths(self._issuer.config)),
        ]

    async def jwks(self, _: Request) -> Response:
        """The key set, to be kept for less than a key's announcement."""
        keys = self._issuer.keys
        headers = {"cache-control": f"public, max-age={keys.max_age_s}", **_ANYBODY}
        return Response(keys.document(self._issuer.wall()), 200, headers, "application/jwk-set+json")

    async def server(self, _: Request) -> Response:
        """The metadata of the authorization server."""
        return json_answer(self._server, headers=_kept())

    async def openapi(self, _: Request) -> Response:
        """The description of every endpoint."""
        return json_answer(self._openapi, headers=_kept())


_ANYBODY = {"access-control-allow-origin": "*"}  # public documents; browser apps of other origins verify tokens too


def _kept() -> dict[str, str]:
    return {"cache-control": f"public, max-age={_METADATA_MAX_AGE_S}", **_ANYBODY}
