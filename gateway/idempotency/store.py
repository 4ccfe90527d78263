"""The store that a configuration names; the contract of every store is in `gateway.idempotency.contract`."""

from __future__ import annotations

from pathlib import Path

from gateway.config.schema import Config
from gateway.idempotency.contract import Store
from gateway.idempotency.redis_store import RedisStore
from gateway.idempotency.sqlite_store import SqliteStore


def open_store(config: Config) -> Store | None:
    """The store for records, the denylist's servers unless the file says otherwise; None where there is neither.

    Nothing is connected before the first call. Raises ValueError with a public reason if the address cannot be read,
    OSError if the authority's file cannot.
    """
    own = config.idempotency
    if own.store is not None:
        url, ca = own.store, own.ca
    elif config.denylist is not None:
        url, ca = config.denylist.store, own.ca or config.denylist.ca
    else:
        return None
    path = url.removeprefix("sqlite://")
    if path == url:
        return RedisStore(url, own.prefix, ca, own.timeout)
    file = Path(path)
    if own.store is None:
        # Beside the denylist, not in it: each commit there wakes every gateway.
        file = file.with_name(f"{file.stem}.idempotency{file.suffix}")
    return SqliteStore(file, own.prefix, own.timeout)
