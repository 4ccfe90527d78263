"""Who calls an endpoint with an access token. Whether the session still lives is asked of the store, not a replica."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from gateway.errors import Denied, TokenExpired, TokenInvalid, TokenRevoked
from gateway.issuer.access_tokens import Presented
from gateway.issuer.endpoints.reading import bearer
from gateway.issuer.refusals import NotFound
from gateway.issuer.service import Issuer
from gateway.issuer.sessions import Session
from gateway.issuer.users import User

ACCOUNT_SCOPE = "account"
"""What a token of an OAuth client must carry to manage the account; first-party tokens may without."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A user with a living session."""

    token: Presented
    session: Session
    user: User


async def find_caller(issuer: Issuer, request: Request, *, manages_account: bool = False) -> Caller:
    """The caller. TokenMissing, TokenInvalid, TokenExpired (refresh), TokenRevoked (sign in), Denied."""
    token = issuer.access_tokens.read(bearer(request))
    if token is None:
        raise TokenInvalid
    session = await issuer.sessions.find(token.sid) if token.sid else None
    if token.sid and (session is None or session.ended_at is not None):
        raise TokenRevoked
    if issuer.wall() >= token.expires_at:
        raise TokenExpired
    if session is None:
        raise Denied("A client's own token belongs to no user.")
    is_first_party = token.client_id == issuer.config.client_id
    if manages_account and not is_first_party and ACCOUNT_SCOPE not in token.scopes:
        raise Denied(f"The token does not carry the scope `{ACCOUNT_SCOPE}`.")
    try:
        user = await issuer.accounts.find(session.user_id)
    except NotFound as exc:
        raise TokenRevoked from exc
    return Caller(token, session, user)
