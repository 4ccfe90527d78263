"""Proving a password, without a stranger learning which accounts exist.

A wrong password, an unknown name and a disabled account are the same work and the same answer. An unknown name is
compared with a decoy of a cost that accounts have.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, select, update

from gateway.errors import Overloaded
from gateway.issuer.decoys import Decoys
from gateway.issuer.names import canonical_login
from gateway.issuer.passwords import HashingPool, prepare
from gateway.issuer.refusals import InvalidCredentials
from gateway.issuer.store import Database
from gateway.issuer.store.tables import users
from gateway.issuer.throttle import Throttle
from gateway.issuer.users import User

_LONGEST_NAME = 512
_LONGEST_PASSWORD = 1024  # as typed: what can be used is shorter once it is normalised


class LogIns:
    """Checks passwords; slows down those who guess."""

    def __init__(
        self,
        database: Database,
        pool: HashingPool,
        decoys: Decoys,
        throttle: Throttle,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._pool = pool
        self._decoys = decoys
        self._throttle = throttle
        self._wall = wall

    async def log_in(self, name: str, password: str, address: str) -> User:
        """The account with this name and password. Raises InvalidCredentials, RateLimited, Overloaded."""
        self._pool.require_room()
        canonical, is_account = typed_name(name)
        attempt = await self._throttle.enter(canonical, address, self._wall())
        async with self._database.read() as connection:
            row = (await connection.execute(select(users).where(is_account))).one_or_none()
        typed = prepare(password[:_LONGEST_PASSWORD])
        decoy = self._decoys.of(canonical)
        try:
            is_right = await self._pool.verify(decoy if row is None else row.password_hash, typed)
        except Overloaded:
            # No password was tried: an honest user must not pay for a busy moment.
            await self._throttle.take_back(attempt)
            raise
        if row is None or not is_right or row.disabled:
            raise InvalidCredentials
        await self._throttle.succeed(attempt)
        if self._pool.needs_rehash(row.password_hash):
            with contextlib.suppress(Overloaded):  # then at the next log-in
                await self._rehash(row.id, row.password_hash, typed)
        return User.of(row)

    async def _rehash(self, user_id: str, old: str, typed: str) -> None:
        renewed = await self._pool.hash(typed)
        # Only if nobody has changed the password meanwhile.
        where = (users.c.id == user_id, users.c.password_hash == old)
        async with self._database.write() as connection:
            await connection.execute(update(users).where(*where).values(password_hash=renewed))


def typed_name(name: str) -> tuple[str, ColumnElement[Any]]:
    """What somebody typed as compared, and the condition for its account.

    What cannot be a name is looked for too, so that it takes as long as any other.
    """
    try:
        kind, canonical = canonical_login(name[:_LONGEST_NAME])
    except ValueError:
        kind, canonical = "username", f"@{name[:_LONGEST_NAME]}"  # no user name holds an @
    return canonical, (users.c.email if kind == "email" else users.c.username) == canonical
