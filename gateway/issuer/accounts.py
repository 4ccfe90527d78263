"""Accounts: register, prove a password, change it, reset it; and the operator's side of it.

A stranger learns nothing about which accounts exist: a log-in does the same work and gives the same answer for a wrong
password, an unknown name and a disabled account; a reset and a verified registration always answer "look into your
mail", after the same writes, and what differs is said in the message. Only `registration: open` tells, because it must.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import RESERVED_CLAIMS, Issuance
from gateway.issuer.access_tokens import Subject
from gateway.issuer.denials import Denials
from gateway.issuer.names import canonical_email, canonical_login, canonical_username
from gateway.issuer.passwords import HashingPool, check_strength, prepare
from gateway.issuer.refusals import (
    InvalidCredentials,
    InvalidRequest,
    NameTaken,
    NotFound,
    RegistrationClosed,
    TokenUnusable,
)
from gateway.issuer.sessions import Sessions
from gateway.issuer.store import Database
from gateway.issuer.store.tables import authorization_codes, one_time_tokens, sessions, users
from gateway.issuer.throttle import Throttle
from gateway.issuer.webhook import Message, Webhook

REGISTER_S, RESET_S = 86_400.0, 3600.0  # how long a one-time token may be used
_LONGEST_TYPED = 512
_EXPORTED = (
    "id client_id scope platform device_name address created_at last_seen_at expires_at ended_at end_reason".split()
)


@dataclass(frozen=True, slots=True)
class User:
    """One account, without its password."""

    id: str
    username: str | None
    email: str | None
    email_verified: bool
    roles: tuple[str, ...]
    claims: Mapping[str, Any]
    disabled: bool
    created_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> User:
        """The account of a row."""
        return cls(
            row.id,
            row.username,
            row.email,
            row.email_verified,
            tuple(row.roles),
            row.claims,
            row.disabled,
            row.created_at,
        )

    @property
    def subject(self) -> Subject:
        """What tokens may say about the account."""
        claims: dict[str, Any] = {**self.claims, "roles": list(self.roles)}
        if self.email is not None:
            claims |= {"email": self.email, "email_verified": self.email_verified}
        if self.username is not None:
            claims["username"] = self.username
        return Subject(self.id, claims)

    @property
    def public(self) -> dict[str, Any]:
        """What the user itself sees."""
        return {
            "id": self.id,
            "username": self.username,
            "email": self.email,
            "email_verified": self.email_verified,
            "roles": list(self.roles),
            "claims": dict(self.claims),
            "created_at": self.created_at,
        }


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration as asked for, names canonical, password prepared."""

    username: str | None
    email: str | None
    password: str

    def __repr__(self) -> str:
        return "<Registration>"


def read_registration(username: str | None, email: str | None, password: str) -> Registration:
    """The registration, if it may be one. Raises InvalidRequest, WeakPassword."""
    if username is None and email is None:
        raise InvalidRequest("Give a username or an email.")
    try:
        name = None if username is None else canonical_username(username)
        address = None if email is None else canonical_email(email)
    except ValueError as exc:
        raise InvalidRequest(f"{exc}".capitalize() + ".") from exc
    return Registration(name, address, check_strength(password, [name or "", address or ""]))


class Accounts:
    """The accounts of the store."""

    def __init__(
        self,
        database: Database,
        config: Issuance,
        pool: HashingPool,
        throttle: Throttle,
        user_sessions: Sessions,
        denials: Denials,
        webhook: Webhook,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._config = config
        self._pool = pool
        self._throttle = throttle
        self._sessions = user_sessions
        self._denials = denials
        self._webhook = webhook
        self._wall = wall

    # --- register ----------------------------------------------------------------------------------------------------

    async def register(self, asked: Registration, address: str) -> User | None:
        """The new account; None where the e-mail address must be confirmed first, whether or not it has an account."""
        mode = self._config.registration
        if mode == "closed":
            raise RegistrationClosed
        await self._throttle.enter(None, address, self._wall())
        if mode == "open":
            return await self.add(asked)
        if asked.email is None:
            raise InvalidRequest("Give an email: it must be confirmed.")
        password_hash = await self._pool.hash(asked.password)
        payload = {"username": asked.username, "email": asked.email, "password_hash": password_hash}
        async with self._database.write() as connection:
            is_known = await self._id_of(connection, users.c.email == asked.email) is not None
            # Written in either case: the time it takes says nothing.
            token, expires_at = await self._make_token(connection, "notice" if is_known else "register", None, payload)
        event = "account_exists" if is_known else "verify_email"
        self._webhook.send(Message(event, asked.email, None if is_known else token, expires_at))
        return None

    async def confirm(self, token: str) -> User:
        """The account whose registration this token confirms. Raises TokenUnusable, NameTaken."""
        async with self._database.write() as connection:
            row = await self._use_token(connection, "register", token)
            fields = row.payload
            asked = Registration(fields["username"], fields["email"], "")
            return await self._insert(connection, asked, fields["password_hash"], email_verified=True)

    async def add(self, asked: Registration, *, roles: Sequence[str] = (), email_verified: bool = False) -> User:
        """A new account at once. Raises NameTaken, Overloaded."""
        password_hash = await self._pool.hash(asked.password)
        async with self._database.write() as connection:
            return await self._insert(connection, asked, password_hash, roles=roles, email_verified=email_verified)

    async def _insert(
        self,
        connection: AsyncConnection,
        asked: Registration,
        password_hash: str,
        *,
        roles: Sequence[str] = (),
        email_verified: bool = False,
    ) -> User:
        now = self._wall()
        values: dict[str, Any] = {
            "id": secrets.token_hex(16),
            "username": asked.username,
            "email": asked.email,
            "email_verified": email_verified,
            "password_hash": password_hash,
            "roles": list(roles),
            "claims": {},
            "disabled": False,
            "created_at": now,
            "password_changed_at": now,
        }
        try:
            async with connection.begin_nested():
                return User.of((await connection.execute(insert(users).values(**values).returning(users))).one())
        except IntegrityError as exc:
            raise NameTaken from exc

    # --- log in ------------------------------------------------------------------------------------------------------

    async def log_in(self, name: str, password: str, address: str) -> User:
        """The account with this name and password. Raises InvalidCredentials, RateLimited, Overloaded."""
        kind, canonical = _typed_name(name)
        await self._throttle.enter(canonical, address, self._wall())
        column = users.c.email if kind == "email" else users.c.username
        async with self._database.read() as connection:
            row = (await connection.execute(select(users).where(column == canonical))).one_or_none()
        typed = prepare(password[:_LONGEST_TYPED])
        is_right = await self._pool.verify(None if row is None else row.password_hash, typed)
        if row is None or not is_right or row.disabled:
            raise InvalidCredentials
        renewed = await self._pool.hash(typed) if self._pool.needs_rehash(row.password_hash) else None
        async with self._database.write() as connection:
            await self._throttle.succeed(connection, canonical, address)
            if renewed is not None:
                # Only if nobody has changed the password meanwhile.
                where = (users.c.id == row.id, users.c.password_hash == row.password_hash)
                await connection.execute(update(users).where(*where).values(password_hash=renewed))
        return User.of(row)

    # --- passwords ---------------------------------------------------------------------------------------------------

    async def change_password(self, user_id: str, session_id: str, present: str, wanted: str, address: str) -> None:
        """A new password for whoever knows the present one; every other session ends."""
        user = await self.find(user_id)
        prepared = check_strength(wanted, [user.username or "", user.email or ""])
        await self.log_in(user.email or user.username or "", present, address)
        await self.set_password(user_id, prepared, but=session_id)

    async def set_password(self, user_id: str, prepared: str, *, but: str | None = None) -> None:
        """A new password; every session ends, but one if given."""
        password_hash = await self._pool.hash(prepared)
        async with self._database.write() as connection:
            await self._replace_password(connection, user_id, password_hash, but)
        await self._denials.deliver()

    async def _replace_password(
        self, connection: AsyncConnection, user_id: str, password_hash: str, but: str | None
    ) -> None:
        values = {"password_hash": password_hash, "password_changed_at": self._wall()}
        await connection.execute(update(users).where(users.c.id == user_id).values(**values))
        # A reset that somebody else has asked for must not outlive the change.
        of_user = (one_time_tokens.c.user_id == user_id, one_time_tokens.c.purpose == "reset")
        await connection.execute(delete(one_time_tokens).where(*of_user))
        await connection.execute(delete(authorization_codes).where(authorization_codes.c.user_id == user_id))
        await self._sessions.end_all_in(connection, user_id, "password changed", but=but)

    async def forgot_password(self, name: str, address: str) -> None:
        """Send a reset token to the account's address, if there is one; the caller is told the same in any case."""
        kind, canonical = _typed_name(name)
        # Its own count: asking for a reset must not block the account's log-in.
        await self._throttle.enter(f"@reset:{canonical}", address, self._wall())
        column = users.c.email if kind == "email" else users.c.username
        async with self._database.write() as connection:
            row = (await connection.execute(select(users).where(column == canonical))).one_or_none()
            can_get = row is not None and row.email is not None and not row.disabled
            user_id = row.id if row is not None and can_get else None
            token, expires_at = await self._make_token(connection, "reset" if can_get else "notice", user_id, {})
        if row is not None and can_get:
            self._webhook.send(Message("reset_password", row.email, token, expires_at))

    async def reset_password(self, token: str, wanted: str) -> None:
        """A new password for whoever got the reset token; every session ends. Raises TokenUnusable, WeakPassword."""
        prepared = check_strength(wanted)
        password_hash = await self._pool.hash(prepared)
        async with self._database.write() as connection:
            row = await self._use_token(connection, "reset", token)
            # Whoever reads the account's mail has proved the address too.
            await connection.execute(update(users).where(users.c.id == row.user_id).values(email_verified=True))
            await self._replace_password(connection, row.user_id, password_hash, None)
        await self._denials.deliver()

    async def _make_token(
        self, connection: AsyncConnection, purpose: str, user_id: str | None, payload: dict[str, Any]
    ) -> tuple[str, float]:
        token = secrets.token_urlsafe(32)
        expires_at = self._wall() + (RESET_S if purpose == "reset" else REGISTER_S)
        await connection.execute(
            insert(one_time_tokens).values(
                hash=_hash(token), purpose=purpose, user_id=user_id, payload=payload, expires_at=expires_at
            )
        )
        return token, expires_at

    async def _use_token(self, connection: AsyncConnection, purpose: str, token: str) -> Row[Any]:
        where = (one_time_tokens.c.hash == _hash(token), one_time_tokens.c.purpose == purpose)
        gone = delete(one_time_tokens).where(*where).returning(one_time_tokens)
        row = (await connection.execute(gone)).one_or_none()
        if row is None or self._wall() >= row.expires_at:
            raise TokenUnusable
        return row

    # --- look and administer -----------------------------------------------------------------------------------------

    async def find(self, user_id: str) -> User:
        """An account by its id. Raises NotFound."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
        if row is None:
            raise NotFound
        return User.of(row)

    async def find_named(self, name: str) -> User:
        """An account by user name, e-mail address or id. Raises NotFound."""
        try:
            kind, canonical = canonical_login(name)
        except ValueError as exc:
            raise NotFound from exc
        column = users.c.email if kind == "email" else users.c.username
        async with self._database.read() as connection:
            found = await connection.execute(select(users).where(or_(column == canonical, users.c.id == name)))
            row = found.first()
        if row is None:
            raise NotFound
        return User.of(row)

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[User]:
        """Accounts by id, beginning after one."""
        query = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit)
        async with self._database.read() as connection:
            return [User.of(row) for row in (await connection.execute(query)).all()]

    async def set_roles(self, user_id: str, roles: Sequence[str]) -> None:
        """Replace the roles; they are in the tokens issued from now on."""
        await self._change(user_id, roles=list(dict.fromkeys(roles)))

    async def set_claim(self, user_id: str, name: str, value: Any) -> None:
        """Set a further claim, or remove it with None. ValueError for a name that is not free."""
        if name in RESERVED_CLAIMS or name in ("email", "email_verified", "username", "roles"):
            raise ValueError(f"`{name}` is not a free claim")
        user = await self.find(user_id)
        claims = {**user.claims, name: value}
        await self._change(user_id, claims={key: item for key, item in claims.items() if item is not None})

    async def disable(self, user_id: str, *, disabled: bool = True) -> None:
        """Refuse log-ins and end every session; or allow log-ins again."""
        await self._change(user_id, disabled=disabled)
        if disabled:
            await self._sessions.end_all(user_id, "account disabled")

    async def delete(self, user_id: str) -> None:
        """Remove the account and all that belongs to it; its access tokens are denied. Raises NotFound."""
        async with self._database.write() as connection:
            await self._sessions.end_all_in(connection, user_id, "account deleted")
            gone = await connection.execute(delete(users).where(users.c.id == user_id))
            if gone.rowcount == 0:
                raise NotFound
        await self._denials.deliver()

    async def export(self, user_id: str) -> dict[str, Any]:
        """Everything that is kept about a user, but for hashes."""
        user = await self.find(user_id)
        async with self._database.read() as connection:
            kept = [sessions.c[name] for name in _EXPORTED]
            rows = (await connection.execute(select(*kept).where(sessions.c.user_id == user_id))).mappings().all()
        return {**user.public, "disabled": user.disabled, "sessions": [dict(row) for row in rows]}

    async def _change(self, user_id: str, **values: Any) -> None:
        async with self._database.write() as connection:
            changed = await connection.execute(update(users).where(users.c.id == user_id).values(**values))
            if changed.rowcount == 0:
                raise NotFound

    @staticmethod
    async def _id_of(connection: AsyncConnection, where: Any) -> str | None:
        return (await connection.execute(select(users.c.id).where(where))).scalar_one_or_none()

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget one-time tokens and codes that are too old."""
        await connection.execute(delete(one_time_tokens).where(one_time_tokens.c.expires_at < now))
        await connection.execute(delete(authorization_codes).where(authorization_codes.c.expires_at < now - 86_400.0))


def _typed_name(name: str) -> tuple[str, str]:
    """The name as compared; what cannot be a name is compared too, so that it takes as long as any other."""
    try:
        return canonical_login(name[:_LONGEST_TYPED])
    except ValueError:
        return "username", f"@{name[:_LONGEST_TYPED]}"  # no user name holds an @


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
