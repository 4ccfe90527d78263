"""How a response that lasts is ended from outside: who may do it, and what for."""

from __future__ import annotations

from typing import Any, Final, Protocol

from gateway.errors import GatewayError, GatewayFault, TokenExpired, TokenRevoked


class Watch(Protocol):
    """Who may end a response that lasts; `token` means something to it alone."""

    def enter(self, connection: Any, token: Any, *, lasts: bool = False) -> None:
        """A response begins to be streamed; it may be told to `end`, from now on if it lasts by its nature."""

    def leave(self, connection: Any) -> None:
        """It has ended."""

    def is_over(self, token: Any) -> str:
        """Why a response should not begin any more, as an error's code; "" if it may."""


class _GoingAway(GatewayFault):
    """The process stops; said on event streams only, so it is no response."""

    status, code, title = 503, "going_away", "The gateway is about to stop."


ENDS: Final[dict[str, type[GatewayError]]] = {error.code: error for error in (TokenRevoked, TokenExpired, _GoingAway)}
"""By the code that `end` is told."""
