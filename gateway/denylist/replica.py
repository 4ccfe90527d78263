"""The denylist in memory: what every request is checked against, without a network call.

Filled and kept current by a store (`gateway.denylist.store`), its only writer, on the event loop of its worker.

Sized for a million entries. Per kind and issuer the ids stand in 64 dictionaries, because one dictionary of a
million entries stalls the event loop for tens of milliseconds whenever it grows. An entry is one `str` and a
reference to a number that all entries of the same second share: whole seconds of expiry (rounded up: an entry may
deny up to a second longer than its TTL, never shorter) with, in the low 16 bits, the *mark* of the load that last
saw it. After a load, entries without its mark were not in the store any more. An entry by time has its cutoff above
those, in milliseconds (rounded up):

    … cutoff 50 bits | expiry 41 bits | mark 16 bits
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator
from typing import Final, NamedTuple

from gateway.denylist.grammar import BY_TIME, EVERYTHING, KINDS, Kind, cutoff, parse_key
from gateway.denylist.status import Status
from gateway.telemetry.sample import Sample

_SHARDS: Final = 64
_SHIFT: Final = 58  # the top six bits of a 64-bit hash, as a signed number: a list takes -32 … 31 as an index
_MARK_BITS: Final = 16
_MARK_MASK: Final = (1 << _MARK_BITS) - 1
_EXPIRY_MASK: Final = (1 << 41) - 1
_CUTOFF_SHIFT: Final = 57
_NEVER: Final = 1 << 40  # seconds: thirty thousand years
_ALWAYS: Final = (1 << 50) - 1  # milliseconds: likewise
_SLICE: Final = 1000
_SHARED_NUMBERS: Final = 1 << 17

_Shards = list[dict[str, int]]


def _shards() -> _Shards:
    return [{} for _ in range(_SHARDS)]


class _Group:
    """All entries of one kind and issuer."""

    __slots__ = ("is_by_time", "is_whole", "kind", "shards", "size", "start")

    def __init__(self, kind: Kind, issuer: str) -> None:
        self.kind = kind
        self.is_by_time = kind in BY_TIME
        self.is_whole = kind == "issuer"  # its one entry has no id
        self.shards = _shards()
        self.size = 0
        self.start = f"issuer:{issuer}" if self.is_whole else f"{kind}:{issuer}:"  # of every key


class _Denied:
    """All entries of one issuer: the shards of its groups, by kind, as `find` needs them."""

    __slots__ = ("client", "issuer", "key", "session", "subject", "token")

    def __init__(self, groups: dict[Kind, _Group]) -> None:
        self.token = groups["token"].shards
        self.session = groups["session"].shards
        self.subject = groups["subject"].shards
        self.client = groups["client"].shards
        self.key = groups["key"].shards
        self.issuer = groups["issuer"].shards


class Known(NamedTuple):
    """One entry as the replica knows it: its key, the value to write it back with, and when it ends (epoch seconds)."""

    key: str
    value: str
    expires_at: float | None


class Replica:
    """Every entry of the store, by issuer and kind, with how long ago the store was last heard.

    Thread-unsafe, like the event loop that owns it. Bounded by the store's content; entries that have ended deny
    nothing from that second on, and `expire` frees them.
    """

    def __init__(
        self,
        prefix: str = "gateway:deny:",
        *,
        max_staleness_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`prefix` stands before every key in the store; `open_store` replaces `max_staleness_s` by the configured."""
        self.prefix = prefix
        self.max_staleness_s = max_staleness_s
        self.status = Status()
        self.loaded = False
        self.version = 0  # grows with each change, so that a snapshot knows whether it is out of date
        self._monotonic = monotonic
        self._contact = -math.inf
        self._issuers: dict[str, _Denied] = {}
        self._groups: dict[str, dict[str, _Group]] = {kind: {} for kind in KINDS}
        self._mark = 0
        self._shared: dict[int, int] = {}
        self._watched: Container[str] = ()
        self._on_denial: Callable[[str], object] = str  # of no effect

    def __len__(self) -> int:
        return sum(group.size for group in self._all_groups())

    # --- asked by requests -------------------------------------------------------------------------------------------

    def find(
        self,
        issuer: str,
        token_id: str | None,
        session_id: str | None,
        subject: str | None,
        client_id: str | None,
        kid: str | None,
        issued_at: float | None,
        now: float,
    ) -> Kind | None:
        """The kind of an entry that denies such a token, or None.

        `issuer` is the name in the YAML; `now` and `issued_at` are epoch seconds. The kinds by time deny a token whose
        `iat` is absent. Written out kind by kind because every request passes here: about half a microsecond.
        """
        denied = self._issuers.get(issuer)
        if denied is None:
            return None
        if token_id is not None:
            packed = denied.token[hash(token_id) >> _SHIFT].get(token_id)
            if packed is not None and packed >> _MARK_BITS > now:
                return "token"
        if session_id is not None:
            packed = denied.session[hash(session_id) >> _SHIFT].get(session_id)
            if packed is not None and packed >> _MARK_BITS > now:
                return "session"
        if subject is not None:
            packed = denied.subject[hash(subject) >> _SHIFT].get(subject)
            if packed is not None and _denies_by_time(packed, issued_at, now):
                return "subject"
        if client_id is not None:
            packed = denied.client[hash(client_id) >> _SHIFT].get(client_id)
            if packed is not None and _denies_by_time(packed, issued_at, now):
                return "client"
        if kid is not None:
            packed = denied.key[hash(kid) >> _SHIFT].get(kid)
            if packed is not None and packed >> _MARK_BITS > now:
                return "key"
        packed = denied.issuer[0].get("")  # the empty string hashes to 0
        if packed is not None and _denies_by_time(packed, issued_at, now):
            return "issuer"
        return None

    # --- freshness ---------------------------------------------------------------------------------------------------

    def touch(self, contact: float) -> None:
        """The replica held everything the store held at `contact` (monotonic seconds); never moves back."""
        if contact > self._contact:
            self._contact = contact

    def staleness_s(self, monotonic: float) -> float:
        """Seconds since the last contact; infinite before the first."""
        return max(0.0, monotonic - self._contact)

    def is_stale(self, monotonic: float) -> bool:
        """Whether the store has been out of contact for longer than `max_staleness`, or was never reached."""
        return monotonic - self._contact > self.max_staleness_s

    def health(self) -> tuple[bool, str]:
        """Whether the denylist can be relied on, and a public sentence about it."""
        stale = self.is_stale(self._monotonic())
        seconds = self.staleness_s(self._monotonic())
        heard = "never heard from the store" if seconds == math.inf else f"last heard {seconds:.1f} s ago"
        parts = [f"{self.status.mode}, {len(self)} entries, {heard}", *self.status.troubles.values()]
        return self.loaded and not stale, "; ".join(parts)

    def samples(self) -> Iterator[Sample]:
        """Entries by kind, staleness, whether loaded, and everything of `Status`."""
        for kind, groups in self._groups.items():
            yield Sample("gateway_denylist_entries", {"kind": kind}, sum(group.size for group in groups.values()))
        yield Sample("gateway_denylist_staleness_seconds", {}, self.staleness_s(self._monotonic()))
        yield Sample("gateway_denylist_loaded", {}, float(self.loaded))
        yield from self.status.samples()

    # --- written by the store ----------------------------------------------------------------------------------------

    def next_mark(self) -> int:
        """A mark for a new load, unlike those of the 65,535 loads before."""
        self._mark = (self._mark + 1) & _MARK_MASK
        self._shared.clear()  # it only saves memory within one load; numbers in use live on in the entries
        return self._mark

    def put(self, key: str, value: str | None, expires_at: float | None, mark: int = 0) -> bool:
        """Take in one entry, new or changed; False if the key is none of ours.

        `expires_at` is in epoch seconds; None: never.
        """
        kind, _, rest = key.partition(":")
        issuer, _, ident = rest.partition(":")
        group: _Group | None
        try:
            group = self._groups[kind][issuer]
        except KeyError:
            group = self._new_group(key)
        if group is None or (ident == "") is not group.is_whole:
            self.status.count("ignored_keys")
            return False
        seconds = _NEVER if expires_at is None else math.ceil(expires_at)
        packed = seconds << _MARK_BITS | mark
        if group.is_by_time:
            packed |= _cutoff_ms(cutoff(value)) << _CUTOFF_SHIFT
        else:
            packed = self._share(packed)
        shard = group.shards[hash(ident) >> _SHIFT]
        if ident not in shard:
            group.size += 1
        shard[ident] = packed
        self.version += 1
        if key in self._watched:
            self._on_denial(key)
        return True

    def watch(self, keys: Container[str], on_denial: Callable[[str], object]) -> None:
        """Call `on_denial` after every entry that is taken in under one of `keys`, which may change at any time.

        One watcher; it is called in the middle of the store's work, so it does little and raises nothing.
        """
        self._watched = keys
        self._on_denial = on_denial

    def _share(self, packed: int) -> int:
        if len(self._shared) >= _SHARED_NUMBERS:
            self._shared.clear()
        return self._shared.setdefault(packed, packed)

    def remove(self, key: str) -> bool:
        """Forget one entry; False if there was none."""
        shard, ident, group = self._place(key)
        if group is None or shard.pop(ident, None) is None:
            return False
        group.size -= 1
        self.version += 1
        return True

    def known(self, key: str) -> Known | None:
        """The entry of a key, ended or not; None if there is none."""
        shard, ident, group = self._place(key)
        packed = shard.get(ident)
        return None if packed is None or group is None else _known(group.kind, key, packed)

    def mark(self, key: str, mark: int) -> None:
        """Note that this load has decided to keep an entry it did not see."""
        if (known := self.known(key)) is not None:
            self.put(key, known.value, known.expires_at, mark)

    def unmarked(self, mark: int, is_owned: Callable[[str], bool] | None = None) -> Iterator[list[str]]:
        """Keys the load of this mark has not seen, in slices, empty ones too, so that the caller can take turns."""
        for group in self._all_groups():
            for slice_ in _slices(group):
                keys = [group.start + ident for ident, packed in slice_ if packed & _MARK_MASK != mark]
                yield keys if is_owned is None else [key for key in keys if is_owned(key)]

    def everything(self) -> Iterator[list[Known]]:
        """All entries, a thousand at a time; changes between two slices may or may not show."""
        for group in self._all_groups():
            for slice_ in _slices(group):
                yield [_known(group.kind, group.start + ident, packed) for ident, packed in slice_]

    def expire(self, now: float) -> Iterator[int]:
        """Free the entries that have ended, slice by slice; yields how many each time."""
        for group in self._all_groups():
            for slice_ in _slices(group):
                ended = [ident for ident, packed in slice_ if _expiry(packed) <= now]
                for ident in ended:
                    # Between slices the entry may have gone, or come again with a longer life.
                    shard = group.shards[hash(ident) >> _SHIFT]
                    if ident in shard and _expiry(shard[ident]) <= now:
                        del shard[ident]
                        group.size -= 1
                yield len(ended)

    # --- where an entry stands ---------------------------------------------------------------------------------------

    def _all_groups(self) -> list[_Group]:
        return [group for groups in self._groups.values() for group in groups.values()]

    def _place(self, key: str) -> tuple[dict[str, int], str, _Group | None]:
        """The shard that would hold this key's entry, the id in it, and its group; None if there can be no entry."""
        kind, _, rest = key.partition(":")
        issuer, _, ident = rest.partition(":")
        group = self._groups.get(kind, {}).get(issuer)
        return ({}, "", None) if group is None else (group.shards[hash(ident) >> _SHIFT], ident, group)

    def _new_group(self, key: str) -> _Group | None:
        """The group of the first key of an issuer; None if the key is none of ours."""
        parsed = parse_key(key)
        if parsed is None:
            return None
        kind, issuer, _ = parsed
        groups: dict[Kind, _Group] = {each: _Group(each, issuer) for each in KINDS}
        for each, group in groups.items():
            self._groups[each][issuer] = group
        self._issuers[issuer] = _Denied(groups)
        return groups[kind]


def _slices(group: _Group) -> Iterator[list[tuple[str, int]]]:
    """The entries of a group, a thousand at a time: about a millisecond of work for whoever takes them."""
    for shard in group.shards:
        if shard:
            idents = list(shard)
            for start in range(0, len(idents), _SLICE):
                part = idents[start : start + _SLICE]
                yield [(ident, shard[ident]) for ident in part if ident in shard]


def _expiry(packed: int) -> int:
    return packed >> _MARK_BITS & _EXPIRY_MASK


def _cutoff_ms(moment: float) -> int:
    return _ALWAYS if moment == EVERYTHING else min(math.ceil(moment * 1000), _ALWAYS)


def _denies_by_time(packed: int, issued_at: float | None, now: float) -> bool:
    if _expiry(packed) <= now:
        return False
    return issued_at is None or issued_at * 1000 <= packed >> _CUTOFF_SHIFT


def _known(kind: Kind, key: str, packed: int) -> Known:
    seconds = _expiry(packed)
    expires_at = None if seconds >= _NEVER else float(seconds)
    if kind not in BY_TIME:
        return Known(key, "1", expires_at)
    cutoff_ms = packed >> _CUTOFF_SHIFT
    # A value that denies everything must stay one: any number would be read as a moment.
    return Known(key, "all" if cutoff_ms == _ALWAYS else f"{cutoff_ms / 1000:.3f}", expires_at)
