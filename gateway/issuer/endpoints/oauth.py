"""OAuth 2.0 for any client: token (RFC 6749), revocation (RFC 7009), introspection (RFC 7662), userinfo (OpenID)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import InsufficientScope
from gateway.issuer.access_tokens import released_claims
from gateway.issuer.clients import Client, OAuthError, authenticate
from gateway.issuer.endpoints.answers import json_answer
from gateway.issuer.endpoints.callers import find_caller
from gateway.issuer.endpoints.first_party import address_of
from gateway.issuer.endpoints.reading import read_form
from gateway.issuer.grants import SessionOver, Tokens
from gateway.issuer.refusals import InvalidRequest, UnsupportedMedia
from gateway.issuer.service import Issuer
from gateway.issuer.sessions import PLATFORMS, Device


class OAuth:
    """The endpoints; state is the issuer's."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    def routes(self, path: str) -> list[Route]:
        """Every endpoint, below `path`."""
        return [
            Route(f"{path}/token", self.token, methods=["POST"]),
            Route(f"{path}/revoke", self.revoke, methods=["POST"]),
            Route(f"{path}/introspect", self.introspect, methods=["POST"]),
            Route(f"{path}/userinfo", self.userinfo, methods=["GET", "POST"]),
        ]

    async def _read(self, request: Request) -> tuple[dict[str, str], Client]:
        try:
            form = await read_form(request)
        except (InvalidRequest, UnsupportedMedia) as exc:
            raise OAuthError("invalid_request", exc.detail or "") from exc
        return form, authenticate(self._issuer.config, request.headers.get("authorization"), form)

    async def token(self, request: Request) -> Response:
        """Tokens for a grant."""
        form, client = await self._read(request)
        grant = _required(form, "grant_type")
        if grant == "refresh_token":
            tokens = await self._refresh(form, client, address_of(request))
        elif grant == "authorization_code":
            tokens = await self._redeem(form, client, address_of(request))
        elif grant == "client_credentials":
            client.require("client_credentials")
            tokens = self._issuer.grants.client_credentials(client, client.grant_scope(form.get("scope")))
        else:
            raise OAuthError("unsupported_grant_type")
        return json_answer(tokens.answer)

    async def _refresh(self, form: dict[str, str], client: Client, address: str) -> Tokens:
        client.require("refresh_token")
        try:
            return await self._issuer.grants.refresh(
                _required(form, "refresh_token"), client.id, address, form.get("scope")
            )
        except SessionOver as over:
            raise OAuthError("invalid_grant", over.detail) from over

    async def _redeem(self, form: dict[str, str], client: Client, address: str) -> Tokens:
        client.require("authorization_code")
        platform = form.get("platform", "other")
        known = next((name for name in PLATFORMS if name == platform), None)
        name = form.get("device_name", "")
        if known is None or len(name) > 128 or not name.isprintable():
            raise OAuthError("invalid_request", "platform or device_name is not valid")
        return await self._issuer.grants.redeem(
            _required(form, "code"),
            client,
            form.get("redirect_uri"),
            _required(form, "code_verifier"),
            Device(known, name, address),
        )

    async def revoke(self, request: Request) -> Response:
        """Ends what the token stands for: its session, or the token itself if it has none. 200 for unknown ones too."""
        form, client = await self._read(request)
        token = _required(form, "token")
        issuer = self._issuer
        refresh = issuer.sessions.recognise(token)
        if refresh is not None:
            session = await issuer.sessions.find(refresh.session_id)
            if session is not None and session.client_id == client.id:
                await issuer.sessions.end(session.id, "revoked by the client")
        elif (access := issuer.access_tokens.read(token)) is not None and access.client_id == client.id:
            if access.sid:
                await issuer.sessions.end(access.sid, "revoked by the client")
            else:
                await issuer.revoke_token(access.token_id, access.expires_at)
        return json_answer({})

    async def introspect(self, request: Request) -> Response:
        """What a token is worth, for a client with a secret: its own tokens, or any with the right to ask."""
        form, client = await self._read(request)
        if not client.is_authenticated:
            raise OAuthError("invalid_client", "introspection is for clients with a secret", 401)
        token = _required(form, "token")
        members = await self._of_access_token(token) or await self._of_refresh_token(token)
        if members is None or not (client.config.introspection or members["client_id"] == client.id):
            return json_answer({"active": False})
        return json_answer({"active": True, **members})

    async def _of_access_token(self, text: str) -> dict[str, Any] | None:
        issuer = self._issuer
        token = issuer.access_tokens.read(text)
        if token is None or issuer.wall() >= token.expires_at:
            return None
        if token.sid:
            session = await issuer.sessions.find(token.sid)
            if session is None or session.ended_at is not None:
                return None
        elif await issuer.is_token_revoked(token.token_id):
            return None
        shown = ("iss", "aud", "sub", "client_id", "scope", "exp", "iat", "jti", "sid")
        return {name: token.claims[name] for name in shown if name in token.claims} | {"token_type": "Bearer"}

    async def _of_refresh_token(self, text: str) -> dict[str, Any] | None:
        issuer = self._issuer
        token = issuer.sessions.recognise(text)
        session = None if token is None else await issuer.sessions.find(token.session_id)
        found = None if token is None else await issuer.sessions.peek(token)
        if session is None or found is None or not found[0].is_served:
            return None
        return {
            "iss": issuer.config.url,
            "sub": session.user_id,
            "client_id": session.client_id,
            "scope": session.scope,
            "exp": int(session.expires_at),
            "iat": int(session.created_at),
            "sid": session.id,
        }

    async def userinfo(self, request: Request) -> Response:
        """What the token's scopes let the client see of the user (OpenID Connect Core §5.3)."""
        caller = await find_caller(self._issuer, request)
        if "openid" not in caller.token.scopes:
            raise InsufficientScope("openid")
        return json_answer({"sub": caller.user.id, **released_claims(caller.user.subject.claims, caller.token.scopes)})


def _required(form: dict[str, str], name: str) -> str:
    if name not in form:
        raise OAuthError("invalid_request", f"{name} is missing")
    return form[name]
