"""The OpenAPI description of every endpoint, written beside them; a test calls each as it is described."""

from __future__ import annotations

from typing import Any

from gateway import __version__
from gateway.config.issuance import Issuance

_TEXT: dict[str, Any] = {"type": "string"}
_MOMENT: dict[str, Any] = {"type": "number", "description": "Seconds since 1970-01-01T00:00:00Z."}


def _object(required: str = "", **properties: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "object", "properties": properties}
    return {**shape, "required": required.split()} if required else shape


def _maybe(shape: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [shape, {"type": "null"}]}


_NAMED: dict[str, dict[str, Any]] = {
    "username": {"type": "string", "minLength": 1, "maxLength": 64},
    "email": {"type": "string", "format": "email", "maxLength": 254},
    "password": {"type": "string", "minLength": 8, "maxLength": 256, "format": "password"},
}
_DEVICE: dict[str, dict[str, Any]] = {
    "platform": {"type": "string", "enum": ["web", "mobile", "desktop", "other"]},
    "device_name": {"type": "string", "maxLength": 128},
    "cookies": {"type": "boolean", "description": "Tokens in cookies only, where the issuer has `web`."},
}
_EITHER: list[dict[str, Any]] = [{"required": ["username"]}, {"required": ["email"]}]
_SESSION = _object(
    "id client_id platform device_name address created_at last_seen_at expires_at current",
    id=_TEXT,
    client_id=_TEXT,
    platform=_TEXT,
    device_name=_TEXT,
    address=_TEXT,
    created_at=_MOMENT,
    last_seen_at=_MOMENT,
    expires_at=_MOMENT,
    current={"type": "boolean"},
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "Tokens": _object(
        "expires_in",
        access_token=_TEXT,
        refresh_token=_TEXT,
        id_token=_TEXT,
        token_type={"type": "string", "enum": ["Bearer"]},
        expires_in={"type": "integer", "minimum": 1},
        scope=_TEXT,
        session_id=_TEXT,
    ),
    "Problem": _object(
        "type title status code request_id",
        type=_TEXT,
        title=_TEXT,
        status={"type": "integer"},
        code=_TEXT,
        detail=_TEXT,
        request_id=_TEXT,
    ),
    "OAuthError": _object("error", error=_TEXT, error_description=_TEXT),
    "Status": _object("status", status=_TEXT, id=_TEXT),
    "Me": _object(
        "id username email email_verified roles claims created_at",
        id=_TEXT,
        username=_maybe(_TEXT),
        email=_maybe(_TEXT),
        email_verified={"type": "boolean"},
        roles={"type": "array", "items": _TEXT},
        claims={"type": "object"},
        created_at=_MOMENT,
    ),
    "Sessions": _object("sessions", sessions={"type": "array", "items": _SESSION}),
    "SessionState": _object(
        "server_time token action until session_id",
        server_time=_MOMENT,
        token={"type": "string", "enum": ["valid", "expired", "revoked", "unknown"]},
        action={"type": "string", "enum": ["continue", "refresh", "sign_in"]},
        until=_maybe(_MOMENT),
        session_id=_maybe(_TEXT),
    ),
    "Ended": _object("ended", ended={"type": "integer", "minimum": 0}),
    "Introspection": _object("active", active={"type": "boolean"}),
    "UserInfo": _object("sub", sub=_TEXT),
    "KeySet": _object("keys", keys={"type": "array", "items": {"type": "object"}}),
    "Document": {"type": "object"},
    "Registration": {**_object("password", **_NAMED, **_DEVICE), "anyOf": _EITHER},
    "LogIn": {**_object("password", username=_TEXT, email=_TEXT, password=_TEXT, **_DEVICE), "oneOf": _EITHER},
    "RefreshToken": _object("refresh_token", refresh_token=_TEXT),
    "LogOut": _object("", refresh_token=_TEXT),
    "LogOutAll": _object("", keep_current={"type": "boolean"}),
    "OneTimeToken": _object("token", token=_TEXT),
    "NewPassword": _object("password new_password", password=_TEXT, new_password=_NAMED["password"]),
    "AccountName": {**_object("", username=_TEXT, email=_TEXT), "anyOf": _EITHER},
    "ResetPassword": _object("token new_password", token=_TEXT, new_password=_NAMED["password"]),
    "Password": _object("password", password=_TEXT),
    "TokenRequest": _object(
        "grant_type",
        grant_type={"type": "string", "enum": ["authorization_code", "refresh_token", "client_credentials"]},
        code=_TEXT,
        code_verifier=_TEXT,
        redirect_uri=_TEXT,
        refresh_token=_TEXT,
        scope=_TEXT,
        client_id=_TEXT,
        client_secret=_TEXT,
    ),
    "TokenQuestion": _object("token", token=_TEXT, token_type_hint=_TEXT, client_id=_TEXT, client_secret=_TEXT),
    "LogInForm": _object("request username password", request=_TEXT, username=_TEXT, password=_TEXT),
}

_BEARER: list[dict[str, list[str]]] = [{"accessToken": []}]
_CLIENT: list[dict[str, list[str]]] = [{"client": []}, {}]
_NOBODY: list[dict[str, list[str]]] = []


def _body(schema: str, media: str, *, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _answer(text: str, schema: str | None, media: str = "application/json") -> dict[str, Any]:
    if schema is None:
        return {"description": text}
    return {"description": text, "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _operation(
    summary: str,
    answers: dict[int, str | None],
    *,
    body: str | None = None,
    optional: bool = False,
    security: list[dict[str, list[str]]] = _NOBODY,
    refusals: tuple[int, ...] = (),
) -> dict[str, Any]:
    """One JSON operation; every one may be refused for its body, its size or the store."""
    usual: tuple[int, ...] = (400, 413, 415, 503) if body else (503,)
    usual += (401, 403) if security else ()
    responses = {str(status): _answer("Done.", schema) for status, schema in answers.items()}
    problem = _answer("A problem (RFC 9457).", "Problem", "application/problem+json")
    responses |= {str(status): problem for status in sorted({*usual, *refusals})}
    operation: dict[str, Any] = {"summary": summary, "responses": responses, "security": security}
    if body is not None:
        operation["requestBody"] = _body(body, "application/json", required=not optional)
    return operation


def _oauth(summary: str, schema: str, body: str) -> dict[str, Any]:
    form = _body(body, "application/x-www-form-urlencoded", required=True)
    answers = {"200": _answer("Done.", schema)}
    answers |= {str(status): _answer("RFC 6749, section 5.2.", "OAuthError") for status in (400, 401)}
    problem = _answer("A problem (RFC 9457).", "Problem", "application/problem+json")
    answers |= {str(status): problem for status in (413, 503)}
    return {"summary": summary, "requestBody": form, "responses": answers, "security": _CLIENT}


def _page(summary: str, **more: Any) -> dict[str, Any]:
    shown = {"description": "A page.", "content": {"text/html": {"schema": _TEXT}}}
    responses = dict.fromkeys(("200", "400", "429", "503"), shown) | {"303": {"description": "To the app."}}
    problem = _answer("A problem (RFC 9457).", "Problem", "application/problem+json")
    return {"summary": summary, "responses": {**responses, "413": problem}, "security": _NOBODY, **more}


def _parameter(name: str, where: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": _TEXT}


def paths() -> dict[str, dict[str, Any]]:
    """Path below the issuer's own → method → operation."""
    questions = "client_id redirect_uri response_type scope state nonce code_challenge code_challenge_method prompt"
    asked = [_parameter(name, "query", required=name == "client_id") for name in questions.split()]
    form = _body("LogInForm", "application/x-www-form-urlencoded", required=True)
    public = _operation("Public document.", {200: "Document"})
    table: dict[str, dict[str, Any]] = {
        "/register": {
            "post": _operation(
                "Register", {201: "Tokens", 202: "Status"}, body="Registration", refusals=(403, 409, 422, 429)
            )
        },
        "/verify": {
            "post": _operation("Confirm a registration", {200: "Status"}, body="OneTimeToken", refusals=(409,))
        },
        "/login": {"post": _operation("Log in", {200: "Tokens"}, body="LogIn", refusals=(401, 429))},
        "/refresh": {"post": _operation("Refresh", {200: "Tokens"}, body="RefreshToken", refusals=(401,))},
        "/logout": {
            "post": _operation(
                "Log out; also late, and again", {204: None}, body="LogOut", optional=True, security=[*_BEARER, {}]
            )
        },
        "/logout-all": {
            "post": _operation("End all sessions", {200: "Ended"}, body="LogOutAll", optional=True, security=_BEARER)
        },
        "/session": {"get": _operation("Re-sync: what is my token worth?", {200: "SessionState"}, security=_BEARER)},
        "/sessions": {"get": _operation("My devices", {200: "Sessions"}, security=_BEARER)},
        "/sessions/{id}": {
            "delete": {
                **_operation("End one session", {204: None}, security=_BEARER, refusals=(404,)),
                "parameters": [_parameter("id", "path", required=True)],
            }
        },
        "/password": {
            "post": _operation(
                "Change the password", {204: None}, body="NewPassword", security=_BEARER, refusals=(422, 429)
            )
        },
        "/password/forgot": {
            "post": _operation("Ask for a reset token", {202: "Status"}, body="AccountName", refusals=(429,))
        },
        "/password/reset": {
            "post": _operation("Reset the password", {204: None}, body="ResetPassword", refusals=(422,))
        },
        "/me": {"get": _operation("My account", {200: "Me"}, security=_BEARER)},
        "/me/export": {"get": _operation("All that is kept about me", {200: "Document"}, security=_BEARER)},
        "/me/delete": {
            "post": _operation("Delete my account", {204: None}, body="Password", security=_BEARER, refusals=(429,))
        },
        "/token": {"post": _oauth("Token endpoint (RFC 6749)", "Tokens", "TokenRequest")},
        "/revoke": {"post": _oauth("Revocation (RFC 7009)", "Document", "TokenQuestion")},
        "/introspect": {"post": _oauth("Introspection (RFC 7662)", "Introspection", "TokenQuestion")},
        "/authorize": {
            "get": _page("Log-in page (RFC 6749 with PKCE)", parameters=asked),
            "post": _page("Take the log-in form", requestBody=form),
        },
        "/userinfo": {
            method: _operation("OpenID userinfo", {200: "UserInfo"}, security=_BEARER) for method in ("get", "post")
        },
        "/jwks.json": {
            "get": {
                **_operation("Key set (RFC 7517)", {}),
                "responses": {"200": _answer("Keys.", "KeySet", "application/jwk-set+json")},
            }
        },
        "/openapi.json": {"get": public},
        "/.well-known/openid-configuration": {"get": public},
        "/.well-known/oauth-authorization-server": {"get": public},
    }
    return table


def document(config: Issuance) -> dict[str, Any]:
    """The whole document (OpenAPI 3.1)."""
    token_url = f"{config.url}/token"
    return {
        "openapi": "3.1.0",
        "info": {"title": "gateway: the built-in issuer", "version": __version__},
        "servers": [{"url": config.url}],
        "paths": paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "client": {"type": "http", "scheme": "basic"},
                "oauth": {
                    "type": "oauth2",
                    "flows": {
                        "authorizationCode": {
                            "authorizationUrl": f"{config.url}/authorize",
                            "tokenUrl": token_url,
                            "refreshUrl": token_url,
                            "scopes": {scope: scope for scope in config.scopes},
                        }
                    },
                },
            },
        },
    }
