"""Live connections: who is found when something is revoked, when a token expires, and when the process stops."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from gateway import live as module
from gateway.denylist.replica import Replica
from gateway.live import Kind, LiveConnections, Watch
from gateway.tokens.claims import Token
from gateway.tokens.status_list import StatusList
from tests.tokens.mint import KeysAtHand, key_set
from tests.tokens.test_standing import URI as LIST
from tests.tokens.test_standing import Lists, status, verified

pytestmark = pytest.mark.asyncio

NOW = 1_800_000_000.0


class Connection:
    """A connection that notes what it is told, and leaves as it is told to."""

    def __init__(self, registry: LiveConnections, kind: Kind = "websocket") -> None:
        self.registry = registry
        self.kind: Kind = kind
        self.told: list[str] = []

    def end(self, code: str) -> None:
        """Take note, and leave."""
        self.told.append(code)
        self.registry.leave(self)


class Counting(Replica):
    """A replica that counts how many tokens it was asked about."""

    asked = 0

    def find(self, *args: Any, **kwargs: Any) -> Any:
        """As the replica finds it."""
        self.asked += 1
        return super().find(*args, **kwargs)


class Clock:
    """A wall clock that is wound by hand."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def token(**changes: Any) -> Token:
    """A token of alice, issued a minute ago, good for an hour."""
    fields: dict[str, Any] = {
        "issuer": "main",
        "alg": "ES256",
        "kid": "k1",
        "claims": {},
        "subject": "alice",
        "token_id": "t1",
        "session_id": "s1",
        "client_id": "app",
        "issued_at": NOW - 60,
        "expires_at": NOW + 3600,
        "not_before": None,
        "audience": frozenset({"api"}),
        "scopes": frozenset(),
    }
    return Token(**{**fields, **changes})


def until(token: Token) -> float:
    """As the verifier says it, without leeway."""
    return token.expires_at


@pytest.fixture
def replica() -> Counting:
    """A loaded replica with nothing in it."""
    return Counting()


@pytest.fixture
def clock() -> Clock:
    """Stands at NOW."""
    return Clock()


@pytest_asyncio.fixture
async def registry(replica: Counting, clock: Clock) -> AsyncIterator[LiveConnections]:
    """A registry at work."""
    live = LiveConnections(replica, wall=clock)
    running = asyncio.create_task(live.run())
    yield live
    running.cancel()


async def turns(count: int = 5) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def numbers(registry: LiveConnections, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric that are not 0, by label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for sample in registry.samples()
        if sample.name == name and sample.value
    }


async def test_of_ten_thousand_only_the_revoked_users_connections_are_looked_at(
    registry: LiveConnections, replica: Counting
) -> None:
    """One revocation asks about the three tokens it names, not about all; their connections end and no other."""
    connections = {}
    for number in range(10_000):
        user = f"user-{number // 3}"  # three connections each
        connection = Connection(registry)
        connections[connection] = user
        registry.enter(
            connection, token(subject=user, token_id=f"t{number}", session_id=f"s{number}"), until, lasts=True
        )
    await turns(10_000 // module.SLICE + 5)
    assert len(registry) == 10_000
    replica.asked = 0
    replica.put("subject:main:user-1234", f"{NOW}", NOW + 900)
    await turns()
    assert replica.asked == 3
    assert {user for connection, user in connections.items() if connection.told} == {"user-1234"}
    assert sum(connection.told == ["token_revoked"] for connection in connections) == 3
    assert len(registry) == 9_997
    assert numbers(registry, "gateway_live_connections") == {("websocket",): 9_997}
    assert numbers(registry, "gateway_live_ended_total") == {("websocket", "token_revoked"): 3}


@pytest.mark.parametrize(
    "key", ["token:main:t1", "session:main:s1", "subject:main:alice", "client:main:app", "key:main:k1", "issuer:main"]
)
async def test_every_kind_of_entry_ends_what_it_denies(registry: LiveConnections, replica: Replica, key: str) -> None:
    """The index has a connection under each key that could deny its token."""
    named = Connection(registry)
    other = Connection(registry)
    registry.enter(named, token(), until, lasts=True)
    registry.enter(
        other,
        token(issuer="second", token_id="t2", session_id="s2", subject="bob", client_id="web", kid="k2"),
        until,
        lasts=True,
    )
    replica.put(key, f"{NOW}", NOW + 900)
    await turns()
    assert (named.told, other.told) == (["token_revoked"], [])


@pytest.mark.parametrize(
    ("key", "value", "expires_at"),
    [
        ("subject:main:alice", f"{NOW - 61}", NOW + 900),  # what was issued before then; she has logged in since
        ("subject:main:alice", f"{NOW}", NOW - 1),  # an entry that has ended
        ("subject:other:alice", f"{NOW}", NOW + 900),
        ("token:main:alice", "1", NOW + 900),
    ],
)
async def test_what_does_not_deny_the_token_does_not_end_the_connection(
    registry: LiveConnections, replica: Replica, key: str, value: str, expires_at: float
) -> None:
    """The replica decides, by the rule that decides for requests; a later entry still ends it."""
    connection = Connection(registry)
    registry.enter(connection, token(), until, lasts=True)
    replica.put(key, value, expires_at)
    await turns()
    assert connection.told == []
    replica.put("subject:main:alice", f"{NOW}", NOW + 900)
    await turns()
    assert connection.told == ["token_revoked"]


async def test_a_revocation_between_the_check_and_the_index_is_not_missed(
    registry: LiveConnections, replica: Replica
) -> None:
    """A connection that was allowed before an entry came, and settles after it, ends."""
    connection = Connection(registry, "events")
    registry.enter(connection, token(), until)
    replica.put("token:main:t1", "1", NOW + 900)
    await turns()
    assert connection.told == []  # it is not in the index yet
    registry._settle_all()
    await turns()
    assert connection.told == ["token_revoked"]


async def test_a_response_that_has_only_just_begun_is_not_cut(registry: LiveConnections, replica: Replica) -> None:
    """It has a whole tick at the least: its client could not tell a cut from a broken upstream."""
    connection = Connection(registry, "response")
    registry.enter(connection, token(), until)
    replica.put("token:main:t1", "1", NOW + 900)
    registry._tick()
    await turns()
    assert connection.told == []
    registry._tick()
    await turns()
    assert connection.told == ["token_revoked"]


async def test_a_short_response_never_reaches_the_index(registry: LiveConnections, replica: Counting) -> None:
    """Who leaves before settling was one entry in a dictionary, and nobody was asked about it."""
    connection = Connection(registry, "response")
    registry.enter(connection, token(), until)
    registry.leave(connection)
    registry._settle_all()
    await turns()
    assert (len(registry), replica.asked, registry._by_key, registry._expiring) == (0, 0, {}, [])


async def test_what_lasts_settles_by_itself(registry: LiveConnections, monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer settles all that came since the last; it runs only while somebody waits for it."""
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    first, second = Connection(registry, "events"), Connection(registry, "response")
    registry.enter(first, token(), until)
    registry.enter(second, token(), until)
    async with asyncio.timeout(5):
        while len(registry) < 2:
            await asyncio.sleep(0)
    assert registry._settling is None
    assert numbers(registry, "gateway_live_connections") == {("events",): 1, ("response",): 1}


async def test_a_response_that_has_just_begun_is_not_cut(
    registry: LiveConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the timer falls, a response has at least a whole tick to finish; what lasts by its nature has none."""
    monkeypatch.setattr(module, "SETTLE_S", 3600.0)
    brief, stream = Connection(registry, "response"), Connection(registry, "events")
    registry.enter(brief, token(), until)
    registry.enter(stream, token(), until, lasts=True)
    assert len(registry) == 1
    registry._tick()
    assert len(registry) == 1
    registry._tick()
    assert len(registry) == 2


async def test_a_token_that_expires_ends_its_connections(registry: LiveConnections, clock: Clock) -> None:
    """At the moment until which requests would be accepted, and in the order of those moments, not of arrival."""
    late, soon = Connection(registry), Connection(registry)
    registry.enter(late, token(expires_at=NOW + 60), until, lasts=True)
    registry.enter(soon, token(expires_at=NOW + 0.01), until, lasts=True)
    await turns()
    assert soon.told == []
    clock.now = NOW + 0.01
    async with asyncio.timeout(5):
        while not soon.told:
            await asyncio.sleep(0.001)  # a real timer: it sleeps the hundredth of a second that it was told
    assert (soon.told, late.told) == (["token_expired"], [])
    assert registry._expire(NOW + 59) == 1.0
    clock.now = NOW + 60
    registry._expire(clock.now)
    await turns()
    assert late.told == ["token_expired"]


async def test_a_clock_that_is_set_back_ends_nothing_early(registry: LiveConnections, clock: Clock) -> None:
    """Sleep is bounded, so that a clock that was set is noticed; what is due is decided by the clock alone."""
    connection = Connection(registry)
    registry.enter(connection, token(expires_at=NOW + 1e6), until, lasts=True)
    assert registry._expire(NOW) == 30.0
    clock.now = NOW - 1000
    registry._expire(clock.now)
    await turns()
    assert connection.told == []


async def test_many_at_once_are_told_a_few_per_turn(registry: LiveConnections, replica: Replica) -> None:
    """A client revoked with all its users does not hold up the loop until everybody is told."""
    connections = [Connection(registry) for _ in range(3 * module.SLICE)]
    for connection in connections:
        registry.enter(connection, token(), until, lasts=True)
    await turns(10)
    replica.put("client:main:app", f"{NOW}", NOW + 900)
    replica.put("client:main:app", f"{NOW}", NOW + 900)  # heard twice, told once
    told = []
    for _ in range(5):
        await asyncio.sleep(0)
        told.append(sum(connection.told == ["token_revoked"] for connection in connections))
    assert told == [module.SLICE, 2 * module.SLICE, 3 * module.SLICE, 3 * module.SLICE, 3 * module.SLICE]
    assert registry._by_key == {}


async def test_who_leaves_meanwhile_is_not_told(registry: LiveConnections, replica: Replica) -> None:
    """A connection that ended by itself is neither told nor counted."""
    connection = Connection(registry)
    registry.enter(connection, token(), until, lasts=True)
    await turns()
    replica.put("subject:main:alice", f"{NOW}", NOW + 900)
    registry.leave(connection)
    registry.leave(connection)
    await turns()
    assert connection.told == []
    assert numbers(registry, "gateway_live_ended_total") == {}


async def test_a_route_may_let_them_finish(registry: LiveConnections, replica: Replica, clock: Clock) -> None:
    """Neither revocation nor expiry ends them; a process that stops does."""
    patient = Connection(registry)
    watch = Watch(registry, until, ends=False)
    watch.enter(patient, token(), lasts=True)
    replica.put("subject:main:alice", f"{NOW}", NOW + 900)
    clock.now = NOW + 7200
    registry._expire(clock.now)
    await turns()
    assert patient.told == []
    assert watch.is_over(token()) == ""
    registry.end_all()
    await turns()
    assert patient.told == ["going_away"]


async def test_a_process_that_stops_ends_what_would_not_end_by_itself(registry: LiveConnections) -> None:
    """WebSockets and event streams, just opened or anonymous too; a download may complete."""
    socket, stream, download, anonymous = (
        Connection(registry, kind) for kind in ("websocket", "events", "response", "events")
    )
    registry.enter(socket, token(), until, lasts=True)
    for connection in (stream, download):
        registry.enter(connection, token(), until)
    registry.enter(anonymous, None, until)
    registry.end_all()
    await turns()
    assert [one.told for one in (socket, stream, download, anonymous)] == [["going_away"]] * 2 + [[], ["going_away"]]


async def test_a_revoked_token_counts_before_the_end_of_the_process(
    registry: LiveConnections, replica: Replica
) -> None:
    """A client that is told to come back would only be refused."""
    connection = Connection(registry)
    registry.enter(connection, token(), until, lasts=True)
    replica.put("subject:main:alice", f"{NOW}", NOW + 900)
    registry.end_all()
    await turns()
    assert connection.told == ["token_revoked"]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda replica, clock: None, ""),
        (lambda replica, clock: replica.put("token:main:t1", "1", None), "token_revoked"),
        (lambda replica, clock: setattr(clock, "now", NOW + 3600), "token_expired"),
    ],
)
async def test_a_verdict_may_be_asked_for(
    registry: LiveConnections, replica: Replica, clock: Clock, change: Callable[[Any, Any], None], verdict: str
) -> None:
    """For a response that was long in coming and has not begun; one without a token is never over."""
    change(replica, clock)
    watch = Watch(registry, until, ends=True)
    assert watch.is_over(token()) == verdict
    assert watch.is_over(None) == ""


async def test_moments_of_who_has_left_do_not_pile_up(registry: LiveConnections) -> None:
    """Many short streams with tokens that last long leave a bounded heap behind."""
    for number in range(5000):
        connection = Connection(registry, "events")
        registry.enter(connection, token(token_id=f"t{number}"), until, lasts=True)
        registry.leave(connection)
    assert len(registry._expiring) <= 1001
    assert registry._by_key == {}


@pytest.mark.parametrize("rests_on", ["its key", "its status"])
async def test_what_a_token_rests_on_ends_its_connections(registry: LiveConnections, rests_on: str) -> None:
    """A key that leaves its set, and a status that turns invalid, revoke; who rests on something else stays."""
    keys, lists = KeysAtHand(key_set("p256", "rsa")), Lists()
    [first, second] = await verified(keys, status=status(0)), await verified(keys, kid="rsa", status=status(2))
    ended, other = Connection(registry), Connection(registry)
    watch = Watch(registry, until, ends=True, statuses={"main": lists})
    watch.enter(ended, first, lasts=True)
    watch.enter(other, second, lasts=True)
    await turns()
    registry._look()
    await turns()
    assert (ended.told, other.told) == ([], [])
    if rests_on == "its key":
        keys.key_set = key_set("rsa")
    else:
        lists.found[LIST] = StatusList(1, b"\x01")
    assert watch.is_over(first) == "token_revoked"
    assert watch.is_over(second) == ""
    registry._look()
    await turns()
    assert (ended.told, other.told) == (["token_revoked"], [])
    registry._look()  # who has left is not found again
    await turns()
    assert ended.told == ["token_revoked"]


async def test_a_key_withdrawn_before_the_index_knows_is_not_missed(registry: LiveConnections) -> None:
    """Who settles is judged by what is known then."""
    keys = KeysAtHand(key_set("p256", "rsa"))
    connection = Connection(registry)
    token = await verified(keys)
    keys.key_set = key_set("rsa")
    registry.enter(connection, token, until, lasts=True)
    await turns()
    assert connection.told == ["token_revoked"]


async def test_an_issuer_that_is_gone_takes_its_tokens_with_it(registry: LiveConnections) -> None:
    """Who is there, and who comes in later with a token of the old time; nobody else."""
    keys, others = KeysAtHand(key_set("p256")), KeysAtHand(key_set("p256"))
    gone, stays, late = Connection(registry), Connection(registry), Connection(registry)
    old, another = await verified(keys), await verified(others)
    registry.enter(gone, old, until, lasts=True)
    registry.enter(stays, another, until, lasts=True)
    await turns()
    registry.distrust(keys)
    registry.enter(late, old, until, lasts=True)
    await turns()
    assert (gone.told, stays.told, late.told) == (["token_revoked"], [], ["token_revoked"])


async def test_without_a_denylist_tokens_still_expire(clock: Clock) -> None:
    """Nothing can be revoked then."""
    registry = LiveConnections(None, wall=clock)
    connection = Connection(registry)
    registry.enter(connection, token(), until, lasts=True)
    await turns()
    clock.now = NOW + 3600
    assert registry._expire(clock.now) < math.inf
    await turns()
    assert connection.told == ["token_expired"]
