"""The keys that sign: made at first start, announced before they are used, published until no token of theirs is left.

    made ──announce──▶ signs ──rotate──▶ replaced ──longest token + margin──▶ retired
    └──────────────── published (key set) ─────────────────────────────────┘

All gateways of one store share the keys: whoever notices first that one is due makes it, under a lock. A retired key's
private half is erased; its public half stays, to tell an expired token of ours from a forged one after a long gap.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.config.issuance import Signing as Config
from gateway.issuer.sealing import Sealer
from gateway.issuer.store import Database
from gateway.issuer.store.tables import signing_keys

logger = logging.getLogger("gateway.issuer")

MARGIN_S = 600.0  # clocks that differ, a verifier's leeway
_LONGEST_MAX_AGE_S = 300.0
_LOCK = "signing keys"

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key. `private` is None once it is retired; moments are epoch seconds."""

    kid: str
    algorithm: str
    public_jwk: dict[str, Any]  # RFC 7517
    public: Any  # as PyJWT takes it
    private: PrivateKey | None
    created_at: float
    use_from: float
    retire_at: float | None

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid} {self.algorithm}>"

    def is_published(self, now: float) -> bool:
        """Whether it stands in the key set."""
        return self.private is not None and (self.retire_at is None or now < self.retire_at)


def make_private_key(algorithm: str) -> PrivateKey:
    """A fresh private key."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def public_jwk(private: PrivateKey, algorithm: str) -> dict[str, Any]:
    """The public half for the key set; its `kid` is the thumbprint (RFC 7638)."""
    kind = jwt.get_algorithm_by_name(algorithm)
    members = json.loads(kind.to_jwk(private.public_key()))
    required = {name: members[name] for name in ("crv", "kty", "x", "y", "e", "n") if name in members}
    digest = hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()
    kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**required, "kid": kid, "use": "sig", "alg": algorithm}


class SigningKeys:
    """The keys as this gateway knows them: loaded from the store, looked at again every few seconds."""

    def __init__(self, database: Database, config: Config, sealer: Sealer, longest_token_s: float) -> None:
        """`longest_token_s`: how long a token may live that was signed in a key's last moment."""
        self._database = database
        self._config = config
        self._sealer = sealer
        self._kept_s = longest_token_s + MARGIN_S
        self._keys: tuple[SigningKey, ...] = ()

    # --- what it gives -----------------------------------------------------------------------------------------------

    def current(self, now: float) -> SigningKey:
        """The key to sign with: the latest whose time has come."""
        usable = [key for key in self._keys if key.use_from <= now and key.is_published(now)]
        if not usable:
            raise LookupError("no signing key has been loaded")
        return max(usable, key=lambda key: (key.use_from, key.kid))

    def find(self, kid: str) -> SigningKey | None:
        """A key of ours, retired or not."""
        return next((key for key in self._keys if key.kid == kid), None)

    def document(self, now: float) -> bytes:
        """The key set (RFC 7517 §5): what signs now, what will, and what has signed tokens that may still live."""
        keys = [key.public_jwk for key in self._keys if key.is_published(now)]
        return json.dumps({"keys": keys}, separators=(",", ":")).encode()

    @property
    def max_age_s(self) -> int:
        """How long the key set may be kept: well below the time for which a key is announced."""
        return int(min(_LONGEST_MAX_AGE_S, self._config.announce / 2))

    def all(self) -> Sequence[SigningKey]:
        """Every key, oldest first."""
        return self._keys

    # --- the store ---------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the keys again. Raises StoreUnavailable, SealBroken."""
        async with self._database.read() as connection:
            await self._load(connection)

    async def maintain(self, now: float) -> None:
        """Make the key that is due, retire those that are through, and read them all. Raises StoreUnavailable."""
        await self.reload()
        if not self._is_due(now):
            return
        async with self._database.write() as connection:
            await self._database.lock(connection, _LOCK)
            await self._load(connection)  # another gateway may have been faster
            await self._make_next(connection, now)
            await self._retire(connection, now)
            await self._load(connection)

    async def rotate(self, now: float, *, announce_s: float) -> str:
        """Make a new key that signs after `announce_s`, whatever the schedule says; its `kid`."""
        async with self._database.write() as connection:
            await self._database.lock(connection, _LOCK)
            kid = await self._make(connection, now, now + announce_s)
            await self._load(connection)
            await self._retire(connection, now)
            await self._load(connection)
        return kid

    def _is_due(self, now: float) -> bool:
        return self._next_use(now) is not None or any(True for _ in self._through(now))

    def _next_use(self, now: float) -> float | None:
        """From when the next key must sign, if it is time to make it."""
        alive = [key for key in self._keys if key.is_published(now)]
        if not alive:
            return now
        newest = max(alive, key=lambda key: key.use_from)
        if newest.algorithm != self._config.algorithm:
            return now + self._config.announce
        if now >= newest.use_from + self._config.rotate - self._config.announce:
            return max(newest.use_from + self._config.rotate, now + self._config.announce)
        return None

    def _through(self, now: float) -> Iterable[tuple[SigningKey, float | None]]:
        """Keys to be changed: those replaced, with their last moment; those past it, with None."""
        for key in self._keys:
            later = [other.use_from for other in self._keys if other.use_from > key.use_from and other.use_from <= now]
            if key.retire_at is None and later:
                yield key, min(later) + self._kept_s
            elif key.private is not None and key.retire_at is not None and now >= key.retire_at:
                yield key, None

    async def _make_next(self, connection: AsyncConnection, now: float) -> None:
        use_from = self._next_use(now)
        if use_from is not None:
            await self._make(connection, now, use_from)

    async def _make(self, connection: AsyncConnection, now: float, use_from: float) -> str:
        algorithm = self._config.algorithm
        private = await asyncio.to_thread(make_private_key, algorithm)
        jwk = public_jwk(private, algorithm)
        octets = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        await connection.execute(
            insert(signing_keys).values(
                kid=jwk["kid"],
                algorithm=algorithm,
                public_jwk=jwk,
                private=self._sealer.seal(jwk["kid"], octets),
                created_at=now,
                use_from=use_from,
            )
        )
        logger.info("signing key %s made; it signs in %.0f s", jwk["kid"], use_from - now)
        return str(jwk["kid"])

    async def _retire(self, connection: AsyncConnection, now: float) -> None:
        for key, retire_at in list(self._through(now)):
            values: dict[str, Any] = {"private": b""} if retire_at is None else {"retire_at": retire_at}
            await connection.execute(update(signing_keys).where(signing_keys.c.kid == key.kid).values(**values))
            if retire_at is None:
                logger.info("signing key %s retired", key.kid)

    async def _load(self, connection: AsyncConnection) -> None:
        rows = (await connection.execute(select(signing_keys).order_by(signing_keys.c.use_from))).all()
        known = {key.kid: key for key in self._keys}
        self._keys = tuple(self._read(row, known.get(row.kid)) for row in rows)

    def _read(self, row: Row[Any], known: SigningKey | None) -> SigningKey:
        private = None
        if row.private:
            # Opening and parsing is for new keys only: this runs every few seconds.
            private = known.private if known is not None else self._open(row)
        return SigningKey(
            kid=row.kid,
            algorithm=row.algorithm,
            public_jwk=row.public_jwk,
            public=known.public if known is not None else jwt.PyJWK(row.public_jwk).key,
            private=private,
            created_at=row.created_at,
            use_from=row.use_from,
            retire_at=row.retire_at,
        )

    def _open(self, row: Row[Any]) -> PrivateKey:
        return cast(PrivateKey, load_der_private_key(self._sealer.open(row.kid, row.private), None))
