"""The status lists of one issuer, kept: fetched when the first token refers to one, refreshed ahead while used.

    not held ── fetched, verified ──▶ usable ── due: 80 to 95 % of its lifetime, if used ──▶ refreshing ── ok ──▶ usable
        │                               │                                                      │
        └─ failed: not before cooldown  └─ its lifetime has passed: not usable                 └─ failed: 1, 2, 4 … 60 s

- One fetch per list at a time; whoever needs it waits for that one, at most the issuer's `timeout`.
- A list's lifetime is its `ttl`, never beyond its `exp`; a refresh that fails does not stretch it.
- No usable list is no status: the token is refused with `StatusUnavailable`, or passes if the issuer's setting says so.
- Bounded by number and by bytes; the one that was used longest ago goes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.config.schema import Issuer
from gateway.errors import KeysUnavailable, StatusUnavailable, TokenInvalid, TokenRevoked
from gateway.keys.jwks import accepted_algorithms
from gateway.keys.origin import MAX_DOCUMENT_BYTES, OriginFailed
from gateway.keys.remote import Fetcher
from gateway.keys.source import Clock, KeySource
from gateway.telemetry.sample import Sample
from gateway.tokens.claims import Token
from gateway.tokens.statement import StatementInvalid, StatementRules, verify_statement
from gateway.tokens.status_list import (
    VALID,
    StatusList,
    StatusReference,
    lifetime_s,
    read_status_list,
    reference_of,
)

_LOG = logging.getLogger("gateway.tokens")
_MEDIA_TYPE = "application/statuslist+jwt"
_TYP = "statuslist+jwt"
_MAX_LISTS = 256
_MAX_OCTETS = 64 * 2**20
_NAP_S = 1.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_GRUDGE_S = 600.0  # how long a failure is remembered, so that an outage is not news each time
_LONGEST_LIFETIME_S = 86_400.0


@dataclass(slots=True, eq=False)
class _Held:
    """One list, or the failure to get it. Moments are monotonic seconds."""

    uri: str
    found: StatusList | None = None
    usable_until: float = 0.0
    due_at: float = 0.0  # when to refresh it ahead
    ask_again_at: float = 0.0  # not before this may a request start a fetch
    failures: int = 0
    failure: str = ""  # why the last fetch failed; public
    used: bool = False  # since the last fetch
    flight: asyncio.Task[None] | None = None


class StatusLists:
    """The lists of one issuer. Filled by its own fetches; one owner, one thread."""

    def __init__(
        self, name: str, rules: StatementRules, settings: Issuer, fetcher: Fetcher, clock: Clock | None = None
    ) -> None:
        """`name` is the issuer's in the YAML; `settings` must have `revocation.status_list`."""
        wanted = settings.revocation.status_list
        assert wanted is not None
        self._name = name
        self._rules = rules
        self._fetcher = fetcher
        self._clock = clock or Clock()
        self._origins = frozenset(map(_origin, wanted.origins or (settings.issuer,))) - {""}
        self._refresh_s = wanted.refresh
        self._allows_unknown = wanted.when_unknown == "allow"
        self._cooldown_s = settings.cooldown
        self._timeout_s = settings.timeout
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._loads = {"ok": 0, "failed": 0}
        self._unknown = 0

    @classmethod
    def of(cls, name: str, issuer: Issuer, keys: KeySource, *, clock: Clock | None = None) -> StatusLists:
        """The lists that one issuer of the configuration publishes, signed with the keys of its tokens."""
        rules = StatementRules(
            issuer=issuer.issuer,
            audience=None,
            algorithms=accepted_algorithms(issuer.algorithms),
            token_type=_TYP,
            leeway_s=issuer.leeway,
            keys=keys,
            max_bytes=MAX_DOCUMENT_BYTES,
            needs_issuer=False,  # the draft leaves it out; the key says who speaks
        )
        return cls(name, rules, issuer, Fetcher(timeout_s=issuer.timeout, ca=issuer.ca), clock)

    # --- requests ----------------------------------------------------------------------------------------------------

    async def check(self, token: Token) -> None:
        """TokenRevoked for a status other than VALID, TokenInvalid for a reference that leads nowhere.

        StatusUnavailable if it cannot be told and the issuer's setting refuses then. A token without `status` passes.
        """
        reference = self.reference(token)
        if reference is None:
            return
        found = await self.find(reference.uri)
        if found is None:
            self._unknown += 1
            if self._allows_unknown:
                return
            raise StatusUnavailable(cause=f"issuer {self._name}: no usable status list: {self.trouble(reference.uri)}")
        try:
            status = found.at(reference.index)
        except IndexError:
            raise TokenInvalid(cause="status_list.idx lies beyond the list") from None
        if status != VALID:
            raise TokenRevoked(cause=f"status {status} in its status list")

    def reference(self, token: Token) -> StatusReference | None:
        """What a token says of its status here; TokenInvalid if that is malformed. Read once per token."""
        if self in token.memo:
            remembered: StatusReference | None = token.memo[self]
            return remembered
        found = token.memo[self] = reference_of(token.claims)
        return found

    async def find(self, uri: str) -> StatusList | None:
        """The usable list at an address, fetched if need be; None if there is none."""
        held = self._use(uri)
        if held is None:
            return None
        found = self._usable(held)
        if found is None and self._may_ask(held):
            await self._join(held)
            found = self._usable(held)
        return found

    def trouble(self, uri: str) -> str:
        """Why there is no usable list at an address; names neither token nor place."""
        held = self._held.get(uri)
        if held is None:
            return "lists may not come from there"
        return held.failure or "it has ended"

    # --- live connections --------------------------------------------------------------------------------------------

    def known(self, uri: str) -> StatusList | None:
        """The usable list at an address, if it is here."""
        held = self._held.get(uri)
        return None if held is None else self._usable(held)

    def keep(self, uri: str) -> StatusList | None:
        """As `known`, for somebody who rests on the list: it stays fresh, and is fetched where it is not here."""
        held = self._use(uri)
        if held is None:
            return None
        found = self._usable(held)
        if found is None and held.flight is None and self._may_ask(held):
            self._fetch(held)
        return found

    def _use(self, uri: str) -> _Held | None:
        """What is held of an address, now in use; None for one that lists may not come from."""
        held = self._held.get(uri)
        if held is None:
            if _origin(uri) not in self._origins:
                return None
            held = self._held[uri] = _Held(uri)
            self._make_room(held)
        held.used = True
        self._held.move_to_end(uri)
        return held

    def _usable(self, held: _Held) -> StatusList | None:
        return held.found if self._clock.monotonic() < held.usable_until else None

    def _may_ask(self, held: _Held) -> bool:
        """Whether a fetch may be waited for, or started."""
        return held.flight is not None or self._clock.monotonic() >= held.ask_again_at

    # --- fetching ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Refreshes lists that are used ahead of their end, and lets go of those that are not, until cancelled."""
        try:
            while True:
                await self._clock.sleep(_NAP_S)
                now = self._clock.monotonic()
                due = [held for held in self._held.values() if held.used and held.due_at <= now < held.usable_until]
                await asyncio.gather(*(self._join(held) for held in due))
                self._let_go(now)
        finally:
            for held in self._held.values():
                if held.flight is not None:
                    held.flight.cancel()

    async def _join(self, held: _Held) -> None:
        """Waits for the fetch that is running, or for a new one."""
        # The fetch belongs to everyone who waits, so one who goes away must not end it.
        await asyncio.wait((held.flight or self._fetch(held),))

    def _fetch(self, held: _Held) -> asyncio.Task[None]:
        flight = held.flight = asyncio.create_task(self._load(held), name=f"status list of {self._name}")
        flight.add_done_callback(lambda flight: self._landed(held, flight))
        return flight

    def _landed(self, held: _Held, flight: asyncio.Task[None]) -> None:
        held.flight = None
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            _LOG.error("issuer %s: fault while loading a status list", self._name, exc_info=fault)
            self._fail(held, f"{type(fault).__name__} in the gateway")

    async def _load(self, held: _Held) -> None:
        started = self._clock.monotonic()
        held.used = False
        try:
            async with asyncio.timeout(self._timeout_s):
                document = await self._fetcher.fetch(held.uri, _MEDIA_TYPE)
                now = self._clock.wall()
                claims = await verify_statement(document.octets.strip(), self._rules, now)
                life_s = lifetime_s(claims, now)
                # In a thread: a list of some MiB takes some 10 ms.
                found = await asyncio.to_thread(read_status_list, claims, held.uri)
        except TimeoutError:
            self._fail(held, f"no complete answer within {self._timeout_s:g} s")
        except (OriginFailed, StatementInvalid, ValueError) as exc:
            self._fail(held, str(exc))
        except KeysUnavailable as exc:
            self._fail(held, exc.cause or exc.code)
        else:
            if life_s is None:
                life_s = document.lifetime_s if document.lifetime_s is not None else self._refresh_s
            life_s = min(life_s, _LONGEST_LIFETIME_S)
            held.found = found
            held.usable_until = started + life_s
            held.due_at = started + life_s * (0.8 + 0.15 * self._clock.chance())
            held.ask_again_at = 0.0
            held.failures, held.failure = 0, ""
            self._loads["ok"] += 1
            self._make_room(held)

    def _fail(self, held: _Held, reason: str) -> None:
        now = self._clock.monotonic()
        held.ask_again_at = now + self._cooldown_s
        held.due_at = now + min(_FIRST_WAIT_S * 2.0 ** min(held.failures, 10), _LONGEST_WAIT_S)
        held.used = True  # go on trying while the old one is still good
        if not held.failures:  # an outage is one line, not one per attempt
            _LOG.warning("issuer %s: a status list was not loaded: %s", self._name, reason)
        held.failures += 1
        held.failure = reason
        self._loads["failed"] += 1

    # --- room --------------------------------------------------------------------------------------------------------

    def _let_go(self, now: float) -> None:
        """Forgets lists that nobody used before they ended, and failures that nobody met again."""
        for held in tuple(self._held.values()):
            failed_until = held.ask_again_at + _GRUDGE_S if held.failures else 0.0
            if held.flight is None and now >= max(held.usable_until, failed_until):
                del self._held[held.uri]

    def _make_room(self, newest: _Held) -> None:
        octets = sum(len(held.found.octets) for held in self._held.values() if held.found is not None)
        for held in tuple(self._held.values()):
            if len(self._held) <= _MAX_LISTS and octets <= _MAX_OCTETS:
                return
            if held is not newest and held.flight is None:
                octets -= len(held.found.octets) if held.found is not None else 0
                del self._held[held.uri]

    def samples(self) -> Iterable[Sample]:
        """How many lists, how their loads went, and how many tokens had a status that could not be told."""
        labels = {"issuer": self._name}
        yield Sample("gateway_status_lists", labels, sum(held.found is not None for held in self._held.values()))
        for outcome, count in self._loads.items():
            yield Sample("gateway_status_list_loads_total", {**labels, "outcome": outcome}, count)
        yield Sample("gateway_status_unknown_total", labels, self._unknown)


def _origin(address: str) -> str:
    """Scheme, host and port of an address; "" for what is none, which no origin equals."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    except (ValueError, KeyError):
        return ""
    if not parts.hostname or "@" in parts.netloc:
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}"
