"""The denylist by hand: what `gateway revoke` and `gateway denylist` do. Each change leaves an audit line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.config.checks import suggestion
from gateway.config.schema import Config
from gateway.denylist.grammar import Entry, key_for, make_entry
from gateway.denylist.intake import Word, audit
from gateway.denylist.replica import Replica
from gateway.denylist.store import Store, StoreError, open_store

T = TypeVar("T")
UNSAID = Word("command_line", "unknown", "by hand")
_DEADLINE_S = 10.0  # for everything: connecting, asking a Sentinel, the command itself


class RevokeFailed(Exception):
    """The store did not take the entry; the text says why, without credentials."""


async def revoke(
    config: Config, kind: str, issuer: str, ident: str, *, now: float, ttl_s: float, word: Word = UNSAID
) -> str:
    """Denies from `now` (epoch seconds) on, for `ttl_s`; the key of the entry.

    ValueError for what cannot be an entry, RevokeFailed if the store did not take it.
    """
    _check_issuer(config, issuer)
    entry: Entry = make_entry(kind, issuer, ident, now=now, ttl_s=ttl_s)
    await _at_store(config, lambda store: store.add(entry))
    audit("revoked", entry.key, word, ttl_s=ttl_s)
    return entry.key


async def undo(config: Config, kind: str, issuer: str, ident: str, *, word: Word = UNSAID) -> bool:
    """Takes an entry out again; False if there was none. Errors as for `revoke`."""
    _check_issuer(config, issuer)
    key = key_for(kind, issuer, ident)
    was_there = await _at_store(config, lambda store: store.remove(key))
    if was_there:
        audit("removed", key, word)
    return was_there


async def listed(config: Config, kind: str | None = None, issuer: str | None = None) -> list[Entry]:
    """The entries of the store, or those of a kind or issuer, sorted by key. Errors as for `revoke`."""
    if issuer is not None:
        _check_issuer(config, issuer)

    async def gather(store: Store) -> list[Entry]:
        # By key, because a store may give an entry twice while it is being changed.
        found = {entry.key: entry async for entry in store.entries(kind, issuer)}
        return [found[key] for key in sorted(found)]

    return await _at_store(config, gather)


def _check_issuer(config: Config, issuer: str) -> None:
    if issuer not in config.issuers:
        hint = suggestion(issuer, config.issuers)
        raise ValueError(f"no issuer is called `{issuer}`" + (f"; {hint}" if hint else ""))


async def _at_store(config: Config, act: Callable[[Store], Awaitable[T]]) -> T:
    if config.denylist is None:
        raise ValueError("the configuration has no `denylist`, so nothing can be revoked")
    store = open_store(config.denylist, Replica(config.denylist.prefix))
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await act(store)
    except TimeoutError as exc:
        raise RevokeFailed("the denylist's store did not answer in time") from exc
    except StoreError as exc:
        raise RevokeFailed(str(exc)) from exc
    finally:
        await store.close()
