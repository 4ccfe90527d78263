"""The store that a configuration names; the contract of every store is in `gateway.denylist.contract`."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.config.schema import Denylist
from gateway.denylist.contract import Store, StoreError, StoreRefused, StoreUnavailable
from gateway.denylist.redis_store import RedisStore
from gateway.denylist.replica import Replica
from gateway.denylist.sqlite_store import SqliteStore

__all__ = ["Store", "StoreError", "StoreRefused", "StoreUnavailable", "open_store"]


def open_store(
    config: Denylist,
    replica: Replica,
    *,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Store:
    """The store of this configuration; nothing is connected before `run` or the first command.

    Raises ValueError with a public reason if the address cannot be read, OSError if the authority's file cannot.
    """
    replica.max_staleness_s = config.max_staleness
    if config.store.startswith("sqlite://"):
        return SqliteStore(config, replica, wall=wall, monotonic=monotonic)
    return RedisStore(config, replica, wall=wall, monotonic=monotonic)
