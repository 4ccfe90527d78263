"""Changing a password: by whoever knows the present one, or by whoever reads the account's mail.

Either way every other session ends, and with it its access tokens on every gateway. Asking for a reset is answered the
same, after the same writes, whether or not there is an account.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.issuer.accounts import Accounts
from gateway.issuer.denials import Denials
from gateway.issuer.log_ins import LogIns, typed_name
from gateway.issuer.one_time_tokens import OneTimeTokens
from gateway.issuer.passwords import HashingPool, check_strength
from gateway.issuer.sessions import Sessions
from gateway.issuer.store import Database
from gateway.issuer.store.tables import authorization_codes, users
from gateway.issuer.throttle import Throttle
from gateway.issuer.webhook import Message, Webhook


class PasswordChanges:
    """New passwords for old accounts."""

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        log_ins: LogIns,
        tokens: OneTimeTokens,
        pool: HashingPool,
        throttle: Throttle,
        user_sessions: Sessions,
        denials: Denials,
        webhook: Webhook,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._log_ins = log_ins
        self._tokens = tokens
        self._pool = pool
        self._throttle = throttle
        self._sessions = user_sessions
        self._denials = denials
        self._webhook = webhook
        self._wall = wall

    async def change(self, user_id: str, session_id: str, present: str, wanted: str, address: str) -> None:
        """A new password for whoever knows the present one; every other session ends."""
        user = await self._accounts.find(user_id)
        prepared = check_strength(wanted, [user.username or "", user.email or ""])
        await self._log_ins.log_in(user.email or user.username or "", present, address)
        await self.set(user_id, prepared, but=session_id)

    async def set(self, user_id: str, prepared: str, *, but: str | None = None) -> None:
        """A new password; every session ends, but one if given."""
        password_hash = await self._pool.hash(prepared)
        async with self._database.write() as connection:
            await self._replace(connection, user_id, password_hash, but)
        await self._denials.deliver()

    async def _replace(self, connection: AsyncConnection, user_id: str, password_hash: str, but: str | None) -> None:
        values = {"password_hash": password_hash, "password_changed_at": self._wall()}
        await connection.execute(update(users).where(users.c.id == user_id).values(**values))
        # A reset that somebody else has asked for must not outlive the change.
        await self._tokens.forget(connection, "reset", user_id)
        await connection.execute(delete(authorization_codes).where(authorization_codes.c.user_id == user_id))
        await self._sessions.end_all_in(connection, user_id, "password changed", but=but)

    async def forgot(self, name: str, address: str) -> None:
        """Send a reset token to the account's address, if there is one; the caller is told the same in any case."""
        canonical, is_account = typed_name(name)
        # Its own count: asking for a reset must not block the account's log-in.
        await self._throttle.enter(f"@reset:{canonical}", address, self._wall())
        async with self._database.write() as connection:
            row = (await connection.execute(select(users).where(is_account))).one_or_none()
            can_get = row is not None and row.email is not None and not row.disabled
            user_id = row.id if row is not None and can_get else None
            token, expires_at = await self._tokens.make(connection, "reset" if can_get else "notice", user_id, {})
        if row is not None and can_get:
            self._webhook.send(Message("reset_password", row.email, token, expires_at))

    async def reset(self, token: str, wanted: str, address: str) -> None:
        """A new password for whoever got the reset token; every session ends. Raises TokenUnusable, WeakPassword."""
        prepared = check_strength(wanted)
        attempt = await self._throttle.enter(None, address, self._wall())
        # Before the hash: who has no token must not keep the threads busy. It is random, so the time tells nothing.
        async with self._database.read() as connection:
            await self._tokens.look(connection, "reset", token)
        await self._throttle.take_back(attempt)
        password_hash = await self._pool.hash(prepared)
        async with self._database.write() as connection:
            row = await self._tokens.use(connection, "reset", token)
            # Whoever reads the account's mail has proved the address too.
            await connection.execute(update(users).where(users.c.id == row.user_id).values(email_verified=True))
            await self._replace(connection, row.user_id, password_hash, None)
        await self._denials.deliver()
