"""Registration: by anybody at once, by whoever proves an address, or not at all.

Where addresses are proved, a stranger learns nothing about which accounts exist: the answer is always "look into your
mail", after the same writes, and what differs is said in the message. Only `registration: open` tells, because it must.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import select

from gateway.config.issuance import Issuance
from gateway.issuer.accounts import Accounts, Registration
from gateway.issuer.one_time_tokens import OneTimeTokens
from gateway.issuer.passwords import HashingPool
from gateway.issuer.refusals import InvalidRequest, RegistrationClosed
from gateway.issuer.store import Database
from gateway.issuer.store.tables import users
from gateway.issuer.throttle import Throttle
from gateway.issuer.users import User
from gateway.issuer.webhook import Message, Webhook


class Registrations:
    """What strangers may do to have an account."""

    def __init__(
        self,
        database: Database,
        config: Issuance,
        accounts: Accounts,
        tokens: OneTimeTokens,
        pool: HashingPool,
        throttle: Throttle,
        webhook: Webhook,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._mode = config.registration
        self._accounts = accounts
        self._tokens = tokens
        self._pool = pool
        self._throttle = throttle
        self._webhook = webhook
        self._wall = wall

    async def register(self, asked: Registration, address: str) -> User | None:
        """The new account; None where the e-mail address must be confirmed first, whether or not it has an account."""
        if self._mode == "closed":
            raise RegistrationClosed
        self._pool.require_room()
        if self._mode == "open":
            await self._throttle.enter(None, address, self._wall())
            return await self._accounts.add(asked)
        if asked.email is None:
            raise InvalidRequest("Give an email: it must be confirmed.")
        # Per address of the mail too: nobody's mailbox is to be filled from many places at once.
        await self._throttle.enter(f"@register:{asked.email}", address, self._wall())
        password_hash = await self._pool.hash(asked.password)
        payload = {"username": asked.username, "email": asked.email, "password_hash": password_hash}
        async with self._database.write() as connection:
            query = select(users.c.id).where(users.c.email == asked.email)
            is_known = (await connection.execute(query)).scalar_one_or_none() is not None
            # Written in either case: the time it takes says nothing.
            token, expires_at = await self._tokens.make(connection, "notice" if is_known else "register", None, payload)
        event = "account_exists" if is_known else "verify_email"
        self._webhook.send(Message(event, asked.email, None if is_known else token, expires_at))
        return None

    async def confirm(self, token: str) -> User:
        """The account whose registration this token confirms. Raises TokenUnusable, NameTaken."""
        async with self._database.write() as connection:
            row = await self._tokens.use(connection, "register", token)
            fields = row.payload
            asked = Registration(fields["username"], fields["email"], "")
            return await self._accounts.insert(connection, asked, fields["password_hash"], email_verified=True)
