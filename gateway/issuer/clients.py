"""OAuth clients: who is asking, and whether it may ask for that (RFC 6749 §2, RFC 8252)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from gateway.config.issuance import Grant, Issuance, OAuthClient

_LOOPBACK = ("127.0.0.1", "::1")


class OAuthError(Exception):
    """An error in OAuth's words (RFC 6749 §5.2); `description` is public ASCII."""

    def __init__(self, error: str, description: str = "", status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


@dataclass(frozen=True, slots=True)
class Client:
    """One client of this request. `is_authenticated`: it has shown its secret; public clients have none."""

    id: str
    config: OAuthClient
    is_authenticated: bool

    def require(self, grant: Grant) -> None:
        """OAuthError unless it may use this grant."""
        if grant not in self.config.grants:
            raise OAuthError("unauthorized_client", f"this client may not use {grant}")

    def grant_scope(self, asked: str | None) -> str:
        """The scopes it gets: those it asks for if it may have them, all of its own if it asks for none."""
        if not asked:
            return " ".join(self.config.scopes)
        wanted = list(dict.fromkeys(asked.split()))
        if not set(wanted) <= set(self.config.scopes):
            raise OAuthError("invalid_scope", "a scope is unknown or not for this client")
        return " ".join(wanted)

    def allows_redirect(self, uri: str) -> bool:
        """Whether this is a registered redirect URI, to the letter; on loopback with any port (RFC 8252 §7.3)."""
        return uri in self.config.redirect_uris or any(
            _without_port(uri) == _without_port(known) is not None for known in self.config.redirect_uris
        )


def _without_port(uri: str) -> str | None:
    """A loopback http URI without its port; None for any other, and for what the parser would tidy up silently."""
    if not uri.isascii() or any(char <= " " or char in "\\#\x7f" for char in uri):
        return None
    try:
        parsed = urlsplit(uri)
        _ = parsed.port  # ValueError for what is no port
    except ValueError:
        return None
    if parsed.scheme != "http" or parsed.hostname not in _LOOPBACK or "@" in parsed.netloc:
        return None
    return urlunsplit(parsed._replace(netloc=parsed.hostname))


def find_client(config: Issuance, client_id: str) -> OAuthClient | None:
    """A client by its id; the first-party apps are one that is public and may refresh."""
    if client_id == config.client_id:
        return OAuthClient(grants=("refresh_token",), scopes=config.scopes)
    return config.clients.get(client_id)


def authenticate(config: Issuance, authorization: str | None, form: Mapping[str, str]) -> Client:
    """The client of a request to the token endpoint and its like (RFC 6749 §2.3.1). OAuthError 401 `invalid_client`.

    A client uses one way only: HTTP Basic, or the form's `client_id` and `client_secret`, or just its id if public.
    """
    client_id, secret = form.get("client_id"), form.get("client_secret")
    if authorization is not None:
        basic_id, basic_secret = _basic(authorization)
        if secret is not None or client_id not in (None, basic_id):
            raise OAuthError("invalid_request", "the client authenticates in two ways")
        client_id, secret = basic_id, basic_secret
    client = None if client_id is None else find_client(config, client_id)
    if client_id is None or client is None:
        raise OAuthError("invalid_client", "the client is unknown", 401)
    if not client.is_confidential:
        if secret:
            raise OAuthError("invalid_client", "this client has no secret", 401)
        return Client(client_id, client, is_authenticated=False)
    if secret is None or not _is_secret(client, secret):
        raise OAuthError("invalid_client", "the client's secret is wrong or missing", 401)
    return Client(client_id, client, is_authenticated=True)


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, value = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        decoded = base64.b64decode(value.strip(), validate=True).decode()
        user, colon, password = decoded.partition(":")
        if not colon:
            raise ValueError
    except (ValueError, binascii.Error) as exc:
        raise OAuthError("invalid_client", "the Authorization header is not Basic", 401) from exc
    return unquote_plus(user), unquote_plus(password)


def _is_secret(client: OAuthClient, given: str) -> bool:
    if client.secret_sha256 is not None:
        return hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), client.secret_sha256)
    assert client.secret is not None
    return hmac.compare_digest(given.encode(), client.secret.get_secret_value())
