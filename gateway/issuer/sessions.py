"""Sessions: one log-in on one device, kept alive by its refresh tokens, ended once and for all.

Whatever a presented refresh token leads to happens in one transaction, under the session's lock, and is committed
before the answer leaves. A process that dies before the commit has changed nothing; one that dies after it has only
lost an answer, and the client asks again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import Issuance, Platform
from gateway.issuer.denials import Denials
from gateway.issuer.refresh_tokens import SALT_BYTES, Chain, Mint, RefreshToken, Verdict, judge
from gateway.issuer.store import Database
from gateway.issuer.store.tables import sessions, users

PLATFORMS: tuple[Platform, ...] = ("web", "mobile", "desktop", "other")
KEPT_AFTER_S = 30 * 86_400.0  # so that a client that comes back late is told that its session has ended


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in. Moments are epoch seconds; `ended_at` None: it lives unless `expires_at` has passed."""

    id: str
    user_id: str
    client_id: str
    scope: str
    platform: str
    device_name: str
    address: str
    created_at: float
    last_seen_at: float
    expires_at: float  # the sooner of idle and absolute
    ended_at: float | None
    end_reason: str | None

    def is_alive(self, now: float) -> bool:
        """Whether it can still be refreshed."""
        return self.ended_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Device:
    """What a client says of itself at the log-in, and where it comes from."""

    platform: Platform = "other"
    name: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh gave. `user` is the row of the account; `token` None: the session is over, `verdict` says why."""

    verdict: Verdict
    session: Session
    user: Row[Any] | None = None
    token: str | None = None


class Sessions:
    """The sessions of the store."""

    def __init__(
        self, database: Database, config: Issuance, denials: Denials, mint: Mint, wall: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._config = config
        self._denials = denials
        self._mint = mint
        self._wall = wall
        self.reused = 0  # sessions ended because an old refresh token came

    async def begin(
        self, connection: AsyncConnection, user_id: str, client_id: str, scope: str, device: Device, now: float
    ) -> tuple[Session, str]:
        """A new session and its first refresh token, in the transaction of whoever knows that this is the user."""
        lifetimes = self._config.refresh_token
        token = self._mint.first(secrets.token_hex(16))
        expires_at = now + getattr(lifetimes.absolute, device.platform)
        values = {
            "id": token.session_id,
            "user_id": user_id,
            "client_id": client_id,
            "scope": scope,
            "platform": device.platform,
            "device_name": device.name,
            "address": device.address,
            "created_at": now,
            "last_seen_at": now,
            "idle_expires_at": now + getattr(lifetimes.idle, device.platform),
            "expires_at": expires_at,
            "sequence": token.sequence,
            "current_hash": token.hash,
            "rotated_at": now,
        }
        row = (await connection.execute(insert(sessions).values(**values).returning(sessions))).one()
        return _session(row), self._mint.write(token)

    # --- refresh -----------------------------------------------------------------------------------------------------

    def recognise(self, text: str) -> RefreshToken | None:
        """The refresh token that this text is; None if we did not make it."""
        return self._mint.read(text)

    async def refresh(self, token: RefreshToken, client_id: str, address: str) -> Refreshed | None:
        """Do what the token leads to. None: there is no such session, or it is another client's."""
        now = self._wall()
        async with self._database.write() as connection:
            row = await self._locked(connection, token.session_id)
            if row is None or row.client_id != client_id:
                return None
            user = (await connection.execute(select(users).where(users.c.id == row.user_id))).one()
            verdict = judge(token, _chain(row), now, self._config.refresh_token.grace)
            if verdict in (Verdict.ENDED, Verdict.EXPIRED):
                refreshed = Refreshed(verdict, _session(row))
            elif verdict is Verdict.REUSED or user.disabled:
                reason = "token reuse" if verdict is Verdict.REUSED else "account disabled"
                self.reused += verdict is Verdict.REUSED
                await self._end(connection, [row.id], reason, now)
                refreshed = Refreshed(Verdict.REUSED if verdict is Verdict.REUSED else Verdict.ENDED, _session(row))
            else:
                salt = row.successor_salt if verdict is Verdict.REPEAT else secrets.token_bytes(SALT_BYTES)
                successor = self._mint.successor(token, salt)
                row = await self._advance(connection, row, token, successor, salt, address, now)
                refreshed = Refreshed(verdict, _session(row), user, self._mint.write(successor))
        if refreshed.token is None:
            await self._denials.deliver()
        return refreshed

    async def _advance(
        self,
        connection: AsyncConnection,
        row: Row[Any],
        token: RefreshToken,
        successor: RefreshToken,
        salt: bytes,
        address: str,
        now: float,
    ) -> Row[Any]:
        """Make `successor` the one live token. A repeated one is live already: it only counts as use."""
        idle_s = getattr(self._config.refresh_token.idle, row.platform)
        values: dict[str, Any] = {"last_seen_at": now, "address": address, "idle_expires_at": now + idle_s}
        if successor.hash != row.current_hash:
            values |= {
                "sequence": successor.sequence,
                "current_hash": successor.hash,
                "previous_hash": token.hash,
                "successor_salt": salt,
                "rotated_at": now,
            }
        change = update(sessions).where(sessions.c.id == row.id).values(**values).returning(sessions)
        row = (await connection.execute(change)).one()
        return row

    async def _locked(self, connection: AsyncConnection, session_id: str) -> Row[Any] | None:
        query = select(sessions).where(sessions.c.id == session_id).with_for_update()
        row: Row[Any] | None = (await connection.execute(query)).one_or_none()
        return row

    async def peek(self, token: RefreshToken) -> tuple[Verdict, Session] | None:
        """What a refresh with this token would lead to; changes nothing."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(sessions).where(sessions.c.id == token.session_id))).one_or_none()
        if row is None:
            return None
        return judge(token, _chain(row), self._wall(), self._config.refresh_token.grace), _session(row)

    # --- look and end ------------------------------------------------------------------------------------------------

    async def find(self, session_id: str) -> Session | None:
        """One session, alive or not."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(sessions).where(sessions.c.id == session_id))).one_or_none()
        return None if row is None else _session(row)

    async def of_user(self, user_id: str) -> Sequence[Session]:
        """The living sessions of a user, the one seen last first."""
        query = select(sessions).where(sessions.c.user_id == user_id, sessions.c.ended_at.is_(None))
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(sessions.c.last_seen_at.desc()))).all()
        now = self._wall()
        return [session for session in map(_session, rows) if session.is_alive(now)]

    async def end(self, session_id: str, reason: str, *, user_id: str | None = None) -> bool:
        """End one session, of this user if given; False if there is no such session. Again: nothing happens."""
        async with self._database.write() as connection:
            row = await self._locked(connection, session_id)
            if row is None or (user_id is not None and row.user_id != user_id):
                return False
            if row.ended_at is None:
                await self._end(connection, [session_id], reason, self._wall())
        await self._denials.deliver()
        return True

    async def end_all(self, user_id: str, reason: str, *, but: str | None = None) -> int:
        """End every session of a user but one; how many."""
        async with self._database.write() as connection:
            count = await self.end_all_in(connection, user_id, reason, but=but)
        await self._denials.deliver()
        return count

    async def end_all_in(
        self, connection: AsyncConnection, user_id: str, reason: str, *, but: str | None = None
    ) -> int:
        """As `end_all`, as a part of a transaction; its owner delivers the denials after the commit."""
        query = select(sessions.c.id).where(sessions.c.user_id == user_id, sessions.c.ended_at.is_(None))
        found = (await connection.execute(query.order_by(sessions.c.id).with_for_update())).scalars()
        ids = [session_id for session_id in found if session_id != but]
        await self._end(connection, ids, reason, self._wall())
        return len(ids)

    async def _end(self, connection: AsyncConnection, ids: Sequence[str], reason: str, now: float) -> None:
        for session_id in ids:
            where = (sessions.c.id == session_id, sessions.c.ended_at.is_(None))
            await connection.execute(update(sessions).where(*where).values(ended_at=now, end_reason=reason))
        await self._denials.record(connection, "session", ids, now)

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget sessions that have been over for so long that nobody needs to be told why."""
        await connection.execute(delete(sessions).where(sessions.c.expires_at < now - KEPT_AFTER_S))


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        client_id=row.client_id,
        scope=row.scope,
        platform=row.platform,
        device_name=row.device_name,
        address=row.address,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        expires_at=min(row.idle_expires_at, row.expires_at),
        ended_at=row.ended_at,
        end_reason=row.end_reason,
    )


def _chain(row: Row[Any]) -> Chain:
    return Chain(
        sequence=row.sequence,
        current_hash=row.current_hash,
        previous_hash=row.previous_hash,
        rotated_at=row.rotated_at,
        expires_at=min(row.idle_expires_at, row.expires_at),
        ended_at=row.ended_at,
    )
