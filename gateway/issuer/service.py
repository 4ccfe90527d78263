"""The issuer as a whole: its parts put together, opened, kept in order, closed.

    open ──▶ store migrated, keys at hand ──▶ run: keys, denials, messages, sweeps ──▶ close

One per worker process. The store is what they share; `open` may run in all of them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable

import httpx2
from sqlalchemy import delete, insert, select, update

from gateway.config.issuance import Issuance
from gateway.issuer.access_tokens import JITTER, AccessTokens
from gateway.issuer.accounts import Accounts
from gateway.issuer.decoys import Decoys
from gateway.issuer.denials import Denials, Denylist
from gateway.issuer.grants import Grants
from gateway.issuer.log_ins import LogIns
from gateway.issuer.one_time_tokens import OneTimeTokens
from gateway.issuer.password_changes import PasswordChanges
from gateway.issuer.passwords import HashingPool
from gateway.issuer.refresh_tokens import Mint
from gateway.issuer.registrations import Registrations
from gateway.issuer.sealing import SealBroken, Sealer
from gateway.issuer.sessions import Sessions
from gateway.issuer.signing import MARGIN_S, SigningKeys
from gateway.issuer.store import Database, StoreUnavailable
from gateway.issuer.store.tables import revoked_tokens, signing_keys
from gateway.issuer.store.tables import secrets as secrets_table
from gateway.issuer.throttle import Throttle
from gateway.issuer.throttle_redis import RedisCounts
from gateway.issuer.webhook import Webhook
from gateway.keys.origin import Document, OriginFailed
from gateway.redis.masters import MasterLinks
from gateway.telemetry.sample import Sample

logger = logging.getLogger("gateway.issuer")

_KEYS_EVERY_S = 5.0
_SWEEP_EVERY_S = 600.0
_OPEN_AGAIN_S = 2.0


class Issuer:
    """Everything behind the endpoints. Owns the store, the threads and the background work."""

    def __init__(
        self,
        config: Issuance,
        denylist: Denylist | None,
        *,
        redis: MasterLinks | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`denylist` None: nothing can be revoked at gateways. `redis`: where attempts are counted, if there is one.

        `transport`, `wall` and `chance` (of the webhook's pauses) are for tests.
        """
        self.config = config
        self.wall = wall
        longest_s = config.access_token * (1 + JITTER) + 1
        key = config.signing.encryption_key
        self._sealer = Sealer(None if key is None else key.get_secret_value())
        self.database = Database(config.store)
        self.keys = SigningKeys(self.database, config.signing, self._sealer, longest_s)
        self.pool = HashingPool(config.passwords)
        self._shared_counts = None if redis is None else RedisCounts(redis, config.name, config.throttle)
        self.denials = Denials(self.database, denylist, config.name, longest_s + MARGIN_S, wall)
        self.webhook = Webhook(config.webhook, transport=transport, wall=wall, chance=chance)
        self.access_tokens = AccessTokens(config, self.keys)
        self.is_open = False
        self._trouble = "not opened yet"
        self._opening = asyncio.Lock()

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Bring the store up to date and the keys to hand. Raises StoreUnavailable, SealBroken."""
        async with self._opening:
            if self.is_open:
                return
            await self.database.open()
            await self.keys.maintain(self.wall())
            await self._seal_what_is_plain()
            mint = Mint(await self._shared_secret("refresh tokens"))
            self.sessions = Sessions(self.database, self.config, self.denials, mint, self.wall)
            self.accounts = Accounts(self.database, self.pool, self.sessions, self.denials, self.wall)
            await self._open_doors()
            self.form_key = await self._shared_secret("forms")
            self.grants = Grants(self.config, self.database, self.sessions, self.access_tokens, self.wall)
            self.is_open = True
            self._trouble = ""

    async def _open_doors(self) -> None:
        """What strangers come through: log-in, registration, reset."""
        self.throttle = Throttle(
            self.database, self.config.throttle, await self._shared_secret("throttle"), self._shared_counts
        )
        self.decoys = Decoys(self.pool, await self._shared_secret("decoys"))
        async with self.database.read() as connection:
            await self.decoys.observe(connection)
        self.one_time_tokens = OneTimeTokens(self.wall)
        self.log_ins = LogIns(self.database, self.pool, self.decoys, self.throttle, self.wall)
        self.registrations = Registrations(
            self.database,
            self.config,
            self.accounts,
            self.one_time_tokens,
            self.pool,
            self.throttle,
            self.webhook,
            self.wall,
        )
        self.password_changes = PasswordChanges(
            self.database,
            self.accounts,
            self.log_ins,
            self.one_time_tokens,
            self.pool,
            self.throttle,
            self.sessions,
            self.denials,
            self.webhook,
            self.wall,
        )

    async def run(self) -> None:
        """Opens, as often as it takes; then keeps keys, denials, messages and the store in order until cancelled."""
        while not self.is_open:
            try:
                await self.open()
            except (StoreUnavailable, SealBroken) as exc:
                self._fail(str(exc))
                await asyncio.sleep(_OPEN_AGAIN_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_keys())
            tasks.create_task(self._sweep())
            tasks.create_task(self.denials.run())
            tasks.create_task(self.webhook.run())

    async def close(self) -> None:
        """Close the store and let the threads end."""
        self.pool.close()
        if self._shared_counts is not None:
            self._shared_counts.close()
        await self.database.close()

    def _fail(self, reason: str) -> None:
        if reason != self._trouble:
            logger.error("issuer: %s", reason)
        self._trouble = reason

    async def _keep_keys(self) -> None:
        while True:
            try:
                await self.keys.maintain(self.wall())
                self._trouble = ""
            except (StoreUnavailable, SealBroken) as exc:
                self._fail(str(exc))
            await asyncio.sleep(_KEYS_EVERY_S)

    async def _sweep(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.sweep()
            await asyncio.sleep(_SWEEP_EVERY_S)

    async def sweep(self) -> None:
        """Forget what nobody can ask for any more."""
        now = self.wall()
        async with self.database.write() as connection:
            await self.sessions.sweep(connection, now)
            await self.one_time_tokens.sweep(connection, now)
            await self.grants.sweep(connection, now)
            await self.throttle.sweep(connection, now)
            await self.decoys.observe(connection)
            await connection.execute(delete(revoked_tokens).where(revoked_tokens.c.expires_at < now))

    async def revoke_token(self, token_id: str, expires_at: float) -> None:
        """Deny one token that has no session, here and at every gateway; again: nothing happens."""
        async with self.database.write() as connection:
            await self.database.lock(connection, f"token {token_id}")
            query = select(revoked_tokens.c.token_id).where(revoked_tokens.c.token_id == token_id)
            if (await connection.execute(query)).one_or_none() is None:
                await connection.execute(insert(revoked_tokens).values(token_id=token_id, expires_at=expires_at))
                await self.denials.record(connection, "token", [token_id], self.wall())
        await self.denials.deliver()

    async def is_token_revoked(self, token_id: str) -> bool:
        """Whether a token without a session has been revoked."""
        query = select(revoked_tokens.c.token_id).where(revoked_tokens.c.token_id == token_id)
        async with self.database.read() as connection:
            return (await connection.execute(query)).one_or_none() is not None

    async def _shared_secret(self, name: str) -> bytes:
        """A secret that every gateway of the store has; made by the first."""
        async with self.database.write() as connection:
            await self.database.lock(connection, f"secret {name}")
            query = select(secrets_table.c.value).where(secrets_table.c.name == name)
            stored = (await connection.execute(query)).scalar_one_or_none()
            if stored is not None:
                return self._sealer.open(name, stored)
            secret = secrets.token_bytes(32)
            await connection.execute(insert(secrets_table).values(name=name, value=self._sealer.seal(name, secret)))
            return secret

    async def _seal_what_is_plain(self) -> None:
        """Encrypt what was stored before there was an encryption key."""
        if not self._sealer.has_key:
            return
        kept = (
            (signing_keys, signing_keys.c.kid, signing_keys.c.private),
            (secrets_table, secrets_table.c.name, secrets_table.c.value),
        )
        async with self.database.write() as connection:
            await self.database.lock(connection, "sealing")
            for table, name, value in kept:
                for row in (await connection.execute(select(name, value))).all():
                    if self._sealer.is_plain(row[1]):
                        sealed = self._sealer.seal(row[0], self._sealer.open(row[0], row[1]))
                        where = (name == row[0], value == row[1])  # a key that was retired meanwhile stays erased
                        await connection.execute(update(table).where(*where).values({value: sealed}))

    # --- what the gateway asks ---------------------------------------------------------------------------------------

    def health(self) -> tuple[bool, str]:
        """Whether all is well, and a sentence for the operator."""
        if self._trouble:
            return False, self._trouble
        return True, f"{len(self.keys.all())} signing keys"

    def samples(self) -> Iterable[Sample]:
        """The numbers of every part."""
        yield Sample("gateway_issuer_hashes_total", {}, self.pool.hashes)
        yield Sample("gateway_issuer_hashes_refused_total", {}, self.pool.refused)
        yield Sample("gateway_issuer_hashes_waiting", {}, self.pool.waiting)
        if self.is_open:
            yield Sample("gateway_issuer_reused_tokens_total", {}, self.sessions.reused)
            yield from self.throttle.samples()
        yield from self.denials.samples()
        yield from self.webhook.samples()


class OwnKeys:
    """The issuer's key set as an origin of keys, in process: the gateway need not ask itself over HTTP."""

    LOOK_EVERY_S = 5.0

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    async def load(self) -> Document:
        """The present key set, read from the store: another gateway may have made a key a moment ago."""
        try:
            await self._issuer.open()
            await self._issuer.keys.reload()
        except (StoreUnavailable, SealBroken) as exc:
            raise OriginFailed(str(exc)) from exc
        return Document(self._issuer.keys.document(self._issuer.wall()), self.LOOK_EVERY_S)
