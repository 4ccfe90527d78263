"""What a store of records is, whichever it is: shared by all workers and gateways, each of its steps atomic.

    absent ──begin──▶ claimed ──settle──▶ answered ──ttl──▶ absent
       ▲                │  └──lapse, or the lease runs out──▶ unknown ──begin, if it takes over──▶ claimed
       └────release─────┘

A claim belongs to its *owner*, a random value that only one carrier of the request has: whoever was overtaken after its
lease changes nothing any more. Times of life are counted by the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

State = Literal["claimed", "answered", "in_use", "reused", "unknown"]


class StoreUnavailable(Exception):
    """The store cannot be reached, did not answer in time or refuses; the text is public: no address, no credential."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's claim to one record."""

    name: str  # of the record: a hash
    fingerprint: bytes  # of the request: a hash
    owner: bytes = field(repr=False)
    ttl_s: float  # how long the record lives from its last change


@dataclass(frozen=True, slots=True)
class Found:
    """What `begin` has found."""

    state: State
    answer: bytes = field(default=b"", repr=False)  # packed; of `answered`


class Store(Protocol):
    """A place for records. Each call raises `StoreUnavailable`, at the latest after the timeout."""

    async def begin(self, claim: Claim, lease_s: float, *, takes_over: bool) -> Found:
        """Claim the record, unless it is taken; asked again by the same owner, the claim is renewed.

        `takes_over` decides about a record whose outcome is unknown: claimed anew, or `unknown`.
        """

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Prolong the lease; False if the claim is no longer the owner's."""

    async def settle(self, claim: Claim, answer: bytes) -> bool:
        """Keep the answer from now on for the record's life; False if the claim is somebody else's by now."""

    async def lapse(self, claim: Claim) -> None:
        """End the lease: what became of the request is not known."""

    async def release(self, claim: Claim) -> None:
        """Forget the record: the request was not handled."""

    async def tidy(self) -> None:
        """Free records that have ended; called now and then."""

    async def close(self) -> None:
        """Close connections and files."""
