"""Connections to SQLite that let go of what they hold when the request they work for is broken off.

SQLite works in a thread, which no cancellation reaches. A connection that was given up while its thread was at work
keeps its transaction, and with it the only write lock of the store, for as long as one of its cursors is remembered
by somebody, if only by a traceback: a client that hangs up at the wrong moment would stop everybody's log-in. So the
thread rolls back as soon as it is through with what it was doing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import aiosqlite

_ROWS_AT_ONCE = 64  # the driver's own default


class LettingGo(aiosqlite.Connection):
    """A connection whose transaction ends with the operation that was broken off."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]  # the driver's own
        except asyncio.CancelledError:
            if self._connection is not None:
                # Behind the operation, in front of the closing that follows; without a transaction it does nothing.
                self._tx.put_nowait((None, self._connection.rollback))
            raise


def connector(path: str, busy_s: float) -> Callable[[], LettingGo]:
    """Makes connections to this file that wait so long for others' write locks."""

    def connect() -> LettingGo:
        connection = LettingGo(lambda: sqlite3.connect(path, timeout=busy_s), _ROWS_AT_ONCE)
        connection._thread.daemon = True  # as with the dialect's own connections: it never keeps the process alive
        return connection

    return connect
