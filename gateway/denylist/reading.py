"""Reading entries from one Redis master: pipelined, with redirections followed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from gateway.denylist.grammar import is_by_time
from gateway.redis.link import Command, Link, Reply, ReplyError

GONE: Final = -2
"""PTTL of a key that does not exist; -1: it never expires."""

BATCH: Final = 500
"""Keys in one pipeline: a millisecond or two of work for either side."""

Found = tuple[str | None, int]
"""One key as a server has it: its value where that was asked for, and PTTL in milliseconds."""

ReadElsewhere = Callable[[str, ReplyError], Awaitable[Found]]
"""Reads one key where a redirection says that it is."""


class Reading:
    """How entries under a prefix are asked for, and what the replies mean."""

    def __init__(self, prefix: str, read_elsewhere: ReadElsewhere) -> None:
        self._prefix = prefix
        self._read_elsewhere = read_elsewhere

    async def read(self, link: Link, keys: list[str], *, with_values: bool) -> list[Found]:
        """These keys as the server has them now, in their order. Raises `LinkLost` or `ReplyError`."""
        replies = await link.execute(*self.commands(keys, with_values=with_values))
        return await self.found(keys, replies, with_values=with_values)

    def commands(self, keys: Iterable[str], *, with_values: bool) -> Iterator[Command]:
        """PTTL of each key, after its value where that matters: presence alone denies for most kinds."""
        prefix = self._prefix
        for key in keys:
            if with_values or is_by_time(key):
                yield ("GET", prefix + key)
            yield ("PTTL", prefix + key)

    async def found(self, keys: list[str], replies: list[Reply], *, with_values: bool) -> list[Found]:
        """What the replies to `commands` say."""
        found: list[Found] = []
        answers = iter(replies)
        for key in keys:
            value = next(answers) if with_values or is_by_time(key) else None
            ttl_ms = next(answers)
            if type(ttl_ms) is ReplyError:
                if ttl_ms.code not in ("MOVED", "ASK"):
                    raise ttl_ms
                value, ttl_ms = await self._read_elsewhere(key, ttl_ms)
            # A key of another type has no value that could be a moment: it denies everything.
            found.append((value if type(value) is str else None, ttl_ms))
        return found


def batches(keys: list[str]) -> Iterator[list[str]]:
    """The keys, as many at a time as fit one pipeline."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]
