"""What a token's worth rests on besides time and the denylist: the key that signed it, and its status in a list.

A request looks at both anew. Whoever holds on to a token for longer, as a live connection does, is entered here under
what its token rests on, so that a key that leaves its set, or a list that changes, leads to those concerned:

    key source ── key ──▶ who rests on it       looked at: once per source and key
    status list ─────────▶ who rests on it      looked at: once per list; each place only when there is another list

What cannot be told is not lost: while a list or a key set cannot be had, everybody stands as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.keys.source import KeySource
from gateway.tokens.claims import Token
from gateway.tokens.status_cache import StatusLists
from gateway.tokens.status_list import StatusList, StatusReference
from gateway.tokens.verifier import Signer, signer_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Standing:
    """What one token rests on; None where there is nothing of the kind."""

    signer: Signer | None
    lists: StatusLists | None
    reference: StatusReference | None

    @classmethod
    def of(cls, token: Token, statuses: Mapping[str, StatusLists]) -> Standing:
        """`statuses` are the lists of the issuers that have some, by name."""
        lists = statuses.get(token.issuer)
        reference = None if lists is None else lists.reference(token)
        return cls(signer_of(token), lists if reference is not None else None, reference)

    def is_lost(self) -> bool:
        """Whether a request with this token would be refused now, by what is known."""
        if self.signer is not None and self.signer.is_withdrawn:
            return True
        if self.lists is None or self.reference is None:
            return False
        found = self.lists.known(self.reference.uri)
        return found is not None and not found.is_valid(self.reference.index)


@dataclass(slots=True)
class _List(Generic[T]):
    """Who rests on one list, and the list as it was last looked at."""

    places: dict[T, int] = field(default_factory=dict)
    seen: StatusList | None = None


class Dependents(Generic[T]):
    """Everybody who rests on a key or a list. Each comes with the same standing as it goes."""

    __slots__ = ("_by_list", "_by_source")

    def __init__(self) -> None:
        self._by_source: dict[KeySource, dict[str, dict[T, None]]] = {}
        self._by_list: dict[tuple[StatusLists, str], _List[T]] = {}

    def add(self, dependent: T, standing: Standing) -> None:
        """Someone who rests on this."""
        signer, lists, reference = standing.signer, standing.lists, standing.reference
        if signer is not None:
            self._by_source.setdefault(signer.keys, {}).setdefault(signer.identity, {})[dependent] = None
        if lists is not None and reference is not None:
            self._by_list.setdefault((lists, reference.uri), _List()).places[dependent] = reference.index

    def remove(self, dependent: T, standing: Standing) -> None:
        """They are gone."""
        signer, lists, reference = standing.signer, standing.lists, standing.reference
        if signer is not None:
            by_key = self._by_source[signer.keys]
            del by_key[signer.identity][dependent]
            if not by_key[signer.identity]:
                del by_key[signer.identity]
                if not by_key:
                    del self._by_source[signer.keys]
        if lists is not None and reference is not None:
            watched = self._by_list[lists, reference.uri]
            del watched.places[dependent]
            if not watched.places:
                del self._by_list[lists, reference.uri]

    def on(self, keys: KeySource) -> Iterator[T]:
        """Who rests on any key of this source. Nobody goes meanwhile."""
        for dependents in self._by_source.get(keys, {}).values():
            yield from dependents

    def shaken(self) -> Iterator[T]:
        """Who may have lost what they rest on since the last look; keeps their lists fresh. Nobody goes meanwhile."""
        for source, by_key in self._by_source.items():
            key_set = source.key_set
            if key_set is not None:
                for identity in by_key.keys() - key_set.identities:
                    yield from by_key[identity]
        for (lists, uri), watched in self._by_list.items():
            found = lists.keep(uri)
            if found is not None and found is not watched.seen:
                watched.seen = found
                yield from (dependent for dependent, index in watched.places.items() if not found.is_valid(index))
