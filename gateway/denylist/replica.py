"""The denylist in memory: what every request is checked against, without a network call.

Filled and kept current by a store (`gateway.denylist.store`), its only writer, on the event loop of its worker.

Sized for a million entries: how they are packed stands in `group`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator
from typing import Final

from gateway.denylist.grammar import KINDS, Kind, parse_key
from gateway.denylist.group import MARK_BITS, MARK_MASK, SHIFT, Known, Moments, Presence, pack
from gateway.denylist.status import Status
from gateway.telemetry.sample import Sample

_SHARED_NUMBERS: Final = 1 << 17
_REMOVED_AT_ONCE: Final = 1000


class _Denied:
    """All entries of one issuer: the groups by kind, and their shards at hand for `find`."""

    __slots__ = (
        "by_client",
        "by_issuer",
        "by_key",
        "by_session",
        "by_subject",
        "by_token",
        "client",
        "groups",
        "issuer",
        "key",
        "session",
        "subject",
        "token",
    )

    def __init__(self, issuer: str) -> None:
        self.by_token: Presence = Presence("token", issuer)
        self.by_session: Presence = Presence("session", issuer)
        self.by_key: Presence = Presence("key", issuer)
        self.by_subject: Moments = Moments("subject", issuer)
        self.by_client: Moments = Moments("client", issuer)
        self.by_issuer: Moments = Moments("issuer", issuer)
        every = (self.by_token, self.by_session, self.by_subject, self.by_client, self.by_key, self.by_issuer)
        self.groups: dict[Kind, Presence] = {group.kind: group for group in every}
        self.token: list[dict[str, int]] = self.by_token.shards
        self.session: list[dict[str, int]] = self.by_session.shards
        self.subject: list[dict[str, int]] = self.by_subject.shards
        self.client: list[dict[str, int]] = self.by_client.shards
        self.key: list[dict[str, int]] = self.by_key.shards
        self.issuer: dict[str, int] = self.by_issuer.shards[0]  # its one id is empty, and hashes to 0


class Replica:
    """Every entry of the store, by issuer and kind, with how long ago the store was last heard.

    Thread-unsafe, like the event loop that owns it. Bounded by the store's content; entries that have ended deny
    nothing from that second on, and `expire` frees them.
    """

    __slots__ = (
        "_contact",
        "_groups",
        "_issuers",
        "_mark",
        "_monotonic",
        "_on_denial",
        "_shared",
        "_watched",
        "loaded",
        "max_staleness_s",
        "prefix",
        "status",
        "version",
    )

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
        self._groups: dict[str, dict[str, Presence]] = {kind: {} for kind in KINDS}
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
        `iat` is absent. Written out kind by kind because every request passes here: about half a microsecond. Of a kind
        that has no entries nothing is looked at, as the token's own strings are no longer in the nearest caches either.
        """
        denied: _Denied | None = self._issuers.get(issuer)
        if denied is None:
            return None
        shard: dict[str, int]  # the compiled form looks into it directly
        if token_id is not None and denied.by_token.size:
            shard = denied.token[hash(token_id) >> SHIFT]
            packed = shard.get(token_id)
            if packed is not None and packed >> MARK_BITS > now:
                return "token"
        if session_id is not None and denied.by_session.size:
            shard = denied.session[hash(session_id) >> SHIFT]
            packed = shard.get(session_id)
            if packed is not None and packed >> MARK_BITS > now:
                return "session"
        if subject is not None and denied.by_subject.size:
            shard = denied.subject[hash(subject) >> SHIFT]
            row = shard.get(subject)
            if row is not None and denied.by_subject.denies(subject, row, issued_at, now):
                return "subject"
        if client_id is not None and denied.by_client.size:
            shard = denied.client[hash(client_id) >> SHIFT]
            row = shard.get(client_id)
            if row is not None and denied.by_client.denies(client_id, row, issued_at, now):
                return "client"
        if kid is not None and denied.by_key.size:
            shard = denied.key[hash(kid) >> SHIFT]
            packed = shard.get(kid)
            if packed is not None and packed >> MARK_BITS > now:
                return "key"
        row = denied.issuer.get("")
        if row is not None and denied.by_issuer.denies("", row, issued_at, now):
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
        self._mark = (self._mark + 1) & MARK_MASK
        self._shared.clear()  # it only saves memory within one load; numbers in use live on in the entries
        return self._mark

    def put(self, key: str, value: str | None, expires_at: float | None, mark: int = 0) -> bool:
        """Take in one entry, new or changed; False if the key is none of ours.

        `expires_at` is in epoch seconds; None: never.
        """
        kind, _, rest = key.partition(":")
        issuer, _, ident = rest.partition(":")
        try:
            group: Presence | None = self._groups[kind][issuer]
        except KeyError:
            group = self._new_group(key)
        if group is None or (ident == "") is not group.is_whole:
            self.status.count("ignored_keys")
            return False
        packed = pack(expires_at, mark)
        if not group.is_by_time:
            packed = self._share(packed)
        group.put(ident, value, packed)
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
        group, ident = self._place(key)
        if group is None or not group.remove(ident):
            return False
        self.version += 1
        return True

    def known(self, key: str) -> Known | None:
        """The entry of a key, ended or not; None if there is none."""
        group, ident = self._place(key)
        return None if group is None else group.known(ident)

    def mark(self, key: str, mark: int) -> None:
        """Note that this load has decided to keep an entry it did not see."""
        if (known := self.known(key)) is not None:
            self.put(key, known.value, known.expires_at, mark)

    def unmarked(self, mark: int, is_owned: Callable[[str], bool] | None = None) -> Iterator[list[str]]:
        """Keys the load of this mark has not seen, in slices, empty ones too, so that the caller can take turns."""
        for group in self._all_groups():
            for idents in group.idents():
                keys = [
                    group.start + ident
                    for ident in idents
                    if (packed := group.packed(ident)) is not None and packed & MARK_MASK != mark
                ]
                yield keys if is_owned is None else [key for key in keys if is_owned(key)]

    def everything(self) -> Iterator[list[Known]]:
        """All entries, a thousand at a time; changes between two slices may or may not show."""
        for group in self._all_groups():
            for idents in group.idents():
                yield [known for ident in idents if (known := group.known(ident)) is not None]

    def expire(self, now: float) -> Iterator[int]:
        """Free the entries that have ended, slice by slice; yields how many each time."""
        limit = (math.floor(now) + 1) << MARK_BITS
        for group in self._all_groups():
            for idents in group.ended(limit):
                yield 0  # to look through a dictionary took its time
                for start in range(0, len(idents), _REMOVED_AT_ONCE):
                    yield _remove_ended(group, idents[start : start + _REMOVED_AT_ONCE], limit)

    # --- where an entry stands ---------------------------------------------------------------------------------------

    def _all_groups(self) -> list[Presence]:
        return [group for groups in self._groups.values() for group in groups.values()]

    def _place(self, key: str) -> tuple[Presence | None, str]:
        """The group that would hold this key's entry, and its id there; None if there can be no entry."""
        kind, _, rest = key.partition(":")
        issuer, _, ident = rest.partition(":")
        return self._groups.get(kind, {}).get(issuer), ident

    def _new_group(self, key: str) -> Presence | None:
        """The group of the first key of an issuer; None if the key is none of ours."""
        parsed = parse_key(key)
        if parsed is None:
            return None
        kind, issuer, _ = parsed
        denied = self._issuers[issuer] = _Denied(issuer)
        for each, group in denied.groups.items():
            self._groups[each][issuer] = group
        return denied.groups[kind]


def _remove_ended(group: Presence, idents: list[str], limit: int) -> int:
    """Free those of the entries that still are below `limit`; some may have been put again in the meantime."""
    ended = 0
    for ident in idents:
        packed = group.packed(ident)
        if packed is not None and packed < limit:
            ended += group.remove(ident)
    return ended
