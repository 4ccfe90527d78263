"""The open store: transactions with a deadline, and the migrations at start.

A `write` is exclusive from its beginning (SQLite: BEGIN IMMEDIATE; PostgreSQL: rows are locked with FOR UPDATE where it
matters), so what it has read is still true when it commits. Within one process writers to SQLite wait in a queue of
their own instead of in SQLite's, which polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.issuer.store.sqlite import connector
from gateway.private_file import make_private

logger = logging.getLogger("gateway.issuer")

DEADLINE_S = 5.0  # of one transaction, waiting for its turn included
MIGRATION_DEADLINE_S = 60.0
_WRITES = "issuer_writes"


class StoreUnavailable(Exception):
    """The store did not do what was asked, or not in time; the text holds no address and no credential."""


class Database:
    """One store. Owns its connections; `open` before use, `close` at the end."""

    def __init__(self, url: str) -> None:
        """`url` as in the configuration: `sqlite://PATH` or `postgresql+asyncpg://…`."""
        self.is_sqlite = url.startswith("sqlite://")
        self._file = Path(url.removeprefix("sqlite://")) if self.is_sqlite else None
        self._turn: contextlib.AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if self.is_sqlite else contextlib.nullcontext()
        )
        self._engine = _sqlite(url.removeprefix("sqlite://")) if self.is_sqlite else _postgresql(url)

    async def open(self) -> None:
        """Bring the store up to date; several gateways may do so at once. Raises StoreUnavailable."""
        if self._file is not None:
            await asyncio.to_thread(_prepare_file, self._file)
        async with self._transaction(writes=True, deadline_s=MIGRATION_DEADLINE_S) as connection:
            await self.lock(connection, "migrations")
            await connection.run_sync(_migrate)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    def read(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that changes nothing. Raises StoreUnavailable."""
        return self._transaction(writes=False)

    def write(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that commits at the end of the block, or not at all. Raises StoreUnavailable."""
        return self._transaction(writes=True)

    async def lock(self, connection: AsyncConnection, name: str) -> None:
        """Until the end of this write nobody else holds the lock of this name.

        SQLite's writes exclude each other anyway.
        Several locks in one transaction are taken in sorted order.
        """
        if not self.is_sqlite:
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], byteorder="big", signed=True)
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    @contextlib.asynccontextmanager
    async def _transaction(self, *, writes: bool, deadline_s: float = DEADLINE_S) -> AsyncIterator[AsyncConnection]:
        try:
            async with (
                asyncio.timeout(deadline_s),
                self._turn if writes else contextlib.nullcontext(),
                self._engine.connect() as raw,
            ):
                connection = await raw.execution_options(**{_WRITES: writes})
                async with connection.begin():
                    yield connection
        except TimeoutError as exc:
            raise StoreUnavailable("the issuer's store did not answer in time") from exc
        except (OperationalError, InterfaceError, OSError) as exc:
            raise StoreUnavailable(f"the issuer's store failed: {_kind(exc)}") from exc
        except DBAPIError as exc:
            if exc.connection_invalidated:
                raise StoreUnavailable(f"the issuer's store is gone: {_kind(exc)}") from exc
            raise


def _kind(exc: SQLAlchemyError | OSError) -> str:
    """What failed, without the statement, its values or an address."""
    return type(exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc).__name__


def _prepare_file(path: Path) -> None:
    """Make the file for nobody else to read, before SQLite would with the mode that the umask leaves."""
    if not path.parent.is_dir():
        raise StoreUnavailable("the folder of the issuer's store does not exist")
    try:
        make_private(path)  # its side files get the same mode
        mode = path.stat().st_mode
    except OSError as exc:
        raise StoreUnavailable(f"the issuer's store failed: {exc.strerror}") from exc
    if mode & 0o077:
        logger.warning("the issuer's store, with its signing keys, is open to other users of this machine: chmod 600")


def _sqlite(path: str) -> AsyncEngine:
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # below that it shows the values of every statement
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", async_creator=connector(path, DEADLINE_S), hide_parameters=True
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # The driver's own transactions begin late and would let two writers read the same state.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # what was committed survives a power failure
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: str) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,  # an error that is logged must not show hashes and addresses
        pool_size=10,
        max_overflow=10,
        pool_timeout=DEADLINE_S,
        pool_pre_ping=True,
        connect_args={"timeout": DEADLINE_S, "command_timeout": DEADLINE_S},
    )


def _migrate(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # one line per start says nothing new
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
