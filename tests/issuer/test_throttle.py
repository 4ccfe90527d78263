"""Back-off: the same rules in the store and in Redis, and what happens while Redis is away."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from gateway.config.issuance import Throttle as Config
from gateway.errors import RateLimited
from gateway.issuer.store import Database
from gateway.issuer.throttle import Counts, CountsUnavailable, Throttle, network_of
from gateway.issuer.throttle_redis import PREFIX, RedisCounts
from gateway.issuer.throttle_store import StoreCounts
from gateway.redis.address import parse_redis
from gateway.redis.masters import MasterLinks
from gateway.redis.slots import slot_of
from gateway.redis.topology import Topology
from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.desk import PASSWORD, Clock, Desk
from tests.issuer.house import config_text
from tests.redis_server import RedisServer

pytestmark = pytest.mark.asyncio

TIMEOUT_S = 0.25
RULES = Config.model_validate({"account": 2, "address": 4, "longest": "3s", "forget": "60s"})
_WIND = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local left = redis.call('PTTL', key) - ARGV[2]
  if left <= 0 then redis.call('DEL', key) else redis.call('PEXPIRE', key, left) end
end
"""


def links_to(url: str) -> MasterLinks:
    """Links as a gateway opens them."""
    return MasterLinks(Topology(parse_redis(url), None, TIMEOUT_S), TIMEOUT_S)


@dataclass
class Counting:
    """Counts of either kind, and their time."""

    counts: Counts
    clock: Clock
    redis: RedisServer | None

    def wind(self, seconds: float) -> None:
        """Let time pass; in Redis, whose clock is its own, everything ends so much sooner."""
        self.clock.wind(seconds)
        if self.redis is not None:
            self.redis.cli("EVAL", _WIND, 0, f"{PREFIX}*", math.ceil(seconds * 1000))

    async def wait_s(self, *keys: str, free: int = 2) -> int:
        """Seconds that the next attempt has to wait, rounded up."""
        return math.ceil(await self.counts.enter(keys, [free] * len(keys), self.clock.now))


@pytest_asyncio.fixture(params=["store", "redis"])
async def counting(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Counting]:
    """Counts in an empty store, or in an empty Redis."""
    if request.param == "store":
        database = Database(sqlite_url)
        await database.open()
        yield Counting(StoreCounts(database, RULES), Clock(), None)
        await database.close()
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        counts = RedisCounts(links_to(server.url), "own", RULES)
        yield Counting(counts, Clock(), server)
        counts.close()


async def test_failures_beyond_the_free_ones_block_for_longer_and_longer(counting: Counting) -> None:
    """1, 2 and then 3 seconds, the longest; after a while without failures all is forgotten."""
    assert [await counting.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    waits: list[int] = []
    for _ in range(3):
        counting.wind(waits[-1] if waits else 1)
        assert await counting.wait_s("a") == 0
        waits.append(await counting.wait_s("a"))
    assert waits == [2, 3, 3]
    counting.wind(61)
    assert [await counting.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]


async def test_a_refused_attempt_counts_on_nobody(counting: Counting) -> None:
    """From a blocked address an account cannot be blocked further."""
    assert [await counting.wait_s("address") for _ in range(4)] == [0, 0, 0, 1]
    for _ in range(9):
        assert await counting.wait_s("account", "address") == 1
    assert [await counting.wait_s("account") for _ in range(4)] == [0, 0, 0, 1]


async def test_success_forgets_the_account_and_one_failure_of_the_address(counting: Counting) -> None:
    """A user who has typed it wrong before is free again; whoever shares the address keeps its count."""
    for _ in range(3):
        assert await counting.wait_s("account", "address") == 0
    await counting.counts.take_back(["account", "address"], [True, False])
    assert [await counting.wait_s("account") for _ in range(4)] == [0, 0, 0, 1]
    assert [await counting.wait_s("address") for _ in range(2)] == [0, 1]


async def test_what_was_no_attempt_is_taken_back_and_never_below_zero(counting: Counting) -> None:
    """The count is as before; taking back twice gives nobody a credit."""
    assert await counting.wait_s("a") == 0
    await counting.counts.take_back(["a"], [False])
    await counting.counts.take_back(["a"], [False])
    assert [await counting.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]


async def test_parallel_attempts_are_all_counted(counting: Counting) -> None:
    """Guesses sent at once cannot pass together."""
    waits = await asyncio.gather(*(counting.wait_s("a") for _ in range(12)))
    assert sorted(waits) == [0, 0, 0] + [1] * 9


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # one customer
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),  # a listener on ::
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "unix", True),
    ],
)
async def test_who_shares_an_address(one: str, other: str, are_one: bool) -> None:
    """An IPv4 address, however it is written, or an IPv6 /64."""
    assert (network_of(one) == network_of(other)) is are_one


async def test_names_and_addresses_cannot_be_read_from_the_counts(sqlite_url: str, redis_server: RedisServer) -> None:
    """Keys are keyed hashes: whoever reads Redis cannot even check a guess. In a Cluster one master has them all."""
    async with Desk(sqlite_url, redis=links_to(redis_server.url)) as desk:
        await desk.post("login", {"username": "alice", "password": PASSWORD})
        keys = redis_server.cli("KEYS", "*").split()
        assert len(keys) == 2
        assert all(re.fullmatch(PREFIX + r"\{own\}:(account|address):[0-9a-f]{64}", key) for key in keys)
        assert len({slot_of(key) for key in [*keys, f"{keys[0]}:block"]}) == 1
        assert all(int(redis_server.cli("PTTL", key)) > 0 for key in keys)


async def test_gateways_count_together_in_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    """A guesser who goes from one gateway to the next is known there."""
    url = f"sqlite://{tmp_path}/issuer.db"
    async with (
        Desk(url, redis=links_to(redis_server.url)) as one,
        Desk(url, redis=links_to(redis_server.url)) as two,
    ):
        for desk in (one, two) * 3:
            await desk.post("login", {"username": "alice", "password": "wrong password"})
        for desk in (one, two):
            assert (await desk.post("login", {"username": "alice", "password": PASSWORD})).status_code == 429
            assert list(desk.issuer.throttle.samples())[1].value == 0


async def test_a_killed_redis_neither_locks_out_nor_lets_guessers_pass(sqlite_url: str, own_redis: RedisServer) -> None:
    """The store counts meanwhile, from zero; each fallback is counted, and Redis is found again."""
    clock = Clock()
    async with Desk(sqlite_url, clock=clock, redis=links_to(own_redis.url)) as desk:
        await desk.register("alice")
        wrong = {"username": "alice", "password": "wrong password"}
        blocked = [(await desk.post("login", wrong)).status_code for _ in range(7)]
        assert blocked == [401] * 6 + [429]
        own_redis.kill()
        await desk.login("alice")  # not locked out
        during = [(await desk.post("login", wrong)).status_code for _ in range(7)]
        assert during == [401] * 6 + [429]  # nor free to guess
        assert desk.issuer.throttle.fallbacks == 8
        own_redis.start()
        counts: Any = desk.issuer.throttle._shared
        counts._again_at = 0.0
        assert (await desk.post("login", wrong)).status_code == 401  # Redis counts again
        assert desk.issuer.throttle.fallbacks == 8


async def test_a_redis_that_does_not_answer_is_waited_for_once(own_redis: RedisServer) -> None:
    """One deadline, then a second in which nobody asks it."""
    now = [100.0]
    counts = RedisCounts(links_to(own_redis.url), "own", RULES, lambda: now[0])
    assert await counts.enter(["a"], [2], 0.0) == 0.0
    own_redis.freeze()
    with pytest.raises(CountsUnavailable, match="no answer within 250 ms"):
        await counts.enter(["a"], [2], 0.0)
    with pytest.raises(CountsUnavailable, match="a moment ago"):
        await counts.enter(["a"], [2], 0.0)
    own_redis.thaw()
    now[0] += 1.5
    assert await counts.enter(["a"], [2], 0.0) == 0.0
    counts.close()


async def test_the_documented_permissions_suffice(own_redis: RedisServer) -> None:
    """A user with the denylist's permissions and the further ones can count, and one without them falls back."""
    docs = Path(__file__).parents[2] / "docs"
    for page, found in (("revocation.md", "~gateway:deny:"), ("issuer.md", "~gateway:throttle:")):
        text = (docs / page).read_text(encoding="utf-8")
        line = next(line for line in text.splitlines() if line.startswith("ACL SETUSER gateway") and found in line)
        rules = line.replace("PASSWORD", "pw").split()[3:]
        counts = RedisCounts(links_to(own_redis.url.replace("://", "://gateway:pw@")), "own", RULES)
        own_redis.cli("ACL", "SETUSER", "gateway", *rules)
        if page == "revocation.md":
            with pytest.raises(CountsUnavailable, match="NOPERM"):
                await counts.enter(["a"], [2], 0.0)
        else:
            for _ in range(4):
                await counts.enter(["a"], [2], 0.0)
            await counts.take_back(["a", "b"], [False, True])
        counts.close()


async def test_a_refusal_says_when_to_come_back(sqlite_url: str) -> None:
    """In whole seconds, rounded up."""
    database = Database(sqlite_url)
    await database.open()
    throttle = Throttle(database, RULES, b"key")
    refused: Callable[[], Any] = lambda: throttle.enter("alice", "192.0.2.1", 1000.5)  # noqa: E731
    for _ in range(3):
        await refused()
    with pytest.raises(RateLimited) as raised:
        await refused()
    assert raised.value.retry_after_s == 1
    assert throttle.refused == 1
    await database.close()


@pytest.mark.e2e
async def test_a_whole_gateway_counts_in_the_denylists_redis(
    sqlite_url: str,
    redis_server: RedisServer,
    upstream: RecordingUpstream,
    start_gateway: Callable[..., GatewayProcess],
) -> None:
    """Nothing but `denylist.store` is needed; its answer says when to come back."""
    text = config_text(sqlite_url, redis_server.url, upstream.url).replace("account: 100000", "account: 2")
    async with start_gateway(text) as gateway, httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        wrong = {"username": "alice", "password": "wrong password"}
        answers = [await http.post(f"http://127.0.0.1:{gateway.port}/auth/login", json=wrong) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401] * 3 + [429]
        assert answers[-1].headers["retry-after"] == "1"
        kinds = [key.split(":")[3] for key in redis_server.cli("KEYS", f"{PREFIX}*").split()]
        assert sorted(kinds) == ["account", "account", "address"]  # one of them the block
