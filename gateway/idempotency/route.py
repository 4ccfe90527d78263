"""What a route does with `Idempotency-Key`: called by the pipeline in the place of `forward`, after every check.

The exchange with the upstream runs in a task of its own. When the client goes away the task goes on to its end, within
the upstream's times, so that the answer is there when the client comes back for it; and a claim is settled by the task
alone, so that whatever becomes of the client changes nothing about the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Final

from gateway.errors import (
    BadRequest,
    ContentTooLarge,
    GatewayError,
    IdempotencyKeyInUse,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    IdempotencyOutcomeUnknown,
    IdempotencyUnavailable,
    NoEndpoint,
    Overloaded,
    UpstreamFault,
)
from gateway.http_date import http_date
from gateway.idempotency.answer import Answer
from gateway.idempotency.contract import Claim
from gateway.idempotency.key import find_key, fingerprint, record_name
from gateway.idempotency.ledger import Ledger
from gateway.idempotency.recorder import Recorder
from gateway.live import Watch
from gateway.telemetry.exchange import Exchange
from gateway.tokens.claims import Token
from gateway.upstream.endpoints import Upstream
from gateway.upstream.forward import ClientGone, forward
from gateway.upstream.headers import NO_BODY
from gateway.upstream.request import UpstreamRequest

Message = dict[str, Any]  # ASGI messages are open mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NOT_IDEMPOTENT: Final = frozenset((b"POST", b"PATCH"))
_WRITES: Final = frozenset((b"POST", b"PATCH", b"PUT", b"DELETE"))
_FIRST_LOOK_S: Final = 0.05  # at a record in flight; then ever more seldom
_LAST_LOOK_S: Final = 0.5


def takes_key(method: bytes) -> bool:
    """Whether a key counts for requests of this method."""
    return method in _WRITES


def needs_key(method: bytes) -> bool:
    """Whether a request of this method must have a key where one is required."""
    return method in _NOT_IDEMPOTENT


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of one route."""

    route: str
    is_required: bool  # of POST and PATCH
    ttl_s: float
    max_body: int  # bytes
    max_answer: int  # bytes
    wait_s: float  # for a request in flight under the same key
    takes_over: bool  # a request whose outcome is unknown is forwarded again; else refused


class Idempotency:
    """The `Idempotency-Key` of one route."""

    __slots__ = ("_ledger", "_outliving", "_rules")

    def __init__(self, rules: Rules, ledger: Ledger, outliving: set[asyncio.Task[None]]) -> None:
        """`outliving` has the exchanges in flight: their generation is not empty before they have ended."""
        self._rules = rules
        self._ledger = ledger
        self._outliving = outliving

    async def forward(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        watch: Watch | None,
        token: Token | None,
    ) -> None:
        """As `gateway.upstream.forward`: the request is answered by the upstream, or as it was answered before.

        Raises what that raises, and `IdempotencyKeyMissing`, `IdempotencyKeyReused`, `IdempotencyKeyInUse`,
        `IdempotencyOutcomeUnknown`, `IdempotencyUnavailable`.
        """
        key = self._key(request)
        if key is None:
            await forward(request, upstream, receive, send, exchange, watch, token)
            return
        name = record_name(self._rules.route, *_caller(token), key)
        in_hand = _BodyInHand(self._ledger)
        try:
            body = await in_hand.read(request, receive, self._rules.max_body)
            exchange.bytes_in = len(body)
            claim = self._ledger.draw_up(name, fingerprint(request.method, request.target, body), self._rules.ttl_s)
            answer = await self._begin(claim)
        except BaseException:
            in_hand.close()
            raise
        if answer is not None:
            in_hand.close()
            await _replay(answer, request, send, exchange)
            return
        recorder = Recorder(self._ledger, claim, self._rules.max_answer)
        work = self._carry(request, upstream, body, recorder, exchange, watch, token, claim, in_hand)
        task = self._ledger.start(work, self._outliving)
        try:
            await recorder.relay(task, send)
        except asyncio.CancelledError:
            if not task.done():
                self._ledger.count_outlived()
            raise

    def _key(self, request: UpstreamRequest) -> str | None:
        """The key, if it counts for this method."""
        if not takes_key(request.method):
            return None
        key = find_key(request.headers)
        if key is None and self._rules.is_required and needs_key(request.method):
            self._ledger.count("missing")
            raise IdempotencyKeyMissing
        return key

    async def _begin(self, claim: Claim) -> Answer | None:
        """The answer that was given before; None if the record is claimed now, and the request to be forwarded."""
        ledger, rules = self._ledger, self._rules
        until = monotonic() + rules.wait_s
        pause = _FIRST_LOOK_S
        while True:
            found = await ledger.begin(claim, takes_over=rules.takes_over)
            if found.state == "claimed":
                ledger.count("forwarded")
                return None
            if found.state != "in_use":
                break
            # The usual case: the connection was lost, and the client is back before the answer is.
            left = until - monotonic()
            if left <= 0:
                break
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LAST_LOOK_S)
        if found.state == "answered":
            ledger.count("replayed")
            try:
                return Answer.unpack(found.answer)
            except ValueError as fault:
                raise IdempotencyUnavailable(cause=f"a record cannot be read: {fault}") from fault
        if found.state == "reused":
            ledger.count("reused")
            raise IdempotencyKeyReused
        if found.state == "in_use":
            ledger.count("in_use")
            raise IdempotencyKeyInUse
        ledger.count("unknown")
        raise IdempotencyOutcomeUnknown

    async def _carry(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        body: bytes,
        recorder: Recorder,
        exchange: Exchange,
        watch: Watch | None,
        token: Token | None,
        claim: Claim,
        in_hand: _BodyInHand,
    ) -> None:
        """The exchange with the upstream, to its end; afterwards the record is settled, whatever happened."""
        ledger = self._ledger
        try:
            await forward(request, upstream, _giving(body), recorder.send, exchange, watch, token)
        except ClientGone:
            pass  # nothing more was to be kept
        except asyncio.CancelledError:
            ledger.forsake(claim)
            raise
        except BaseException as error:
            if not recorder.is_settled:
                await self._settle_fault(error, recorder, exchange, claim)
            raise
        finally:
            recorder.close()
            in_hand.close()

    async def _settle_fault(self, error: BaseException, recorder: Recorder, exchange: Exchange, claim: Claim) -> None:
        if recorder.has_begun:
            await recorder.keep_head()
        elif isinstance(error, GatewayError) and _was_not_sent(error, exchange):
            await self._ledger.release(claim)
        else:
            await self._ledger.give_up(claim)


def _caller(token: Token | None) -> tuple[str, str]:
    """Whose record it is. The configuration lets no route have keys without tokens."""
    who = token and (token.subject or token.client_id)
    if token is None or not who:
        raise BadRequest("The access token names nobody for whom an answer could be kept.")
    return token.issuer, who


def _was_not_sent(error: GatewayError, exchange: Exchange) -> bool:
    """Whether the upstream surely has nothing of the request."""
    return not isinstance(error, UpstreamFault) or isinstance(error, NoEndpoint) or exchange.connect_s < 0


class _BodyInHand:
    """A request's body, whole: its digest must be known before anything is forwarded."""

    __slots__ = ("_ledger", "_size")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._size = 0

    async def read(self, request: UpstreamRequest, receive: Receive, most: int) -> bytes:
        """The body; the request has a known length from now on.

        Raises `ContentTooLarge`, `BadRequest`, `Overloaded`, `ClientGone`.
        """
        length = request.body_length
        if length == NO_BODY:
            return b""
        most = min(most, request.body_limit)
        if length is not None and length > most:
            raise _too_large(most)
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if not self._ledger.room.take(len(piece)):
                raise Overloaded(cause="too many bytes of requests with keys are in hand")
            self._size += len(piece)
            if self._size > most:
                raise _too_large(most)
            pieces.append(piece)
        if length is not None and self._size != length:
            raise BadRequest("The body is not as long as Content-Length says.")
        request.body_length = self._size
        return b"".join(pieces)

    def close(self) -> None:
        """It is not needed any more."""
        self._ledger.room.give(self._size)
        self._size = 0


def _too_large(most: int) -> ContentTooLarge:
    return ContentTooLarge(f"With Idempotency-Key the body of a request has at most {most} bytes here.")


def _giving(body: bytes) -> Receive:
    """A `receive` that gives the body in one piece."""
    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": body, "more_body": False},
    ]

    async def receive() -> Message:
        return messages.pop() if len(messages) > 1 else messages[0]

    return receive


async def _replay(answer: Answer, request: UpstreamRequest, send: Send, exchange: Exchange) -> None:
    body = answer.body or b""
    exchange.status = answer.status
    exchange.bytes_out = len(body)
    fields = answer.replayed(request.request_id, http_date(time()))
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
