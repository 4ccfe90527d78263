"""A throwaway issuer: one ES256 key in memory, a key set, tokens for whoever starts it, and a log-out.

It is what an identity provider is to the gateway: a key set at a URL. Logging out writes into the gateway's denylist,
as any backend in any language may.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Callable

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LIFETIME_S = 3600
_KID = "demo"


class DemoIssuer:
    """Owner of the key; `app` serves the key set and the log-out."""

    def __init__(self, url: str, audience: str, revoke: Callable[[str], Awaitable[None]]) -> None:
        """`url` is the `iss`; `revoke` puts a `jti` into the denylist."""
        self._url = url
        self._audience = audience
        self._revoke = revoke
        self._key = ec.generate_private_key(ec.SECP256R1())
        routes = [Route("/jwks.json", self._key_set), Route("/logout", self._logout, methods=["POST"])]
        self.app = Starlette(routes=routes)

    def token(self, subject: str) -> str:
        """An access token (RFC 9068) for an hour."""
        now = int(time.time())
        claims = {
            "iss": self._url,
            "aud": self._audience,
            "sub": subject,
            "email": f"{subject}@example.com",
            "roles": ["reader", "writer"],
            "client_id": "demo",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + LIFETIME_S,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": "at+jwt", "kid": _KID})

    async def _key_set(self, request: Request) -> Response:
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return JSONResponse({"keys": [{**key, "kid": _KID, "use": "sig", "alg": "ES256"}]})

    async def _logout(self, request: Request) -> Response:
        _, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = jwt.decode(token, self._key.public_key(), algorithms=["ES256"], audience=self._audience)
        except jwt.InvalidTokenError:
            return JSONResponse({"error": "invalid_token"}, status_code=401)
        await self._revoke(claims["jti"])
        # With a line end, because a terminal shows it.
        return Response(json.dumps({"logged_out": claims["sub"]}) + "\n", media_type="application/json")
