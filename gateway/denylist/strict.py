"""Asking the store itself on each request, for routes that cannot wait even the milliseconds until a replica knows.

What the replica already knows needs no asking; this adds what has been written since. The look-ups of one turn of the
event loop share one round trip, and none waits longer than the store's `timeout`.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.denylist.contract import Store, StoreError
from gateway.denylist.grammar import Kind, is_denied, keys_naming
from gateway.telemetry.sample import Sample


class StrictCheck:
    """The store's own answer about a token; counts the answers. One for all routes that want it."""

    __slots__ = ("_answered", "_denied", "_store", "_unanswered")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._answered = 0
        self._denied = 0
        self._unanswered = 0

    async def find(
        self,
        issuer: str,
        token_id: str | None,
        session_id: str | None,
        subject: str | None,
        client_id: str | None,
        kid: str | None,
        issued_at: float | None,
    ) -> Kind | None:
        """Which kind of entry denies such a token in the store now; None if none does. Raises `StoreError`."""
        names = keys_naming(
            issuer, token_id=token_id, session_id=session_id, subject=subject, client_id=client_id, kid=kid
        )
        asked = list(names)
        try:
            values = await self._store.lookup([key for _, key in asked])
        except StoreError:
            self._unanswered += 1
            raise
        for (kind, _), value in zip(asked, values, strict=True):
            if value is not None and is_denied(kind, value, issued_at):
                self._denied += 1
                return kind
        self._answered += 1
        return None

    def samples(self) -> Iterable[Sample]:
        """Look-ups by what came of them."""
        for outcome, count in (("clear", self._answered), ("denied", self._denied), ("unanswered", self._unanswered)):
            yield Sample("gateway_denylist_lookups_total", {"outcome": outcome}, count)
