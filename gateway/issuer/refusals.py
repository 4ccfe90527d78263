"""What the issuer refuses, beside the gateway's own errors: the same problem documents, codes of its own.

ClientError
├─ InvalidRequest        400 invalid_request       a member is missing, unknown or of the wrong kind
├─ TokenUnusable         400 token_unusable        a one-time token is wrong, used or too old
├─ InvalidCredentials    401 invalid_credentials   name or password is wrong, or there is no such account
├─ SessionEnded          401 session_ended         sign in again
├─ RegistrationClosed    403 registration_closed
├─ CrossSite             403 cross_site            a cookie came without the proof that our page sent it
├─ NotFound              404 not_found
├─ NameTaken             409 name_taken
├─ UnsupportedMedia      415 unsupported_media
├─ WeakPassword          422 weak_password
GatewayFault
└─ StoreDown             503 issuer_unavailable    try again later
"""

from __future__ import annotations

from gateway.errors import ClientError, GatewayFault


class InvalidRequest(ClientError):
    """A member of the request is missing, of the wrong kind, or not allowed."""

    status, code, title = 400, "invalid_request", "The request is not valid."


class TokenUnusable(ClientError):
    """A one-time token that is wrong, used, or too old: which one is not told."""

    status, code, title = 400, "token_unusable", "The token is not valid or has been used."


class InvalidCredentials(ClientError):
    """Name or password is wrong; the same whether or not the account exists, is disabled, or was never confirmed."""

    status, code, title = 401, "invalid_credentials", "The name or the password is wrong."


class SessionEnded(ClientError):
    """The session is over or unknown: the client must sign in again."""

    status, code, title = 401, "session_ended", "The session has ended; sign in again."


class RegistrationClosed(ClientError):
    """Accounts are made by the operator."""

    status, code, title = 403, "registration_closed", "Registration is closed."


class CrossSite(ClientError):
    """A request with a session's cookie that our own page cannot have sent."""

    status, code, title = 403, "cross_site", "The request did not come from this site."


class NotFound(ClientError):
    """There is no such resource, or it is somebody else's."""

    status, code, title = 404, "not_found", "There is no such resource."


class NameTaken(ClientError):
    """Only where registration is open, or to somebody who has proved the address."""

    status, code, title = 409, "name_taken", "The name is taken."


class UnsupportedMedia(ClientError):
    """The body is of another type than the endpoint reads."""

    status, code, title = 415, "unsupported_media", "The body has the wrong media type."


class WeakPassword(ClientError):
    """The password is too short, too long, or among the commonest."""

    status, code, title = 422, "weak_password", "The password cannot be used."


class StoreDown(GatewayFault):
    """The issuer's store does not answer."""

    status, code, title = 503, "issuer_unavailable", "The issuer is not available at the moment; try again later."
    retry_after_s = 5
