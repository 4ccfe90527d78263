"""What a stranger can learn about which accounts exist: nothing by the answer, by the work, or by the time.

The work is counted exactly: every password hash with its cost, every statement to the store. The time is behind that,
for what nobody thought of counting: known and unknown names in turn, compared by rank, so that a busy machine meets
both and a few slow answers say nothing. Once would be chance; three times is a difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from argon2 import Parameters, PasswordHasher
from sqlalchemy import event

from tests.issuer.desk import PASSWORD, Desk
from tests.issuer.test_oauth import CLIENTS, open_page

pytestmark = pytest.mark.asyncio

_SETTINGS: dict[str, Any] = {
    "registration": "verified",
    "webhook": {"url": "https://mail.example/hook", "secret": "0123456789abcdef"},
    "throttle": {"account": 100_000, "address": 100_000},
    "clients": CLIENTS,
}
# As much as is hashed without a process of its own, whose low priority would be the largest part of what is measured.
_COSTLY = {"time_cost": 1, "memory": "3MiB"}
_LEFT_OUT_S = 0.03  # what a hash at the usual cost takes, or less
_ROUNDS, _REPETITIONS = 40, 3
_ALIKE = 0.18  # of the area under the curve, either way; chance alone gives 0.065 (one standard deviation)

KNOWN, UNKNOWN, DISABLED, PENDING = "alice", "nobody", "dora", "paul"


@contextlib.asynccontextmanager
async def house(store_url: str, **settings: Any) -> AsyncIterator[Desk]:
    """An issuer with a user, a disabled one, and one who has not confirmed the address yet."""
    async with Desk(store_url, **{**_SETTINGS, **settings}) as desk:
        from gateway.issuer.accounts import read_registration

        for name in (KNOWN, DISABLED):
            asked = read_registration(name, f"{name}@example.org", PASSWORD)
            user = await desk.issuer.accounts.add(asked)
            if name == DISABLED:
                await desk.issuer.accounts.disable(user.id)
        await desk.post("register", {"email": f"{PENDING}@example.org", "password": PASSWORD})
        yield desk


@dataclass
class Form:
    """The log-in page, opened once for all attempts."""

    fields: dict[str, str]
    cookie: str


async def ask(desk: Desk, door: str, name: str, form: Form | None = None) -> httpx2.Response:
    """Knock at one door with this name."""
    email = f"{name}@example.org"
    if door == "page":
        assert form is not None
        fields = {**form.fields, "username": name, "password": "wrong password"}
        desk.client.cookies.clear()
        return await desk.client.post("/auth/authorize", data=fields, headers={"cookie": form.cookie})
    path, members = {
        "login by name": ("login", {"username": name, "password": "wrong password"}),
        "login by e-mail": ("login", {"email": email, "password": "wrong password"}),
        "register": ("register", {"email": email, "password": PASSWORD}),
        "reset by name": ("password/forgot", {"username": name}),
        "reset by e-mail": ("password/forgot", {"email": email}),
    }[door]
    return await desk.post(path, members)


async def opened_page(desk: Desk) -> Form:
    """The log-in page."""
    form, cookie = await open_page(desk)
    return Form(form.inputs, cookie)


DOORS = ("login by name", "login by e-mail", "page", "register", "reset by name", "reset by e-mail")


@contextlib.contextmanager
def working(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collects what is done: statements without their values, hashes by their cost."""
    done: list[str] = []
    run = desk.issuer.pool._run

    async def running(question: dict[str, Any], cost: Parameters | PasswordHasher) -> str | bool:
        kind = "verify" if "verify" in question else "hash"
        done.append(f"{kind} {cost.memory_cost} {cost.time_cost} {cost.parallelism}")
        return await run(question, cost)

    def executing(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        done.append(statement)

    engine = desk.issuer.database._engine.sync_engine
    with monkeypatch.context() as patch:
        patch.setattr(desk.issuer.pool, "_run", running)
        event.listen(engine, "before_cursor_execute", executing)
        try:
            yield done
        finally:
            event.remove(engine, "before_cursor_execute", executing)


async def test_a_known_name_is_the_same_answer_and_the_same_work(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a user, nobody, a disabled one and one who has not confirmed: every byte, every statement, every hash."""
    async with house(store_url) as desk:
        form = await opened_page(desk)
        for door in DOORS:
            answers, works = set(), set()
            for name in (KNOWN, UNKNOWN, DISABLED, PENDING):
                await ask(desk, door, name, form)  # counts from here on have their rows
                with working(desk, monkeypatch) as done:
                    answer = await ask(desk, door, name, form)
                answers.add((answer.status_code, *_comparable(answer, name)))
                works.add(tuple(done))
            assert len(answers) == 1, door
            assert len(works) == 1, door
            [work] = works
            hashes = sum(step.startswith(("verify", "hash")) for step in work)
            assert hashes == (0 if door.startswith("reset") else 1), door


def _comparable(answer: httpx2.Response, name: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Text and headers, without what the page repeats of the request and what is random in every one."""
    text = answer.text.replace(name, "NAME")
    if "<form" in text:
        text = text[: text.index('name="request"')] + text[text.index("<label") :]
    kept = sorted(pair for pair in answer.headers.items() if pair[0] not in ("content-length", "set-cookie"))
    return text, tuple(kept)


async def test_a_token_that_was_never_sent_and_one_that_is_too_old_are_one_answer(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Confirming an address and resetting a password tell only whoever has the token."""
    async with house(sqlite_url) as desk:
        await ask(desk, "reset by name", KNOWN)
        sent = [desk.issuer.webhook._queue.get_nowait().token for _ in range(2)]
        desk.clock.wind(90_000)
        for path, old in zip(("verify", "password/reset"), sent, strict=True):
            answers, works = set(), set()
            for token in (old, "x" * 43):
                with working(desk, monkeypatch) as done:
                    answer = await desk.post(path, {"token": token, "new_password": "another good one"})
                answers.add((answer.status_code, answer.content))
                works.add(tuple(done))
            assert len(answers) == len(works) == 1
            assert answer.json()["code"] == "token_unusable"


# --- time ------------------------------------------------------------------------------------------------------------


def area(one: list[float], other: list[float]) -> float:
    """How often a value of `one` is larger than one of `other`: Mann and Whitney's U as a share; 0.5 if alike."""
    wins = sum((x > y) + (x == y) / 2 for x in one for y in other)
    return wins / (len(one) * len(other))


async def measured(desk: Desk, door: str, form: Form | None, rounds: int) -> float:
    """The area of known over unknown names, asked in turn, in either order."""
    taken: dict[str, list[float]] = {KNOWN: [], UNKNOWN: []}
    for _ in range(rounds):
        for name in random.sample([KNOWN, UNKNOWN], 2):
            before = time.perf_counter()
            await ask(desk, door, name, form)
            taken[name].append(time.perf_counter() - before)
    return area(taken[KNOWN], taken[UNKNOWN])


async def are_told_apart(desk: Desk, door: str) -> bool:
    """Whether the time tells known from unknown names, again and again."""
    form = await opened_page(desk) if door == "page" else None
    await ask(desk, door, KNOWN, form)
    await ask(desk, door, UNKNOWN, form)
    for _ in range(_REPETITIONS):
        if abs(await measured(desk, door, form, _ROUNDS) - 0.5) < _ALIKE:
            return False
    return True


@pytest.mark.parametrize("door", ["login by name", "register", "reset by e-mail"])
async def test_how_long_an_answer_takes_says_nothing(sqlite_url: str, door: str) -> None:
    """Who measures cannot tell a known name from an unknown one."""
    async with house(sqlite_url, passwords=_COSTLY) as desk:
        assert not await are_told_apart(desk, door)


async def test_the_measurement_would_notice_a_hash_left_out(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison for unknown names both the work and the time give them away."""
    async with house(sqlite_url) as desk:
        verify: Callable[..., Any] = desk.issuer.pool.verify
        decoy = desk.issuer.decoys.of(UNKNOWN)

        async def skipping(password_hash: str, prepared: str) -> bool:
            if password_hash == decoy:
                return False
            await asyncio.sleep(_LEFT_OUT_S)  # stands for a costly hash, which a busy machine would stretch
            return bool(await verify(password_hash, prepared))

        monkeypatch.setattr(desk.issuer.pool, "verify", skipping)
        works = []
        for name in (KNOWN, UNKNOWN):
            await ask(desk, "login by name", name)
            with working(desk, monkeypatch) as done:
                await ask(desk, "login by name", name)
            works.append(tuple(done))
        assert works[0] != works[1]
        for _ in range(5):  # a very busy machine may hide it now and then
            if area_is_suspicious := abs(await measured(desk, "login by name", None, 15) - 0.5) >= _ALIKE:
                break
        assert area_is_suspicious
