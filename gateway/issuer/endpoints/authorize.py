"""The authorization endpoint (RFC 6749 §3.1) with PKCE (RFC 7636): the log-in page, and the way back to the app.

    GET  ─▶ client and redirect URI right? ── no ─▶ error page: nobody to send it to
              │ yes
              ├─ anything else wrong ─▶ redirect with `error`
              └─▶ log-in page
    POST ─▶ the form as we have made it, from the browser we made it for? ─▶ password ─▶ redirect with `code`

The form carries the request under a seal, bound to a cookie of the browser, so nobody can post a log-in into somebody
else's browser (login CSRF) nor change where the code goes.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import GatewayError, Overloaded, RateLimited
from gateway.issuer.clients import Client, OAuthError, find_client
from gateway.issuer.endpoints.first_party import address_of
from gateway.issuer.endpoints.page import error_page, log_in_page, page_headers
from gateway.issuer.endpoints.reading import parse_parameters, read_form
from gateway.issuer.grants import CodeRequest, is_challenge
from gateway.issuer.refusals import InvalidCredentials, InvalidRequest, UnsupportedMedia
from gateway.issuer.service import Issuer

FORM_S = 3600.0  # how long the page may stand open
_LONGEST = 512  # of state and nonce
_BINDING = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 random bits


@dataclass(frozen=True, slots=True)
class Asked:
    """An authorization request that has been found right."""

    client_id: str
    redirect_uri: str
    scope: str
    code_challenge: str
    state: str | None
    nonce: str | None


class _Unanswerable(Exception):
    """Client or redirect URI is wrong, so the app must not hear of it (RFC 6749 §4.1.2.1); the text is for the user."""


class Authorize:
    """The endpoint; state is the issuer's."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._is_https = urlsplit(issuer.config.url).scheme == "https"
        # The prefix makes browsers refuse it from other hosts and over http; it needs https itself.
        self._cookie = "__Host-gateway-form" if self._is_https else "gateway-form"

    def routes(self, path: str) -> list[Route]:
        """The endpoint, below `path`."""
        return [
            Route(f"{path}/authorize", self.show, methods=["GET"]),
            Route(f"{path}/authorize", self.log_in, methods=["POST"]),
        ]

    # --- the request -------------------------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """The log-in page, or why there is none."""
        try:
            parameters = parse_parameters(request.scope["query_string"])
            client, redirect_uri = self._addressee(parameters)
        except (_Unanswerable, InvalidRequest) as exc:
            return _page(error_page(str(exc)), 400, None)
        try:
            asked = self._read(parameters, client, redirect_uri)
        except OAuthError as exc:
            fields = {"error": exc.error, "error_description": exc.description, "state": parameters.get("state")}
            return self._back(redirect_uri, fields)
        return self._form(asked, self._binding(request) or secrets.token_urlsafe(32))

    def _addressee(self, parameters: dict[str, str]) -> tuple[Client, str]:
        client_id = parameters.get("client_id", "")
        config = find_client(self._issuer.config, client_id)
        if config is None or "authorization_code" not in config.grants:
            raise _Unanswerable("The app that sent you here is not known.")
        client = Client(client_id, config, is_authenticated=False)
        redirect_uri = parameters.get("redirect_uri")
        if redirect_uri is None and len(config.redirect_uris) == 1:
            redirect_uri = config.redirect_uris[0]
        if redirect_uri is None or not client.allows_redirect(redirect_uri):
            raise _Unanswerable("The app that sent you here did not say correctly where to return.")
        return client, redirect_uri

    @staticmethod
    def _read(parameters: dict[str, str], client: Client, redirect_uri: str) -> Asked:
        if any(len(parameters.get(name, "")) > _LONGEST for name in ("state", "nonce")):
            raise OAuthError("invalid_request", "state or nonce is too long")
        if parameters.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type is code")
        if parameters.get("response_mode", "query") != "query":
            raise OAuthError("invalid_request", "response_mode is query")
        if parameters.get("code_challenge_method") != "S256" or not is_challenge(parameters.get("code_challenge", "")):
            raise OAuthError("invalid_request", "PKCE with S256 is required")
        if "request" in parameters or "request_uri" in parameters:
            raise OAuthError("request_not_supported")
        if "none" in parameters.get("prompt", "").split():
            raise OAuthError("login_required")
        return Asked(
            client.id,
            redirect_uri,
            client.grant_scope(parameters.get("scope")),
            parameters["code_challenge"],
            parameters.get("state"),
            parameters.get("nonce"),
        )

    # --- the form ----------------------------------------------------------------------------------------------------

    async def log_in(self, request: Request) -> Response:
        """Takes the form: back to the app with a code, or the page again with the reason."""
        try:
            form = await read_form(request)
        except (InvalidRequest, UnsupportedMedia) as exc:
            return _page(error_page(str(exc)), 400, None)
        binding = self._binding(request)
        asked = self._unseal(form.get("request", ""), binding)
        if asked is None:
            return _page(error_page("The page was open for too long, or cookies are switched off."), 400, None)
        name = form.get("username", "")
        try:
            user = await self._issuer.log_ins.log_in(name, form.get("password", ""), address_of(request))
        except InvalidCredentials:
            return self._form(asked, binding, name, "The name or the password is wrong.", status=400)
        except (RateLimited, Overloaded) as exc:
            return self._form(asked, binding, name, "Too many attempts. Wait a moment, then try again.", error=exc)
        code = await self._issuer.grants.make_code(
            user, CodeRequest(asked.client_id, asked.redirect_uri, asked.scope, asked.code_challenge, asked.nonce)
        )
        return self._back(asked.redirect_uri, {"code": code, "state": asked.state})

    def _binding(self, request: Request) -> str:
        """What the form's cookie holds; "" for what we have not made."""
        value = request.cookies.get(self._cookie, "")
        return value if _BINDING.fullmatch(value) else ""

    def _form(
        self,
        asked: Asked,
        binding: str,
        username: str = "",
        alert: str = "",
        *,
        status: int = 200,
        error: GatewayError | None = None,
    ) -> Response:
        client = self._issuer.config.clients[asked.client_id]
        body = log_in_page(
            client=client.name or asked.client_id,
            action=f"{self._issuer.config.path}/authorize",
            request=self._seal(asked, binding),
            username=username,
            alert=alert,
        )
        response = _page(body, status if error is None else error.status, asked.redirect_uri)
        if error is not None and error.retry_after_s is not None:
            response.headers["retry-after"] = str(error.retry_after_s)
        response.set_cookie(
            self._cookie, binding, path="/", secure=self._is_https, httponly=True, samesite="lax", max_age=int(FORM_S)
        )
        return response

    def _back(self, redirect_uri: str, fields: dict[str, str | None]) -> Response:
        """303 to the app, with `iss` so that it notices an answer of another issuer (RFC 9207)."""
        parsed = urlsplit(redirect_uri)
        given = {name: value for name, value in fields.items() if value} | {"iss": self._issuer.config.url}
        query = "&".join(part for part in (parsed.query, urlencode(given)) if part)
        headers = page_headers(redirect_uri) | {"location": urlunsplit(parsed._replace(query=query))}
        return Response(status_code=303, headers=headers)

    def _seal(self, asked: Asked, binding: str) -> str:
        members = asdict(asked) | {"until": self._issuer.wall() + FORM_S}
        octets = json.dumps(members, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._tag(octets, binding) + octets).decode()

    def _unseal(self, text: str, binding: str) -> Asked | None:
        try:
            sealed = base64.urlsafe_b64decode(text.encode("ascii"))
        except ValueError:
            return None
        tag, octets = sealed[:32], sealed[32:]
        if not binding or not hmac.compare_digest(tag, self._tag(octets, binding)):
            return None
        members: dict[str, Any] = json.loads(octets)
        until = members.pop("until")
        return Asked(**members) if self._issuer.wall() < until else None

    def _tag(self, octets: bytes, binding: str) -> bytes:
        return hmac.digest(self._issuer.form_key, len(binding).to_bytes(4, "big") + binding.encode() + octets, "sha256")


def _page(body: bytes, status: int, redirect_uri: str | None) -> Response:
    return Response(body, status, page_headers(redirect_uri), "text/html; charset=utf-8")
