"""The keys of one issuer, kept fresh: what the verifier asks, and the two ways to answer it.

`StaticKeys` hold a shared secret. `RefreshedKeys` keep the key set of an origin (a key server or a file):

    not loaded ── load ok ──▶ fresh ── due: 80 to 95 % of its lifetime ──▶ refreshing ── ok ──▶ fresh
        │                       ▲                                              │
        └─ failed: wait 1, 2, 4 … 60 s                                         └─ failed: same waits, the keys stay

- One load at a time; whoever needs one while it runs waits for that one. A waiter that goes away does not end it.
- A token with an unknown key id starts a load too, but not within `cooldown` of the last one started so, nor of the
  last one that failed. It counts from the start of the attempt, so that a slow server does not stretch it.
- A refresh on schedule that succeeds starts no cooldown: a key that appears right after it is still found at once.
- A load that fails, or gives no usable key, changes nothing. Keys are never dropped because of their age.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import httpx2

from gateway.config.schema import Issuer
from gateway.errors import KeysUnavailable
from gateway.keys.discovery import transmitter_metadata_urls
from gateway.keys.jwks import KeySet, VerificationKey, accepted_algorithms, parse_key_set, secret_key
from gateway.keys.origin import Document, FileOrigin, Origin, OriginFailed
from gateway.keys.remote import RemoteOrigin
from gateway.telemetry.sample import Sample

_LOG = logging.getLogger("gateway.keys")
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0  # between attempts at a key server that fails
_NAP_S = 5.0  # the longest sleep: a load for an unknown key may have moved the time of the next one


class KeySource(Protocol):
    """What the verifier asks of an issuer's keys."""

    @property
    def key_set(self) -> KeySet | None:
        """The present keys; None until the first load has succeeded."""

    def known(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """The keys at hand that may have signed; KeysUnavailable if nothing was ever loaded. Never waits."""

    async def find(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """As `known`, but a key that is not at hand is looked for, as far as cooldown and deadline allow."""

    async def run(self) -> None:
        """Keeps the keys fresh until cancelled."""

    def samples(self) -> Iterable[Sample]:
        """The current numbers."""

    def health(self) -> tuple[bool, str]:
        """Whether all is well, and a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, to be wound by hand in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random  # in [0, 1): spreads the loads of many gateways
    wall: Callable[[], float] = time.time


class StaticKeys:
    """One shared secret, good for any key id."""

    def __init__(self, secret: bytes, algorithms: Iterable[str]) -> None:
        key = secret_key(secret, algorithms)
        self.key_set = KeySet((key,))

    def known(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """The secret, if it may be used with `alg`."""
        return self.key_set.candidates(None, alg)

    async def find(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """As `known`: there is nowhere else to look."""
        return self.key_set.candidates(None, alg)

    async def run(self) -> None:
        """Nothing to keep fresh."""
        await asyncio.Event().wait()

    def samples(self) -> Iterable[Sample]:
        """No numbers."""
        return ()

    def health(self) -> tuple[bool, str]:
        """Always well."""
        return True, "shared secret"


class RefreshedKeys:
    """The key set of an origin. Filled by its own loads; see the time line above."""

    def __init__(
        self,
        name: str,
        origin: Origin,
        algorithms: Iterable[str],
        *,
        refresh_s: float,
        cooldown_s: float,
        timeout_s: float,
        longest_wait_s: float,
        clock: Clock,
    ) -> None:
        """`refresh_s` applies where the origin does not say how long its document lasts."""
        self.key_set: KeySet | None = None
        self._name = name
        self._origin = origin
        self._algorithms = accepted_algorithms(algorithms)
        self._refresh_s = refresh_s
        self._cooldown_s = cooldown_s
        self._timeout_s = timeout_s
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._flight: asyncio.Task[None] | None = None
        self._due_at = clock.monotonic()
        self._ask_again_at = self._due_at  # when an unknown key may start the next load
        self._loaded_at: float | None = None
        self._digest = b""
        self._failure = ""  # why the last load failed; "" after a success
        self._failures_in_a_row = 0
        self._loads_ok = 0
        self._loads_failed = 0

    def __repr__(self) -> str:
        return f"<RefreshedKeys {self._name}: {self.health()[1]}>"

    def known(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """The keys at hand that may have signed; KeysUnavailable if nothing was ever loaded."""
        if self.key_set is None:
            raise KeysUnavailable(cause=f"issuer {self._name}: no keys: {self._failure or 'not loaded yet'}")
        return self.key_set.candidates(kid, alg)

    async def find(self, kid: str | None, alg: str) -> tuple[VerificationKey, ...]:
        """As `known`, after a load if the key is not at hand and the cooldown allows one."""
        for _ in range(2):  # a load that runs already may have begun before the key was published: then one of our own
            if self.key_set is not None:
                keys = self.key_set.candidates(kid, alg)
                if keys or kid in self.key_set.kids:  # a key that is here under another algorithm needs no looking for
                    return keys
            own = self._flight is None
            if own and self._clock.monotonic() < self._ask_again_at:
                break
            await self._join(asked=own)
            if own:
                break
        return self.known(kid, alg)

    async def run(self) -> None:
        """Loads at once, then ahead of each expiry, until cancelled."""
        try:
            while True:
                wait_s = self._due_at - self._clock.monotonic()
                if wait_s > 0:
                    await self._clock.sleep(min(wait_s, _NAP_S))
                else:
                    await self._join(asked=False)
        finally:
            if self._flight is not None:
                self._flight.cancel()

    async def _join(self, *, asked: bool) -> None:
        """Waits for the load that is running, or for a new one."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._load(asked=asked), name=f"keys of {self._name}")
            self._flight.add_done_callback(self._landed)
        # The load belongs to everyone who waits, so one who goes away must not end it.
        await asyncio.wait((self._flight,))

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            _LOG.error("issuer %s: fault while loading keys", self._name, exc_info=fault)
            self._fail(self._clock.monotonic(), f"{type(fault).__name__} in the gateway")

    async def _load(self, *, asked: bool) -> None:
        started = self._clock.monotonic()
        if asked:
            self._ask_again_at = started + self._cooldown_s
        try:
            async with asyncio.timeout(self._timeout_s):
                document = await self._origin.load()
                await self._adopt(document)
        except TimeoutError:
            self._fail(started, f"no complete answer within {self._timeout_s:g} s")
        except OriginFailed as exc:
            self._fail(started, str(exc))
        except ValueError as exc:
            self._fail(started, f"not a usable key set: {exc}")
        else:
            self._succeed(started, document)

    async def _adopt(self, document: Document) -> None:
        """Swaps the key set if the document has changed; ValueError if it has no usable key."""
        digest = hashlib.sha256(document.octets).digest()
        if digest == self._digest:
            return
        # In a thread: a set of a hundred keys takes some 10 ms.
        key_set, problems = await asyncio.to_thread(parse_key_set, document.octets, self._algorithms)
        for problem in problems:
            _LOG.warning("issuer %s: %s", self._name, problem)
        if not key_set.keys:
            raise ValueError("no key in it can be used")
        self.key_set = key_set
        self._digest = digest
        _LOG.info("issuer %s: %d keys: %s", self._name, len(key_set.keys), [key.kid for key in key_set.keys])

    def _succeed(self, started: float, document: Document) -> None:
        lifetime_s = self._refresh_s if document.lifetime_s is None else document.lifetime_s
        self._due_at = started + lifetime_s * (0.8 + 0.15 * self._clock.chance())
        self._loaded_at = started
        self._loads_ok += 1
        self._failure, self._failures_in_a_row = "", 0

    def _fail(self, started: float, reason: str) -> None:
        self._ask_again_at = started + self._cooldown_s
        wait_s = min(_FIRST_WAIT_S * 2.0 ** min(self._failures_in_a_row, 10), self._longest_wait_s)
        self._due_at = self._clock.monotonic() + wait_s * (0.5 + 0.5 * self._clock.chance())
        self._loads_failed += 1
        self._failures_in_a_row += 1
        if reason != self._failure:  # an outage is one line, not one per attempt
            count = len(self.key_set.keys) if self.key_set else 0
            _LOG.warning("issuer %s: keys not loaded, %d kept: %s", self._name, count, reason)
        self._failure = reason

    def samples(self) -> Iterable[Sample]:
        """How many keys, how old, and how the loads went."""
        labels = {"issuer": self._name}
        yield Sample("gateway_keys", labels, len(self.key_set.keys) if self.key_set else 0)
        yield Sample("gateway_keys_loads_total", {**labels, "outcome": "ok"}, self._loads_ok)
        yield Sample("gateway_keys_loads_total", {**labels, "outcome": "failed"}, self._loads_failed)
        if self._loaded_at is not None:
            yield Sample("gateway_keys_age_seconds", labels, self._clock.monotonic() - self._loaded_at)

    def health(self) -> tuple[bool, str]:
        """Well while the last load succeeded; after that the sentence says what is wrong and what is still there."""
        if self._loaded_at is None or self.key_set is None:
            return False, f"no keys: {self._failure or 'not loaded yet'}"
        found = f"{len(self.key_set.keys)} keys, loaded {self._clock.monotonic() - self._loaded_at:.0f} s ago"
        return (False, f"{found}; last load failed: {self._failure}") if self._failure else (True, found)


def build_key_source(
    name: str, issuer: Issuer, *, transport: httpx2.AsyncBaseTransport | None = None, clock: Clock | None = None
) -> KeySource:
    """The keys of one issuer of the configuration, not loaded yet; `transport` and `clock` are for tests."""
    if issuer.secret is not None:
        return StaticKeys(issuer.secret.get_secret_value(), issuer.algorithms)
    origin: Origin
    if issuer.jwks_file is not None:
        origin = FileOrigin(issuer.jwks_file)
    else:
        origin = RemoteOrigin(
            issuer.issuer, issuer.jwks_uri, timeout_s=issuer.timeout, ca=issuer.ca, transport=transport
        )
    longest_wait_s = FileOrigin.LOOK_EVERY_S if issuer.jwks_file is not None else _LONGEST_WAIT_S
    return keep_fresh(name, origin, issuer, longest_wait_s=longest_wait_s, clock=clock)


def build_transmitter_keys(name: str, issuer: Issuer, *, clock: Clock | None = None) -> KeySource | None:
    """The keys of a transmitter of security events, not loaded yet; None where it signs with the issuer's."""
    signals = issuer.revocation.shared_signals
    if signals is None or not signals.has_own_keys:
        return None
    transmitter = signals.issuer or issuer.issuer
    timeout_s, ca = issuer.timeout, issuer.ca
    origin = RemoteOrigin(transmitter, signals.jwks_uri, timeout_s=timeout_s, ca=ca, metadata=transmitter_metadata_urls)
    signed_by = issuer.model_copy(update={"algorithms": signals.algorithms or issuer.algorithms})
    return keep_fresh(f"{name}/events", origin, signed_by, longest_wait_s=_LONGEST_WAIT_S, clock=clock)


def keep_fresh(
    name: str, origin: Origin, issuer: Issuer, *, longest_wait_s: float = 5.0, clock: Clock | None = None
) -> KeySource:
    """The keys of an origin, not loaded yet; `longest_wait_s` between attempts while it fails."""
    return RefreshedKeys(
        name,
        origin,
        issuer.algorithms,
        refresh_s=issuer.refresh,
        cooldown_s=issuer.cooldown,
        timeout_s=issuer.timeout,
        longest_wait_s=longest_wait_s,
        clock=clock or Clock(),
    )
