"""Messages on their way: signed, bounded in time, repeated a little, to the configured place and no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from gateway.config.issuance import Webhook as Config
from gateway.issuer.webhook import Message, Webhook

pytestmark = pytest.mark.asyncio

URL = "https://mail.example/hook"
MESSAGE = Message("reset_password", "a@example.org", "one-time-token", 1_800_003_600.0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without their time."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def pausing(seconds: float) -> None:
        made.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pausing)
    return made


async def deliver(answer: Callable[[httpx2.Request], Any], **settings: Any) -> tuple[Webhook, list[httpx2.Request]]:
    """One message, sent until it has arrived or was given up."""
    seen: list[httpx2.Request] = []

    async def receive(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        found = answer(request)
        return found if isinstance(found, httpx2.Response) else await found

    config = Config.model_validate({"url": URL, **settings})
    sender = Webhook(config, transport=httpx2.MockTransport(receive), wall=lambda: 1_800_000_000.0, chance=lambda: 0.5)
    sender.send(MESSAGE)
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(10):
        while not sender.sent + sender.failed:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return sender, seen


async def test_a_message_leaves_some_time_after_the_request(pauses: list[float]) -> None:
    """So that the work of sending, which is done for accounts only, is not felt in the next answer."""
    sender, seen = await deliver(lambda _: httpx2.Response(204))
    assert (sender.sent, len(seen)) == (1, 1)
    assert [pause for pause in pauses if pause] == [1.0]  # half of the longest


async def test_what_fails_is_repeated_and_then_given_up(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Four attempts; the log names the kind of message and the reason, and neither token nor address."""
    caplog.set_level(logging.DEBUG, logger="gateway")
    sender, seen = await deliver(lambda _: httpx2.Response(500))
    assert (sender.failed, len(seen)) == (1, 4)
    assert [pause for pause in pauses if pause][1:] == [1.0, 5.0, 25.0]
    assert "message reset_password not delivered: status 500" in caplog.text
    assert "one-time-token" not in caplog.text + repr(MESSAGE)
    assert "a@example.org" not in caplog.text + repr(MESSAGE)


async def test_a_redirect_is_a_failure(pauses: list[float]) -> None:
    """A receiver cannot send a token, or the gateway, anywhere else."""
    away = httpx2.Response(307, headers={"location": "http://169.254.169.254/"})
    sender, seen = await deliver(lambda _: away)
    assert sender.failed == 1
    assert {str(request.url) for request in seen} == {URL}


async def test_a_receiver_that_hangs_is_given_up(pauses: list[float]) -> None:
    """Each call has its deadline."""

    async def hang() -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    sender, seen = await deliver(lambda _: hang(), timeout="20ms")
    assert (sender.failed, len(seen)) == (1, 4)


async def test_an_endless_answer_is_not_read(pauses: list[float]) -> None:
    """The status is all that counts."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    sender, seen = await deliver(lambda _: httpx2.Response(200, content=endless()))
    assert (sender.sent, len(seen)) == (1, 1)
