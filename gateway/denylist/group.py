"""The entries of one kind and issuer, packed: what a million of them cost is decided here.

The ids stand in 64 dictionaries, because one dictionary of a million entries stalls the event loop for tens of
milliseconds whenever it grows. Beside its id an entry has one number, *packed*: whole seconds of expiry (rounded up: an
entry may deny up to a second longer than its TTL, never shorter), and in the low 16 bits the *mark* of the load that
last saw it. After a load, entries without its mark were not in the store any more.

    Presence   dictionary: id → packed       entries of the same second share one number object: 8 bytes each
    Moments    dictionary: id → row; arrays: row → packed, row → cutoff in seconds (rounded up to milliseconds)

A moment is nearly always unlike every other, and a number object of its own would cost 48 bytes; a row of two arrays
costs 16. The row numbers are small, and shared by all dictionaries.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final, NamedTuple

from gateway.denylist.grammar import EVERYTHING, Kind, cutoff

SHIFT: Final = 58
"""Which dictionary: the top six bits of an id's 64-bit hash, as a signed number; a list takes -32 … 31 as an index."""

MARK_BITS: Final = 16
MARK_MASK: Final = (1 << MARK_BITS) - 1

_SHARDS: Final = 64
_NEVER: Final = 1 << 40  # seconds: thirty thousand years
_NO_END: Final = (1 << 64) - 1
_SLICE: Final = 1000

_row_numbers: Final[list[int]] = []
"""One object for each row number, as many as the largest dictionary ever had rows."""


class Known(NamedTuple):
    """One entry as the replica knows it: its key, the value to write it back with, and when it ends (epoch seconds)."""

    key: str
    value: str
    expires_at: float | None


def pack(expires_at: float | None, mark: int) -> int:
    """Expiry (epoch seconds; None: never) and mark as one number."""
    return (_NEVER if expires_at is None else math.ceil(expires_at)) << MARK_BITS | mark


class Presence:
    """Entries whose presence alone denies. `shards` is read by the replica's `find`."""

    __slots__ = ("_soonest", "kind", "shards", "size", "start")

    is_by_time: ClassVar[bool] = False
    is_whole = False  # whether its one entry has no id

    def __init__(self, kind: Kind, issuer: str) -> None:
        self.kind = kind
        self.shards: list[dict[str, int]] = [{} for _ in range(_SHARDS)]
        self.size = 0
        self.start = f"{kind}:{issuer}:"  # of every key
        self._soonest = [_NO_END] * _SHARDS  # no entry of the dictionary has a lower packed number

    def put(self, ident: str, value: str | None, packed: int) -> None:
        """Take in an entry, new or changed; the value of these kinds means nothing and is not kept."""
        number = hash(ident) >> SHIFT
        shard = self.shards[number]
        if ident not in shard:
            self.size += 1
        shard[ident] = packed
        self._note_end(number, packed)

    def _note_end(self, number: int, packed: int) -> None:
        if packed < self._soonest[number]:
            self._soonest[number] = packed

    def remove(self, ident: str) -> bool:
        """Forget an entry; False if there was none."""
        if self.shards[hash(ident) >> SHIFT].pop(ident, None) is None:
            return False
        self.size -= 1
        return True

    def packed(self, ident: str) -> int | None:
        """Expiry and mark of an entry; None if there is none."""
        return self.shards[hash(ident) >> SHIFT].get(ident)

    def known(self, ident: str) -> Known | None:
        """An entry, ended or not; None if there is none."""
        packed = self.packed(ident)
        if packed is None:
            return None
        seconds = packed >> MARK_BITS
        return Known(self.start + ident, self._value(ident), None if seconds >= _NEVER else float(seconds))

    def ended(self, limit: int) -> Iterator[list[str]]:
        """Ids whose entries have a packed number below `limit`, by dictionary: some milliseconds of work at a million.

        A dictionary that cannot have any is not looked through. An entry may be put again before its id is looked at.
        """
        for number, soonest in enumerate(self._soonest):
            if soonest < limit:
                yield self._look_through(number, limit)

    def _look_through(self, number: int, limit: int) -> list[str]:
        ended, soonest = [], _NO_END
        for ident, packed in self._all_packed(number):
            if packed < limit:
                ended.append(ident)
            elif packed < soonest:
                soonest = packed
        self._soonest[number] = soonest
        return ended

    def _all_packed(self, number: int) -> Iterable[tuple[str, int]]:
        return self.shards[number].items()

    def _value(self, ident: str) -> str:
        return "1"

    def idents(self) -> Iterator[list[str]]:
        """All ids, a thousand at a time: about a millisecond of work for whoever takes them.

        Changes between two slices may or may not show, so an id may have gone by the time it is looked at.
        """
        for shard in self.shards:
            if shard:
                idents = list(shard)
                for start in range(0, len(idents), _SLICE):
                    yield idents[start : start + _SLICE]


class Moments(Presence):
    """Entries that deny what was issued at or before a moment."""

    is_by_time = True

    __slots__ = ("_cutoffs", "_free", "_packed", "is_whole")

    def __init__(self, kind: Kind, issuer: str) -> None:
        super().__init__(kind, issuer)
        self.is_whole = kind == "issuer"
        if self.is_whole:
            self.start = f"issuer:{issuer}"
        self._packed = [array("Q") for _ in range(_SHARDS)]
        self._cutoffs = [array("d") for _ in range(_SHARDS)]
        self._free: list[list[int]] = [[] for _ in range(_SHARDS)]  # rows of entries that have gone

    def denies(self, ident: str, row: int, issued_at: float | None, now: float) -> bool:
        """Whether the entry in this row, which `shards` gave for the id, denies a token issued then."""
        number = hash(ident) >> SHIFT
        # The usual one first: a token issued after the last sign-out.
        if issued_at is not None and issued_at > self._cutoffs[number][row]:
            return False
        return self._packed[number][row] >> MARK_BITS > now

    def put(self, ident: str, value: str | None, packed: int) -> None:
        """Take in an entry, new or changed."""
        moment = cutoff(value)
        if moment != EVERYTHING:
            moment = math.ceil(moment * 1000) / 1000
        number = hash(ident) >> SHIFT
        shard = self.shards[number]
        row = shard.get(ident)
        if row is None:
            self.size += 1
            shard[ident] = row = self._new_row(number)
        self._packed[number][row] = packed
        self._cutoffs[number][row] = moment
        self._note_end(number, packed)

    def _new_row(self, number: int) -> int:
        if self._free[number]:
            return self._free[number].pop()
        row = len(self._packed[number])
        self._packed[number].append(0)
        self._cutoffs[number].append(0.0)
        if row == len(_row_numbers):
            _row_numbers.append(row)
        return _row_numbers[row]

    def remove(self, ident: str) -> bool:
        """Forget an entry; False if there was none. Its row is used again."""
        number = hash(ident) >> SHIFT
        row = self.shards[number].pop(ident, None)
        if row is None:
            return False
        self.size -= 1
        self._free[number].append(row)
        return True

    def packed(self, ident: str) -> int | None:
        """Expiry and mark of an entry; None if there is none."""
        number = hash(ident) >> SHIFT
        row = self.shards[number].get(ident)
        return None if row is None else self._packed[number][row]

    def _all_packed(self, number: int) -> Iterable[tuple[str, int]]:
        shard = self.shards[number]
        return zip(shard, map(self._packed[number].__getitem__, shard.values()), strict=True)

    def _value(self, ident: str) -> str:
        number = hash(ident) >> SHIFT
        moment = self._cutoffs[number][self.shards[number][ident]]
        # A value that denies everything must stay one: any number would be read as a moment.
        return "all" if moment == EVERYTHING else f"{moment:.3f}"
