"""Remembered verifications: the costly half of checking a token, done once.

Filled by the verifier with tokens whose signature held, never with refusals: a flood of forged tokens cannot push out
one genuine entry. An entry is good while its key is in its issuer's set and its times hold, and the verifier looks at
both on every request; what changes outside the token (denylist, policy) is never remembered here. Bounded by entries
and by the bytes of the tokens. Eviction gives a second chance: the oldest entry goes, unless it was used since it was
last looked at. One owner, one thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.keys.source import KeySource
from gateway.telemetry.sample import Sample
from gateway.tokens.claims import Token

_LOOKS = 8  # entries given a second chance per insertion, so that no insertion takes long


@dataclass(slots=True, eq=False, repr=False)
class Remembered:
    """A token whose signature held, with what must still be true when it comes again."""

    token: Token
    keys: KeySource
    key_identity: str  # in `keys.key_set.identities` while the signing key is trusted
    valid_from: float  # epoch seconds, leeway included
    valid_until: float  # the first moment at which it is no longer accepted
    used: bool = False


class TokenCache:
    """Raw token → `Remembered`. A failed refresh of keys leaves it as it is; a withdrawn key ends its entries."""

    __slots__ = ("_bytes", "_capacity", "_entries", "_max_bytes", "hits", "misses")

    def __init__(self, capacity: int = 10_000, max_bytes: int = 16 * 2**20) -> None:
        """`capacity` in tokens, `max_bytes` of raw tokens; decoded, a token takes some four times as much again."""
        self._entries: OrderedDict[bytes, Remembered] = OrderedDict()
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, raw: bytes) -> Remembered | None:
        """The entry of a token, which its caller must still judge."""
        entry = self._entries.get(raw)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        entry.used = True
        return entry

    def put(self, raw: bytes, entry: Remembered) -> None:
        """Remembers a verified token, at the cost of older ones."""
        if raw in self._entries:
            self.forget(raw)
        if len(raw) > self._max_bytes or self._capacity < 1:
            return
        while len(self._entries) >= self._capacity or self._bytes + len(raw) > self._max_bytes:
            self._evict()
        self._entries[raw] = entry
        self._bytes += len(raw)

    def forget(self, raw: bytes) -> None:
        """Drops a token's entry if there is one."""
        if self._entries.pop(raw, None) is not None:
            self._bytes -= len(raw)

    def _evict(self) -> None:
        entry: Remembered
        raw, entry = self._entries.popitem(False)
        looks = _LOOKS
        while entry.used and looks:
            looks -= 1
            entry.used = False
            self._entries[raw] = entry  # as the newest
            raw, entry = self._entries.popitem(False)
        self._bytes -= len(raw)

    def samples(self) -> Iterable[Sample]:
        """Hits, misses and size."""
        yield Sample("gateway_token_cache_hits_total", {}, self.hits)
        yield Sample("gateway_token_cache_misses_total", {}, self.misses)
        yield Sample("gateway_token_cache_entries", {}, len(self._entries))
