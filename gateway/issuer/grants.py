"""From a proof to tokens: a password, a refresh token, an authorization code, or a client's own secret.

One place makes the answer, whichever endpoint gives it in whichever words.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import Issuance
from gateway.issuer.access_tokens import AccessTokens, Subject
from gateway.issuer.clients import Client, OAuthError
from gateway.issuer.refresh_tokens import Verdict
from gateway.issuer.sessions import Device, Session, Sessions
from gateway.issuer.store import Database
from gateway.issuer.store.tables import authorization_codes, users
from gateway.issuer.users import User

CODE_S = 60.0
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # of a SHA-256 (RFC 7636 §4.2)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client gets. `session` None: a client's own token."""

    access_token: str
    expires_in: int
    scope: str
    session: Session | None = None
    refresh_token: str | None = None
    id_token: str | None = None

    def __repr__(self) -> str:
        return f"<Tokens of session {self.session.id if self.session else '-'}>"

    @property
    def answer(self) -> dict[str, Any]:
        """The members of the answer (RFC 6749 §5.1)."""
        members: dict[str, Any] = {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        }
        for name in ("refresh_token", "id_token"):
            if getattr(self, name) is not None:
                members[name] = getattr(self, name)
        if self.scope:
            members["scope"] = self.scope
        if self.session is not None:
            members["session_id"] = self.session.id
        return members


class SessionOver(Exception):
    """A refresh that ends here: the client must sign in again. `verdict` None: the token is not ours."""

    def __init__(self, verdict: Verdict | None) -> None:
        super().__init__("session over")
        self.verdict = verdict

    @property
    def detail(self) -> str:
        """A public sentence."""
        return {
            Verdict.EXPIRED: "The session has been idle for too long or is too old.",
            Verdict.ENDED: "The session has been ended.",
            Verdict.REUSED: "The refresh token had been used before, so the session was ended.",
        }.get(self.verdict, "The refresh token is unknown.")  # type: ignore[arg-type]  # None has no sentence


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """What an authorization code stands for."""

    client_id: str
    redirect_uri: str
    scope: str
    code_challenge: str
    nonce: str | None


def is_challenge(text: str) -> bool:
    """Whether this can be an S256 challenge."""
    return _CHALLENGE.fullmatch(text) is not None


def answers_challenge(verifier: str, challenge: str) -> bool:
    """Whether the verifier is the one that the challenge was made from (RFC 7636 §4.6)."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(digest, challenge.encode())


class Grants:
    """Turns proofs into tokens."""

    def __init__(
        self,
        config: Issuance,
        database: Database,
        user_sessions: Sessions,
        access_tokens: AccessTokens,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._database = database
        self._sessions = user_sessions
        self._access_tokens = access_tokens
        self._wall = wall

    # --- a password, at a first-party app ----------------------------------------------------------------------------

    async def begin(self, user: User, device: Device) -> Tokens:
        """A new session for a user who has just proved the password."""
        scope = " ".join(self._config.scopes)
        async with self._database.write() as connection:
            now = self._wall()
            session, refresh_token = await self._sessions.begin(
                connection, user.id, self._config.client_id, scope, device, now
            )
        return self._tokens(user.subject, session, refresh_token)

    # --- a refresh token ---------------------------------------------------------------------------------------------

    async def refresh(self, text: str, client_id: str, address: str, scope: str | None = None) -> Tokens:
        """Tokens for the next while. Raises SessionOver; OAuthError for a scope that the session has not."""
        token = self._sessions.recognise(text)
        if token is None:
            raise SessionOver(None)
        scope = " ".join(dict.fromkeys((scope or "").split())) or None  # as it will stand in the token
        if scope:
            await self._check_narrower(token.session_id, scope)
        refreshed = await self._sessions.refresh(token, client_id, address)
        if refreshed is None:
            raise SessionOver(None)
        if refreshed.token is None or refreshed.user is None:
            raise SessionOver(refreshed.verdict)
        return self._tokens(User.of(refreshed.user).subject, refreshed.session, refreshed.token, scope=scope)

    async def _check_narrower(self, session_id: str, scope: str) -> None:
        # Before the token is used up: a wrong request must not cost the session a step.
        session = await self._sessions.find(session_id)
        if session is not None and not set(scope.split()) <= set(session.scope.split()):
            raise OAuthError("invalid_scope", "the session does not have this scope (RFC 6749 section 6)")

    # --- an authorization code ---------------------------------------------------------------------------------------

    async def make_code(self, user: User, asked: CodeRequest) -> str:
        """A code for the redirect, good for a minute and for one use."""
        code = secrets.token_urlsafe(32)
        now = self._wall()
        async with self._database.write() as connection:
            await connection.execute(
                insert(authorization_codes).values(
                    hash=hashlib.sha256(code.encode()).digest(),
                    client_id=asked.client_id,
                    user_id=user.id,
                    redirect_uri=asked.redirect_uri,
                    scope=asked.scope,
                    code_challenge=asked.code_challenge,
                    nonce=asked.nonce,
                    auth_time=now,
                    expires_at=now + CODE_S,
                )
            )
        return code

    async def redeem(
        self, code: str, client: Client, redirect_uri: str | None, verifier: str, device: Device
    ) -> Tokens:
        """Tokens for a code. A code that comes twice ends the session it began (RFC 6749 §4.1.2). Raises OAuthError."""
        digest = hashlib.sha256(code.encode()).digest()
        async with self._database.write() as connection:
            query = select(authorization_codes).where(authorization_codes.c.hash == digest).with_for_update()
            row = (await connection.execute(query)).one_or_none()
            used_by = None if row is None else row.session_id
            tokens = None
            if row is not None and used_by is None and self._is_redeemable(row, client, redirect_uri, verifier):
                tokens = await self._redeem(connection, row, client, device)
        if used_by is not None:
            await self._sessions.end(used_by, "code reuse")
        if tokens is None:
            raise OAuthError("invalid_grant", "the code is wrong, used, too old or for another request")
        return tokens

    def _is_redeemable(self, row: Any, client: Client, redirect_uri: str | None, verifier: str) -> bool:
        return (
            row.client_id == client.id
            and self._wall() < row.expires_at
            and redirect_uri in (None, row.redirect_uri)
            and answers_challenge(verifier, row.code_challenge)
        )

    async def _redeem(self, connection: AsyncConnection, row: Any, client: Client, device: Device) -> Tokens | None:
        user_row = (await connection.execute(select(users).where(users.c.id == row.user_id))).one()
        if user_row.disabled:
            return None
        session, refresh_token = await self._sessions.begin(
            connection, row.user_id, client.id, row.scope, device, self._wall()
        )
        where = authorization_codes.c.hash == row.hash
        await connection.execute(update(authorization_codes).where(where).values(session_id=session.id))
        may_refresh = "refresh_token" in client.config.grants
        subject = User.of(user_row).subject
        return self._tokens(subject, session, refresh_token if may_refresh else None, nonce=row.nonce)

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget codes that nobody can come back with."""
        await connection.execute(delete(authorization_codes).where(authorization_codes.c.expires_at < now - 86_400.0))

    # --- a client for itself -----------------------------------------------------------------------------------------

    def client_credentials(self, client: Client, scope: str) -> Tokens:
        """A token about the client itself (RFC 9068 §2.2: `sub` is the client); no session, no refresh token."""
        issued = self._access_tokens.issue(Subject(client.id, {}), client_id=client.id, scope=scope, now=self._wall())
        return Tokens(issued.token, issued.lifetime_s, scope)

    # --- the answer --------------------------------------------------------------------------------------------------

    def _tokens(
        self,
        subject: Subject,
        session: Session,
        refresh_token: str | None,
        *,
        scope: str | None = None,
        nonce: str | None = None,
    ) -> Tokens:
        now = self._wall()
        granted = scope or session.scope
        issued = self._access_tokens.issue(
            subject,
            client_id=session.client_id,
            scope=granted,
            now=now,
            sid=session.id,
            auth_time=session.created_at,
        )
        id_token = None
        if "openid" in granted.split() and session.client_id != self._config.client_id:
            id_token = self._access_tokens.issue_id_token(
                subject,
                client_id=session.client_id,
                sid=session.id,
                auth_time=session.created_at,
                nonce=nonce,
                scope=granted,
                now=now,
            )
        return Tokens(issued.token, issued.lifetime_s, granted, session, refresh_token, id_token)
