"""Connections that outlive the moment they were allowed: found when their token is revoked or expires, and ended.

    enter ──SETTLE_S later, if still open──▶ checked again ──▶ found by key and by time ──leave──▶ forgotten
      └───────────at once, if it lasts by its nature──────────────▲
                                                │                  │ denied, expired, going away
                                                └──────────────────┴──▶ told to end, a few per turn of the loop

The index has the denylist's own keys (`subject:main:alice`), so a change of the replica finds those concerned with one
look-up, however many others are open. Whether they are denied the replica decides, by the rule that decides for
requests. A heap has the moments of expiry; one task sleeps until the next. Once a second it looks whether a signing key
has left its set, or a status list was replaced, and finds who rests on those in `gateway.tokens.standing`.

A response shorter than `SETTLE_S` is never cut, for its client could not tell that from a broken upstream, and costs
one entry in a dictionary. Being checked when they settle makes up for the time between the request's own check and the
index, so no revocation falls between the two.

What ending means is the connection's own affair: a WebSocket closes with 1008 and the code, an event stream gets a last
event, any other response is cut, which the client sees as an incomplete message.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol
from weakref import WeakSet

from gateway.denylist.grammar import keys_naming
from gateway.denylist.replica import Replica
from gateway.errors import TokenExpired, TokenRevoked
from gateway.keys.source import KeySource
from gateway.telemetry.sample import Sample
from gateway.tokens.claims import Token
from gateway.tokens.standing import Dependents, Standing
from gateway.tokens.status_cache import StatusLists

Kind = Literal["websocket", "events", "response"]
KINDS: Final[tuple[Kind, ...]] = ("websocket", "events", "response")
GOING_AWAY: Final = "going_away"
REASONS: Final = (TokenRevoked.code, TokenExpired.code, GOING_AWAY)

SETTLE_S: Final = 0.5  # what has not outlived this, or the tick after it, is an ordinary response and may finish
SLICE: Final = 10  # connections told in one turn of the loop, so that ten thousand do not stall it
_LONGEST_SLEEP_S: Final = 30.0  # the wall clock may be set meanwhile
_LOOK_S: Final = 1.0  # at keys and status lists, while somebody rests on one
_NO_LISTS: Final[Mapping[str, StatusLists]] = MappingProxyType({})
_SHORTEST_SLEEP_S: Final = 0.001


class Live(Protocol):
    """A connection as it is seen here."""

    @property
    def kind(self) -> Kind:
        """What it is, for the numbers and for the end of the process."""

    def end(self, code: str) -> None:
        """End soon, without waiting: for one of `REASONS`. Called once at the most."""


class _Ticket(NamedTuple):
    """What a connection that may last has come in with."""

    token: Token | None  # None: nothing that becomes of a token ends it
    valid_until: Callable[[Token], float]
    statuses: Mapping[str, StatusLists]


class _Entry:
    """One settled connection."""

    __slots__ = ("connection", "is_gone", "is_queued", "keys", "kind", "must_go", "standing", "token", "until")

    def __init__(self, connection: Live, ticket: _Ticket) -> None:
        token = ticket.token
        self.connection: Live | None = connection  # None: it has left
        self.kind = connection.kind
        self.token = token
        self.keys = () if token is None else tuple(_keys(token))
        self.standing = None if token is None else Standing.of(token, ticket.statuses)
        self.until = math.inf if token is None else ticket.valid_until(token)  # epoch seconds
        self.is_queued = False  # to be looked at; stays so once it was told to end
        self.must_go = False  # whatever its token says, the process stops
        self.is_gone = False

    def __lt__(self, other: _Entry) -> bool:
        return self.until < other.until


class LiveConnections:
    """All live connections of one worker. Bounded by the connections of the server; owned by its event loop."""

    def __init__(self, replica: Replica | None, *, wall: Callable[[], float] = time.time) -> None:
        """`replica` is None where nothing can be revoked; `wall` gives epoch seconds."""
        self._replica = replica
        self._wall = wall
        self._unsettled: dict[Live, _Ticket] = {}
        self._settling_next: dict[Live, _Ticket] = {}  # a whole tick old
        self._settling: asyncio.TimerHandle | None = None
        self._entries: dict[Live, _Entry] = {}
        self._by_key: dict[str, dict[_Entry, None]] = {}
        self._dependents: Dependents[_Entry] = Dependents()
        self._distrusted: WeakSet[KeySource] = WeakSet()  # of issuers that are no longer configured
        self._expiring: list[_Entry] = []  # a heap; who is gone stays until it comes up, or too many are
        self._sooner = asyncio.Event()
        self._queued: deque[_Entry] = deque()  # to be judged, and told if need be, in order
        self._ended = {(kind, reason): 0 for kind in KINDS for reason in REASONS}
        if replica is not None:
            replica.watch(self._by_key, self._denied)

    def __len__(self) -> int:
        """How many have settled."""
        return len(self._entries)

    # --- coming and going --------------------------------------------------------------------------------------------

    def enter(
        self,
        connection: Live,
        token: Token | None,
        valid_until: Callable[[Token], float],
        *,
        lasts: bool = False,
        statuses: Mapping[str, StatusLists] = _NO_LISTS,
    ) -> None:
        """Take in a connection that may last, or does; `valid_until` tells when a token expires, in epoch seconds.

        With `token` None only the end of the process ends it. `statuses` are the lists of issuers that have some.
        """
        ticket = _Ticket(token, valid_until, statuses)
        if lasts:
            self._settle(connection, ticket)
            return
        self._unsettled[connection] = ticket
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._tick)

    def leave(self, connection: Live) -> None:
        """It has ended, for whatever reason."""
        if self._unsettled.pop(connection, None) or self._settling_next.pop(connection, None):
            return
        entry = self._entries.pop(connection, None)
        if entry is None:
            return
        entry.is_gone = True
        entry.connection = None  # the heap may hold the entry for long, but not all that was this connection
        for key in entry.keys:
            group = self._by_key[key]
            del group[entry]
            if not group:
                del self._by_key[key]
        if entry.standing is not None:
            self._dependents.remove(entry, entry.standing)
        if len(self._expiring) > 2 * len(self._entries) + 1000:
            self._expiring = [entry for entry in self._expiring if not entry.is_gone]
            heapq.heapify(self._expiring)

    def _tick(self) -> None:
        """Settle what has been open for a whole tick; what came during the last one waits for the next."""
        due, self._settling_next, self._unsettled = self._settling_next, self._unsettled, {}
        for connection, ticket in due.items():
            self._settle(connection, ticket)
        waiting = bool(self._settling_next)
        self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._tick) if waiting else None

    def _settle_all(self) -> None:
        for unsettled in (self._settling_next, self._unsettled):
            while unsettled:
                self._settle(*unsettled.popitem())

    def _settle(self, connection: Live, ticket: _Ticket) -> None:
        entry = _Entry(connection, ticket)
        self._entries[connection] = entry
        for key in entry.keys:
            self._by_key.setdefault(key, {})[entry] = None
        if entry.standing is not None:
            self._dependents.add(entry, entry.standing)
        if entry.until < math.inf:
            if not self._expiring or entry.until < self._expiring[0].until:
                self._sooner.set()
            heapq.heappush(self._expiring, entry)
        self._queue(entry)  # it was allowed a moment ago, by what was known then

    # --- the end -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """End what expires, and what has lost its key or its status, until cancelled."""
        while True:
            self._sooner.clear()
            pause = min(self._expire(self._wall()), _LOOK_S)
            self._look()
            try:
                async with asyncio.timeout(pause):
                    await self._sooner.wait()
            except TimeoutError:
                pass

    def _expire(self, now: float) -> float:
        """End what has expired; seconds until the next look."""
        heap = self._expiring
        while heap and heap[0].until <= now:
            self._queue(heapq.heappop(heap))
        soon = heap[0].until - now if heap else _LONGEST_SLEEP_S
        return max(_SHORTEST_SLEEP_S, min(soon, _LONGEST_SLEEP_S))

    def _look(self) -> None:
        """Judge those who rest on a key or a status list that is not what it was."""
        for entry in self._dependents.shaken():
            self._queue(entry)

    def distrust(self, keys: KeySource) -> None:
        """An issuer is no longer configured: what it has signed is worth nothing any more, whoever lives on it."""
        self._distrusted.add(keys)
        for entry in self._dependents.on(keys):
            self._queue(entry)

    def end_all(self) -> None:
        """The process is about to stop: end what would not end by itself. Other responses may still complete."""
        self._settle_all()
        for entry in self._entries.values():
            if entry.kind != "response":
                entry.must_go = True
                self._queue(entry)

    def _denied(self, key: str) -> None:
        """The replica has taken in an entry under this key, which somebody's token has."""
        for entry in self._by_key[key]:
            self._queue(entry)

    def _judge(self, entry: _Entry) -> str:
        reason = "" if entry.token is None else self.verdict(entry.token, entry.until, entry.standing)
        return reason or (GOING_AWAY if entry.must_go else "")

    def verdict(self, token: Token, until: float, standing: Standing | None) -> str:
        """Why a connection with this token should end now, as an error's code; "" if it may go on."""
        now = self._wall()
        if self._replica is not None and _is_denied(self._replica, token, now):
            return TokenRevoked.code
        if standing is not None:
            signer = standing.signer
            if standing.is_lost() or (signer is not None and signer.keys in self._distrusted):
                return TokenRevoked.code  # a withdrawn key revokes whatever it has signed
        return TokenExpired.code if until <= now else ""

    def _queue(self, entry: _Entry) -> None:
        """Look at it soon."""
        if entry.is_queued or entry.is_gone:
            return
        entry.is_queued = True
        if not self._queued:
            asyncio.get_running_loop().call_soon(self._tell_some)
        self._queued.append(entry)

    def _tell_some(self) -> None:
        for _ in range(min(SLICE, len(self._queued))):
            entry = self._queued.popleft()
            reason = self._judge(entry)
            if entry.is_gone or not reason:
                entry.is_queued = False
                continue
            self._ended[entry.kind, reason] += 1
            assert entry.connection is not None
            entry.connection.end(reason)
        if self._queued:
            asyncio.get_running_loop().call_soon(self._tell_some)

    # --- what it tells of itself -------------------------------------------------------------------------------------

    def samples(self) -> Iterator[Sample]:
        """Live connections by kind, and those ended here by kind and reason."""
        open_ = dict.fromkeys(KINDS, 0)
        for entry in self._entries.values():
            open_[entry.kind] += 1
        for kind, count in open_.items():
            yield Sample("gateway_live_connections", {"kind": kind}, count)
        for (kind, reason), count in self._ended.items():
            yield Sample("gateway_live_ended_total", {"kind": kind, "reason": reason}, count)


@dataclass(frozen=True, slots=True)
class Watch:
    """How the live connections of one route are watched; made when a configuration loads."""

    live: LiveConnections
    valid_until: Callable[[Token], float]
    ends: bool  # False: they may finish, whatever becomes of their token
    statuses: Mapping[str, StatusLists] = field(default_factory=dict)  # of issuers that have some, by name

    def enter(self, connection: Live, token: Token | None, *, lasts: bool = False) -> None:
        """Take in a connection that may last, or does."""
        watched = token if self.ends else None
        self.live.enter(connection, watched, self.valid_until, lasts=lasts, statuses=self.statuses)

    def leave(self, connection: Live) -> None:
        """It has ended."""
        self.live.leave(connection)

    def is_over(self, token: Token | None) -> str:
        """Why a response that was long in coming should not begin any more, as an error's code; "" if it may."""
        if token is None or not self.ends:
            return ""
        return self.live.verdict(token, self.valid_until(token), Standing.of(token, self.statuses))


def _keys(token: Token) -> Iterator[str]:
    """The denylist's keys that could deny a token."""
    named = keys_naming(
        token.issuer,
        token_id=token.token_id,
        session_id=token.session_id,
        subject=token.subject,
        client_id=token.client_id,
        kid=token.kid,
    )
    return (key for _, key in named)


def _is_denied(replica: Replica, token: Token, now: float) -> bool:
    kind = replica.find(
        token.issuer,
        token.token_id,
        token.session_id,
        token.subject,
        token.client_id,
        token.kid,
        token.issued_at,
        now,
    )
    return kind is not None
