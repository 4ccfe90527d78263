"""One-time tokens: what somebody who reads the mail of an address may do once, before it is too late.

Only their hashes are kept. A token that nobody will get is made all the same where the answer must not tell whether
there is an account: purpose `notice`, which nothing accepts.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.issuer.refusals import TokenUnusable
from gateway.issuer.store.tables import one_time_tokens

REGISTER_S, RESET_S = 86_400.0, 3600.0  # how long a one-time token may be used
Purpose = Literal["register", "reset", "notice"]


class OneTimeTokens:
    """The one-time tokens of the store, each in the transaction of whoever makes or uses it."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    async def make(
        self, connection: AsyncConnection, purpose: Purpose, user_id: str | None, payload: dict[str, Any]
    ) -> tuple[str, float]:
        """A token, and when it ends (epoch seconds)."""
        token = secrets.token_urlsafe(32)
        expires_at = self._wall() + (RESET_S if purpose == "reset" else REGISTER_S)
        await connection.execute(
            insert(one_time_tokens).values(
                hash=_hash(token), purpose=purpose, user_id=user_id, payload=payload, expires_at=expires_at
            )
        )
        return token, expires_at

    async def look(self, connection: AsyncConnection, purpose: Purpose, token: str) -> Row[Any]:
        """The row of a token that could be used now, and still can be afterwards. Raises TokenUnusable."""
        where = (one_time_tokens.c.hash == _hash(token), one_time_tokens.c.purpose == purpose)
        return self._usable((await connection.execute(select(one_time_tokens).where(*where))).one_or_none())

    async def use(self, connection: AsyncConnection, purpose: Purpose, token: str) -> Row[Any]:
        """The row of a token, which is used up by the commit of this transaction. Raises TokenUnusable."""
        where = (one_time_tokens.c.hash == _hash(token), one_time_tokens.c.purpose == purpose)
        gone = delete(one_time_tokens).where(*where).returning(one_time_tokens)
        return self._usable((await connection.execute(gone)).one_or_none())

    def _usable(self, row: Row[Any] | None) -> Row[Any]:
        if row is None or self._wall() >= row.expires_at:
            raise TokenUnusable
        return row

    async def forget(self, connection: AsyncConnection, purpose: Purpose, user_id: str) -> None:
        """Make those of a user unusable."""
        of_user = (one_time_tokens.c.user_id == user_id, one_time_tokens.c.purpose == purpose)
        await connection.execute(delete(one_time_tokens).where(*of_user))

    async def sweep(self, connection: AsyncConnection, now: float) -> None:
        """Forget those that are too old."""
        await connection.execute(delete(one_time_tokens).where(one_time_tokens.c.expires_at < now))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
