"""One-time tokens on their way to the service that sends messages: a bounded queue, a signed POST, some repetitions.

The tokens are kept in memory only, because the store must not hold one that could be used. A message that is lost in a
crash is asked for again by whoever waits for it.

Each leaves after a random pause: the work of sending it must not be felt by whoever has asked for it, because nothing
is sent where there is no account.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpcore2  # noqa: F401 - httpx2 would import it with the first call, and stall the loop for 100 ms
import httpx2

from gateway.config.issuance import Webhook as Config
from gateway.telemetry.sample import Sample

logger = logging.getLogger("gateway.issuer")

_QUEUE = 1000
_WAITS_S = (1.0, 5.0, 25.0)  # before the second, third and fourth attempt
_LONGEST_PAUSE_S = 2.0
_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody is to be told. `token` is None where there is nothing to confirm."""

    event: str  # verify_email, reset_password, account_exists
    to: str
    token: str | None
    expires_at: float

    def __repr__(self) -> str:
        return f"<Message {self.event}>"


class Webhook:
    """Calls the configured URL; messages are dropped and counted where there is none or it does not answer."""

    def __init__(
        self,
        config: Config | None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`transport` is for tests; `chance` in [0, 1) says how much of the longest pause each message waits."""
        self._config = config
        self._transport = transport
        self._wall = wall
        self._chance = chance
        self._queue: asyncio.Queue[Message] = asyncio.Queue(_QUEUE)
        self.sent = 0
        self.failed = 0

    def send(self, message: Message) -> None:
        """Put a message in the queue; never waits, so that the answer's time says nothing."""
        if self._config is None:
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.failed += 1
            logger.error("a message was dropped: the webhook does not keep up")

    async def run(self) -> None:
        """Sends what is queued, until cancelled; a few at once, so that one slow call does not hold up the others."""
        # Reading the authorities takes tens of milliseconds, in which no request would go on.
        tls = await asyncio.to_thread(ssl.create_default_context) if self._transport is None else True
        async with (
            httpx2.AsyncClient(
                verify=tls, transport=self._transport, trust_env=False, follow_redirects=False
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(_WORKERS):
                tasks.create_task(self._work(client))

    async def _work(self, client: httpx2.AsyncClient) -> None:
        while True:
            message = await self._queue.get()
            await asyncio.sleep(self._chance() * _LONGEST_PAUSE_S)
            for wait_s in (*_WAITS_S, None):
                reason = await self._call(client, message)
                if not reason:
                    self.sent += 1
                    break
                if wait_s is None:
                    self.failed += 1
                    logger.error("webhook: message %s not delivered: %s", message.event, reason)
                else:
                    await asyncio.sleep(wait_s)

    async def _call(self, client: httpx2.AsyncClient, message: Message) -> str:
        """One attempt; why it failed, or ""."""
        assert self._config is not None
        fields = {
            "event": message.event,
            "to": message.to,
            "token": message.token,
            "expires_at": int(message.expires_at),
        }
        body = json.dumps(fields).encode()
        headers = {"content-type": "application/json"}
        if self._config.secret is not None:
            headers["x-gateway-signature"] = signature(self._config.secret.get_secret_value(), int(self._wall()), body)
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                client.stream("POST", self._config.url, content=body, headers=headers, timeout=None) as response,
            ):
                status = response.status_code  # what else it says is of no interest, however long it is
        except (httpx2.HTTPError, TimeoutError, OSError) as exc:
            return type(exc).__name__
        return "" if 200 <= status < 300 else f"status {status}"

    def samples(self) -> Iterable[Sample]:
        """How the calls went."""
        yield Sample("gateway_issuer_messages_total", {"outcome": "sent"}, self.sent)
        yield Sample("gateway_issuer_messages_total", {"outcome": "failed"}, self.failed)


def signature(secret: bytes, moment: int, body: bytes) -> str:
    """The value of `X-Gateway-Signature`; the moment lets the receiver refuse old calls."""
    digest = hmac.new(secret, b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"
