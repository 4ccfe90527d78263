"""What the command line does with a store: one connection, one command, no replica kept."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.config.schema import Denylist
from gateway.denylist.grammar import Entry
from gateway.denylist.replica import Replica
from gateway.denylist.store import open_store


async def revoke(config: Denylist, entry: Entry) -> None:
    """Put an entry into the store; returns once it has it. Raises `StoreError`, or ValueError for the address."""
    store = open_store(config, Replica(config.prefix))
    try:
        await store.add(entry)
    finally:
        await store.close()


async def remove(config: Denylist, key: str) -> bool:
    """Take an entry out, by its key without the prefix; False if there was none. Raises as `revoke`."""
    store = open_store(config, Replica(config.prefix))
    try:
        return await store.remove(key)
    finally:
        await store.close()


async def list_entries(config: Denylist, kind: str | None = None, issuer: str | None = None) -> AsyncIterator[Entry]:
    """The entries of the store, or those of a kind or issuer; one may come twice. Raises as `revoke`."""
    store = open_store(config, Replica(config.prefix))
    try:
        async for entry in store.entries(kind, issuer):
            yield entry
    finally:
        await store.close()
