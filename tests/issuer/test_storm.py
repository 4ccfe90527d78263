"""Many devices refresh at once while answers get lost and gateways are killed: nobody is signed out but the robbed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx2
import pytest
import pytest_asyncio

from gateway.issuer.refresh_tokens import Verdict
from gateway.issuer.service import Issuer
from gateway.issuer.store.tables import sessions
from tests.benchmarks.measure import percentile
from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.desk import issuance
from tests.issuer.house import AnswerLost, App, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio, pytest.mark.timeout(180)]

TABS = 5  # of one session, which refresh at the same time with the same token
LOSS = 0.1
PAUSE_S = 0.3  # at most, before a request is repeated


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client that never waits for itself."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx2.AsyncClient(trust_env=False, timeout=30, limits=limits) as client:
        yield client


@dataclass
class Owner(App):
    """A session whose tabs do not talk to each other; `seen` is every refresh token that ever left for it."""

    user: str = ""
    seen: set[str] = field(default_factory=set)

    def take(self, answer: httpx2.Response) -> None:
        """Keep the tokens of an answer."""
        super().take(answer)
        self.seen.add(self.refresh_token)


@dataclass
class Storm:
    """What goes on around the sessions, and what became of it."""

    gateways: list[GatewayProcess]
    chance: random.Random
    met: Counter[str] = field(default_factory=Counter)
    taken_s: list[float] = field(default_factory=list)

    async def kill(self, kills: int) -> None:
        """Kill a gateway at a random moment, without a warning, and start it again; so many times."""
        for _ in range(kills):
            await asyncio.sleep(self.chance.uniform(0.05, 0.6))
            victim = self.chance.choice(self.gateways)
            os.kill(victim.pid, signal.SIGKILL)
            await victim.stop()
            await victim.start()
            self.met["kills"] += 1

    async def insist(self, owner: Owner, refresh_token: str) -> httpx2.Response:
        """The answer to a refresh with this token, however often it takes; every token in an answer is noted."""
        started = time.monotonic()
        while True:
            wait_s = 0.0
            try:
                answer = await owner.post("refresh", {"refresh_token": refresh_token})
            except AnswerLost:
                self.met["cut off"] += 1
            else:
                if answer.status_code == 200:
                    owner.seen.add(answer.json()["refresh_token"])
                if answer.status_code in (200, 401) and self.chance.random() >= LOSS:
                    self.met[f"answers {answer.status_code}"] += 1
                    self.taken_s.append(time.monotonic() - started)
                    return answer
                self.met["answers lost" if answer.status_code in (200, 401) else f"told {answer.status_code}"] += 1
                wait_s = float(answer.headers.get("retry-after", 0))
            await asyncio.sleep(wait_s + self.chance.random() * PAUSE_S)

    async def refresh_in_every_tab(self, owner: Owner) -> None:
        """All tabs at once with the same token: each is served, and all with the same successor."""
        present = owner.refresh_token
        answers = await asyncio.gather(*(self.insist(owner, present) for _ in range(TABS)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200}, f"session {owner.sid} was signed out: {statuses}"
        successors = {answer.json()["refresh_token"] for answer in answers}
        assert len(successors) == 1, f"session {owner.sid} has {len(successors)} successors"
        owner.take(answers[0])

    async def rob(self, owner: Owner, stolen: str) -> None:
        """A thief presents an old token of a session that is in use: it ends, whoever comes first."""
        uses = [self.insist(owner, owner.refresh_token) for _ in range(TABS)]
        theft, *used = await asyncio.gather(self.insist(owner, stolen), *uses)
        assert theft.status_code == 401
        for answer in used:
            if answer.status_code == 200:
                owner.take(answer)

    def __str__(self) -> str:
        taken = sorted(self.taken_s)
        figures = ", ".join(f"{name}: {count}" for name, count in sorted(self.met.items()))
        return (
            f"{figures}; served after {percentile(taken, 0.5):.2f} s (median), "
            f"{percentile(taken, 0.99):.2f} s (p99), {taken[-1]:.2f} s at most"
        )


async def check_store(store_url: str, owners: list[Owner], robbed: set[str]) -> None:
    """Ended are the robbed sessions, for that reason; of all tokens of another, one alone leads to a next one."""
    issuer = Issuer(issuance(store_url), None)
    await issuer.open()
    try:
        async with issuer.database.read() as connection:
            rows = {row.id: row for row in (await connection.execute(sessions.select())).all()}
        assert {row.id for row in rows.values() if row.ended_at is not None} == robbed
        assert {rows[sid].end_reason for sid in robbed} <= {"token reuse"}
        for owner in owners:
            verdicts: Counter[Verdict] = Counter()
            for text in owner.seen:
                token = issuer.sessions.recognise(text)
                assert token is not None
                found = await issuer.sessions.peek(token)
                assert found is not None
                verdicts[found[0]] += 1
            if owner.sid in robbed:
                assert set(verdicts) == {Verdict.ENDED}
            else:
                assert verdicts[Verdict.ROTATE] == 1
                assert verdicts[Verdict.REPEAT] + verdicts[Verdict.REPLACE] <= 1
                assert set(verdicts) <= {Verdict.ROTATE, Verdict.REPEAT, Verdict.REPLACE, Verdict.REUSED}
    finally:
        await issuer.close()


async def check_gateways(gateways: list[GatewayProcess], owners: list[Owner], robbed: set[str]) -> None:
    """Every gateway lets everybody in but the robbed."""
    for gateway in gateways:
        for owner in owners:
            owner.gateways = [gateway]
            if owner.sid in robbed:
                async with asyncio.timeout(10):
                    while (answer := await owner.get("/api/x")).status_code == 200:
                        await asyncio.sleep(0.02)  # the revocation is on its way
                assert answer.json()["code"] == "token_revoked"
            else:
                assert (await owner.get("/api/x")).status_code == 200


@pytest.mark.parametrize(
    ("count", "rounds", "kills"),
    [(20, 2, 2), pytest.param(200, 4, 8, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
async def test_lost_answers_and_kills_sign_nobody_out(
    store_url: str,
    redis_url: str,
    upstream: RecordingUpstream,
    start_gateway: Callable[..., GatewayProcess],
    http: httpx2.AsyncClient,
    count: int,
    rounds: int,
    kills: int,
) -> None:
    """Five refreshes of each session at once, a tenth of the answers lost, gateways killed, old tokens replayed."""
    # Longer than the storm, so that the order in which late answers come says nothing about thieves.
    settings = "  refresh_token: {grace: 15m}\n"
    async with start_gateway(config_text(store_url, redis_url, upstream.url, issuer=settings)) as one:
        text = config_text(store_url, redis_url, upstream.url, issuer=settings, port=str(one.port))
        async with start_gateway(text) as two:
            storm = Storm([one, two], random.Random(7))
            owners = [Owner(http, [one, two], random.Random(number), user=f"user{number}") for number in range(count)]
            for owner in owners:
                await owner.register(owner.user)
            first = {owner.sid: owner.refresh_token for owner in owners}
            victims = storm.chance.sample(owners, count // 10)
            others = [Owner(http, [one, two], random.Random(owner.sid), user=owner.user) for owner in victims]
            for other in others:
                await other.login(other.user)

            started = time.monotonic()
            killing = asyncio.create_task(storm.kill(kills))
            for _ in range(rounds):
                await asyncio.gather(*(storm.refresh_in_every_tab(owner) for owner in [*owners, *others]))
            await asyncio.gather(
                *(storm.rob(owner, first[owner.sid]) for owner in victims),
                *(storm.refresh_in_every_tab(owner) for owner in owners if owner not in victims),
            )
            await killing
            print(f"\n{count} sessions of {count} users, {time.monotonic() - started:.1f} s: {storm}")

            robbed = {owner.sid for owner in victims}
            await check_store(store_url, [*owners, *others], robbed)
            await check_gateways([one, two], [*owners, *others], robbed)
