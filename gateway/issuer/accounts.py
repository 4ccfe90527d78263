"""Accounts: made, looked at, changed and removed, by their users' wish or the operator's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import RESERVED_CLAIMS
from gateway.issuer.denials import Denials
from gateway.issuer.names import canonical_email, canonical_login, canonical_username
from gateway.issuer.passwords import HashingPool, check_strength
from gateway.issuer.refusals import InvalidRequest, NameTaken, NotFound
from gateway.issuer.sessions import Sessions
from gateway.issuer.store import Database
from gateway.issuer.store.tables import sessions, users
from gateway.issuer.users import User

_EXPORTED = (
    "id client_id scope platform device_name address created_at last_seen_at expires_at ended_at end_reason".split()
)


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
        pool: HashingPool,
        user_sessions: Sessions,
        denials: Denials,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._pool = pool
        self._sessions = user_sessions
        self._denials = denials
        self._wall = wall

    async def add(self, asked: Registration, *, roles: Sequence[str] = (), email_verified: bool = False) -> User:
        """A new account at once. Raises NameTaken, Overloaded."""
        password_hash = await self._pool.hash(asked.password)
        async with self._database.write() as connection:
            return await self.insert(connection, asked, password_hash, roles=roles, email_verified=email_verified)

    async def insert(
        self,
        connection: AsyncConnection,
        asked: Registration,
        password_hash: str,
        *,
        roles: Sequence[str] = (),
        email_verified: bool = False,
    ) -> User:
        """As `add`, as a part of a transaction. Raises NameTaken."""
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
