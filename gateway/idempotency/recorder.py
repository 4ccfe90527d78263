"""Between the upstream's answer and the client: what is kept is in the store before the client has seen the end of it.

    keeping ──status that decides nothing──▶ released ──┐
       │    ──too large, or an event stream──▶ its head kept ──┤
       │                                                       ▼
       └─ end of the answer: kept whole                     passing: at the client's pace

While an answer is being kept it is taken from the upstream whether or not the client reads, since it is bounded; so
the client's going away changes nothing. Beyond that it is passed on like any other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.fields import FieldLines
from gateway.idempotency.answer import Answer, decides, is_event_stream
from gateway.idempotency.contract import Claim
from gateway.idempotency.ledger import Ledger
from gateway.upstream.forward import ClientGone

Message = dict[str, Any]  # ASGI messages are open mappings
Send = Callable[[Message], Awaitable[None]]


class Recorder:
    """One answer on its way. Two sides: who forwards calls `send`, who has the client awaits `relay`."""

    __slots__ = (
        "_claim",
        "_fields",
        "_is_gone",
        "_ledger",
        "_messages",
        "_most",
        "_moved",
        "_pieces",
        "_size",
        "_status",
        "is_settled",
    )

    def __init__(self, ledger: Ledger, claim: Claim, most: int) -> None:
        """`most`: bytes of a body that are kept."""
        self._ledger = ledger
        self._claim = claim
        self._most = most
        self._status = 0
        self._fields = FieldLines(b"", -1)
        self._pieces: list[bytes] = []
        self._size = 0
        self._messages: deque[Message] = deque()
        self._moved = asyncio.Event()  # a message was put in or taken out, or one side has ended
        self._is_gone = False
        self.is_settled = False  # the store has been told what becomes of the record

    # --- the upstream's side -----------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Take a message of the response."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self.is_settled:
            await self._keep(message)
        if not self._is_gone:
            self._messages.append(message)
            self._moved.set()
        if not self.is_settled or not message.get("more_body", False):
            return
        while self._messages:
            self._moved.clear()
            await self._moved.wait()
        if self._is_gone:
            raise ClientGone

    async def _start(self, message: Message) -> None:
        fields = message["headers"]
        assert isinstance(fields, FieldLines)  # as `forward` makes them
        self._status, self._fields = message["status"], fields
        if not decides(self._status):
            self.is_settled = True
            await self._ledger.release(self._claim)
        elif fields.length > self._most or is_event_stream(fields):
            await self.keep_head()

    async def _keep(self, message: Message) -> None:
        piece: bytes = message["body"]
        if self._size + len(piece) > self._most or not self._ledger.room.take(len(piece)):
            await self.keep_head()
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if not message["more_body"]:
            self.is_settled = True
            answer = Answer.of(self._status, self._fields, b"".join(self._pieces))
            await self._ledger.keep(self._claim, answer.pack(), is_whole=True)

    async def keep_head(self) -> None:
        """Keep status and fields: what was decided, though not all that was said."""
        self.is_settled = True
        answer = Answer.of(self._status, self._fields, None)
        await self._ledger.keep(self._claim, answer.pack(), is_whole=False)

    @property
    def has_begun(self) -> bool:
        """Whether the upstream has answered."""
        return self._status != 0

    def close(self) -> None:
        """Let go of what was taken in hand."""
        self._ledger.room.give(self._size)
        self._pieces.clear()
        self._size = 0

    # --- the client's side -------------------------------------------------------------------------------------------

    async def relay(self, task: asyncio.Task[None], send: Send) -> None:
        """Pass everything on to the client until `task`, which forwards, has ended; raises what that has raised.

        Cancelled, it leaves the task to itself.
        """
        task.add_done_callback(self._ended)
        try:
            while True:
                while self._messages:
                    message = self._messages[0]
                    await send(message)
                    self._messages.popleft()
                    self._moved.set()
                    if message["type"] == "http.response.body" and not message["more_body"]:
                        return
                if task.done():
                    task.result()
                    return
                self._moved.clear()
                await self._moved.wait()
        finally:
            self._is_gone = True
            self._messages.clear()
            self._moved.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._moved.set()
        if not task.cancelled():
            task.exception()  # looked at, in case the client has gone
