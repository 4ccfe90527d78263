"""What a route does with a key, between a real upstream and a real store: one exchange at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.config import schema
from gateway.errors import (
    BadRequest,
    ConnectFailed,
    ContentTooLarge,
    GatewayError,
    IdempotencyKeyInUse,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    IdempotencyOutcomeUnknown,
    IdempotencyUnavailable,
    Overloaded,
    UpstreamTimeout,
)
from gateway.idempotency.contract import Claim, Found, StoreUnavailable
from gateway.idempotency.ledger import Ledger, Room
from gateway.idempotency.route import Idempotency, Rules
from gateway.idempotency.sqlite_store import SqliteStore
from gateway.telemetry.exchange import Exchange
from gateway.tokens.claims import Token
from gateway.upstream.endpoints import Upstream
from gateway.upstream.forward import ClientGone, ResponseAborted
from gateway.upstream.headers import NO_BODY
from gateway.upstream.request import UpstreamRequest
from tests.edge import RecordingUpstream, SeenRequest

pytestmark = pytest.mark.asyncio

Script = Callable[[SeenRequest, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def alice(**changes: Any) -> Token:
    """A token that has been verified."""
    facts: dict[str, Any] = {
        "issuer": "main",
        "alg": "ES256",
        "kid": None,
        "claims": {},
        "subject": "alice",
        "token_id": None,
        "session_id": None,
        "client_id": "app",
        "issued_at": None,
        "expires_at": 0.0,
        "not_before": None,
        "audience": frozenset(),
        "scopes": frozenset(),
    }
    return Token(**{**facts, **changes})


class FlakyStore(SqliteStore):
    """A store that can be away: its calls fail before they do anything, or after."""

    away = False
    loses_answers = False

    async def begin(self, claim: Claim, lease_s: float, *, takes_over: bool) -> Found:
        self._fail()
        found = await super().begin(claim, lease_s, takes_over=takes_over)
        if self.loses_answers:
            raise StoreUnavailable("no answer")
        return found

    async def settle(self, claim: Claim, answer: bytes) -> bool:
        self._fail()
        return await super().settle(claim, answer)

    async def release(self, claim: Claim) -> None:
        self._fail()
        await super().release(claim)

    async def lapse(self, claim: Claim) -> None:
        self._fail()
        await super().lapse(claim)

    def _fail(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class Sent:
    """What a client got."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.is_complete = False
        self.begun = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        """As the server takes it."""
        if message["type"] == "http.response.start":
            self.status, self.fields = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]
            self.is_complete = not message["more_body"]
        self.begun.set()

    @property
    def is_replayed(self) -> bool:
        """Whether it was given before."""
        return self.fields.get(b"idempotent-replayed") == b"true"


class Site:
    """One route, its upstream, its store and its ledger."""

    def __init__(self, store: FlakyStore, backend: RecordingUpstream, upstream: Upstream) -> None:
        self.store = store
        self.backend = backend
        self.upstream = upstream
        self.ledger = Ledger(store, 10.0)
        self.outliving: set[asyncio.Task[None]] = set()

    @property
    def forwarded(self) -> int:
        """Requests that the upstream has seen."""
        return len(self.backend.seen)

    async def ask(
        self,
        key: str | None = "k",
        body: bytes = b"one",
        *,
        method: bytes = b"POST",
        target: bytes = b"/orders",
        token: Token | None = None,
        is_chunked: bool = False,
        sent: Sent | None = None,
        **rules: Any,
    ) -> Sent:
        """One request; raises what the pipeline would make an answer of."""
        settings = {
            "is_required": False,
            "ttl_s": 60.0,
            "max_body": 1000,
            "max_answer": 1000,
            "wait_s": 0.0,
            "takes_over": True,
            **rules,
        }
        route = Idempotency(Rules(route="orders", **settings), self.ledger, self.outliving)
        fields = [] if key is None else [(b"idempotency-key", key.encode())]
        length = None if is_chunked else len(body) if body else NO_BODY
        request = UpstreamRequest(method, target, b"a", fields, b"", b"rid", length, head_timeout_s=0.3)
        exchange = Exchange(time.monotonic(), "POST", "a", "/orders", "c")
        pieces = [body[start : start + 400] for start in range(0, len(body), 400)] or [b""]

        async def receive() -> dict[str, Any]:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        sent = sent or Sent()
        who = alice() if token is None else token
        await route.forward(request, self.upstream, receive, sent.send, exchange, None, who)
        return sent

    async def settled(self) -> None:
        """Until nothing is in flight."""
        while self.outliving:
            await asyncio.wait(self.outliving)

    def count(self, name: str, **labels: str) -> float:
        """One number."""
        return sum(sample.value for sample in self.ledger.samples() if sample.name == name and sample.labels == labels)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A route whose upstream answers 200 `ok`."""
    backend = await RecordingUpstream.start()
    upstream = Upstream("app", schema.Upstream(endpoints=(backend.url,)))
    made = Site(FlakyStore(tmp_path / "answers.db", "", 2.0), backend, upstream)
    yield made
    await made.ledger.close(1.0)
    await upstream.close(0)
    await backend.close()


def answering(raw: bytes, then_close: bool = False) -> Script:
    """An upstream that always says the same."""

    async def script(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if then_close:
            await writer.drain()
            writer.close()

    return script


# --- what is asked of a request --------------------------------------------------------------------------------------


async def test_a_repetition_is_not_forwarded(site: Site) -> None:
    """Chunked or not, it is the same request; the upstream sees a length."""
    first, again = await site.ask(), await site.ask(is_chunked=True)
    assert (first.status, first.body, first.is_replayed) == (200, b"ok", False)
    assert (again.status, again.body, again.is_replayed, again.is_complete) == (200, b"ok", True, True)
    assert site.forwarded == 1
    await site.ask("other", b"two", is_chunked=True)
    assert site.backend.seen[1].all(b"content-length") == [b"3"]


@pytest.mark.parametrize(
    "change", [{"body": b"two"}, {"target": b"/orders?a"}, {"method": b"PATCH"}, {"body": b""}], ids=str
)
async def test_another_request_under_the_key_is_refused(site: Site, change: dict[str, Any]) -> None:
    """The answer of one write is not that of another."""
    await site.ask()
    with pytest.raises(IdempotencyKeyReused):
        await site.ask(**change)
    assert site.forwarded == 1


@pytest.mark.parametrize("change", [{"subject": "bob"}, {"issuer": "other"}, {"subject": None}], ids=str)
async def test_a_key_belongs_to_its_caller(site: Site, change: dict[str, Any]) -> None:
    """Another user, another issuer's user of that name, a client without a user: each has records of its own."""
    await site.ask()
    assert not (await site.ask(token=alice(**change))).is_replayed
    assert (await site.ask(token=alice(**change))).is_replayed
    assert site.forwarded == 2


async def test_nobody_has_no_records(site: Site) -> None:
    """A token that names neither a user nor a client would share them with all of its kind."""
    with pytest.raises(BadRequest):
        await site.ask(token=alice(subject=None, client_id=None))


async def test_methods(site: Site) -> None:
    """Reads pass as they are; POST and PATCH must have a key where it is required, PUT and DELETE may."""
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        for _ in range(2):
            assert not (await site.ask(body=b"", method=method, is_required=True)).is_replayed
    for method in (b"POST", b"PATCH"):
        with pytest.raises(IdempotencyKeyMissing):
            await site.ask(None, method=method, is_required=True)
    for method in (b"PUT", b"DELETE"):
        assert (await site.ask(None, method=method, is_required=True)).status == 200
        assert not (await site.ask(method.decode(), method=method)).is_replayed
        assert (await site.ask(method.decode(), method=method)).is_replayed


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_cannot_be_held_is_refused(site: Site, is_chunked: bool) -> None:
    """Too large for the route, or for what the worker may have in hand; whatever was taken is given back."""
    with pytest.raises(ContentTooLarge):
        await site.ask(body=b"x" * 1001, is_chunked=is_chunked)
    site.ledger.room = Room(600)
    with pytest.raises(Overloaded):
        await site.ask(body=b"x" * 900, is_chunked=is_chunked)
    assert (await site.ask(body=b"x" * 590, is_chunked=is_chunked)).status == 200
    await site.settled()
    assert site.ledger.room.take(600)
    assert site.forwarded == 1


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 408, 425, 429, 500, 503])
async def test_an_answer_that_decides_nothing_is_passed_on(site: Site, status: int) -> None:
    """The key is free before the client has seen it."""
    site.backend.script = answering(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\n\r\nno" % status)
    for count in (1, 2):
        answer = await site.ask()
        assert (answer.status, answer.body, answer.is_replayed) == (status, b"no", False)
        assert site.forwarded == count
    site.backend.script = answering(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")
    await site.ask()
    assert (await site.ask()).is_replayed


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 x\r\nLocation: /1\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 x\r\nLocation: /1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_of_a_long_answer_the_head_is_kept(site: Site, raw: bytes) -> None:
    """The client gets all of it; its repetition learns that the write was done, and is not forwarded."""
    site.backend.script = answering(raw)
    first = await site.ask()
    assert (first.body, first.is_complete) == (b"x" * 1001, True)
    again = await site.ask()
    assert (again.status, again.body, again.fields[b"location"]) == (200, b"", b"/1")
    assert again.fields[b"idempotent-body"] == b"omitted"
    assert (site.forwarded, site.count("gateway_idempotency_answers_total", kept="head")) == (1, 1)


async def test_an_event_stream_flows(site: Site) -> None:
    """Each event reaches the client when it comes, and the upstream learns when the client leaves."""

    async def stream(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"9\r\ndata: 1\n\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.005)

    site.backend.script = stream
    sent = Sent()
    client = asyncio.create_task(site.ask(sent=sent))
    while b"data: 1" not in sent.body:
        sent.begun.clear()
        await sent.begun.wait()
    client.cancel()
    await asyncio.wait([client])
    await site.settled()
    while site.backend.open_connections:
        await asyncio.sleep(0.005)  # the other side of a socket
    again = await site.ask()
    assert (again.status, again.is_replayed, again.body) == (200, True, b"")


async def test_an_event_stream_that_ended_is_not_kept_either(site: Site) -> None:
    """Whether its events are repeated must not depend on how many there were."""
    raw = b"HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: 1\n\n"
    site.backend.script = answering(raw)
    assert (await site.ask()).body == b"data: 1\n\n"
    again = await site.ask()
    assert (again.is_replayed, again.body, again.fields[b"idempotent-body"]) == (True, b"", b"omitted")


async def test_a_slow_answer_flows_and_is_kept(site: Site) -> None:
    """What is being kept is passed on piece by piece, and all of it is kept."""
    go_on = asyncio.Event()

    async def slow(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\nContent-Length: 10\r\n\r\nfirst")
        await writer.drain()
        await go_on.wait()
        writer.write(b"later")

    site.backend.script = slow
    sent = Sent()
    client = asyncio.create_task(site.ask(sent=sent))
    while sent.body != b"first":
        sent.begun.clear()
        await sent.begun.wait()
    go_on.set()
    await client
    assert (sent.body, sent.is_complete) == (b"firstlater", True)
    assert (await site.ask()).body == b"firstlater"


async def test_an_answer_that_breaks_off_has_decided(site: Site) -> None:
    """The write was done, as the head says: the client sees the answer cut, its repetition gets the head."""
    site.backend.script = answering(b"HTTP/1.1 201 x\r\nContent-Length: 10\r\n\r\nhalf", then_close=True)
    with pytest.raises(ResponseAborted):
        await site.ask()
    again = await site.ask()
    assert (again.status, again.is_replayed, again.body) == (201, True, b"")
    assert site.forwarded == 1


async def _silence(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


@pytest.mark.parametrize(
    ("script", "error"),
    [(answering(b"", then_close=True), ConnectFailed), (_silence, UpstreamTimeout)],
    ids=["closed", "silent"],
)
async def test_an_unknown_outcome_is_taken_over_or_not(site: Site, script: Script, error: type[GatewayError]) -> None:
    """The upstream had the request: forwarded again, or refused, as the route says."""
    site.backend.script = script
    with pytest.raises(error):
        await site.ask()
    with pytest.raises(IdempotencyOutcomeUnknown):
        await site.ask(takes_over=False)
    with pytest.raises(IdempotencyKeyReused):
        await site.ask(body=b"two")
    site.backend.script = answering(b"HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n")
    assert (await site.ask()).status == 200
    assert (site.forwarded, (await site.ask(takes_over=False)).is_replayed) == (2, True)


async def test_what_was_surely_not_handled_is_forwarded_again(site: Site) -> None:
    """Nobody listened: also where an unknown outcome is refused, and for another request under the same key."""
    await site.backend.close()
    with pytest.raises(ConnectFailed):
        await site.ask(takes_over=False)
    await site.backend.listen()
    assert (await site.ask(body=b"two", takes_over=False)).status == 200


# --- clients that leave ----------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_finds_its_answer(site: Site) -> None:
    """The exchange goes on; a repetition waits for it, and gets it."""
    go_on, came = asyncio.Event(), asyncio.Event()

    async def slow(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 201 x\r\nContent-Length: 4\r\n\r\ndone")

    site.backend.script = slow
    client = asyncio.create_task(site.ask())
    await came.wait()
    client.cancel()
    await asyncio.wait([client])
    assert client.cancelled()
    assert site.count("gateway_idempotency_outlived_total") == site.count("gateway_idempotency_in_flight") == 1
    with pytest.raises(IdempotencyKeyInUse):
        await site.ask()
    waiting = asyncio.create_task(site.ask(wait_s=10.0))
    await asyncio.sleep(0)
    go_on.set()
    answer = await waiting
    assert (answer.status, answer.body, answer.is_replayed) == (201, b"done", True)
    assert site.forwarded == 1


async def test_a_client_that_leaves_before_all_of_its_request_is_there(site: Site) -> None:
    """Nothing is claimed, nothing forwarded."""

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    route = Idempotency(Rules("orders", False, 60.0, 1000, 1000, 0.0, True), site.ledger, site.outliving)
    request = UpstreamRequest(b"POST", b"/orders", b"a", [(b"idempotency-key", b"k")], b"", b"rid", 3)
    exchange = Exchange(time.monotonic(), "POST", "a", "/orders", "c")
    with pytest.raises(ClientGone):
        await route.forward(request, site.upstream, gone, Sent().send, exchange, None, alice())
    assert not (await site.ask()).is_replayed


# --- when the store is away ------------------------------------------------------------------------------------------


async def test_without_the_store_nothing_is_forwarded(site: Site) -> None:
    """With a key: 503; without one the store is nobody's affair."""
    site.store.away = True
    with pytest.raises(IdempotencyUnavailable):
        await site.ask()
    assert site.forwarded == 0
    assert (await site.ask(None)).status == 200


async def test_a_claim_whose_word_was_lost_is_released(site: Site) -> None:
    """The store has the claim, but nobody learned of it: the repetition is forwarded, whatever the route says."""
    site.store.loses_answers = True
    with pytest.raises(IdempotencyUnavailable):
        await site.ask(takes_over=False)
    site.store.loses_answers = False
    assert (await site.ask(takes_over=False)).status == 200
    assert site.forwarded == 1


async def test_an_answer_is_kept_later(site: Site) -> None:
    """The store goes away while the upstream works: the client has its answer, and its repetition gets it too."""

    async def leave(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.store.away = True
        writer.write(b"HTTP/1.1 201 x\r\nContent-Length: 4\r\n\r\ndone")

    site.backend.script = leave
    assert (await site.ask()).body == b"done"
    with pytest.raises(IdempotencyUnavailable):
        await site.ask()
    assert site.count("gateway_idempotency_owed") == 1
    site.store.away = False
    again = await site.ask()
    assert (again.body, again.is_replayed, site.forwarded) == (b"done", True, 1)
    assert site.count("gateway_idempotency_owed") == 0


async def test_what_is_owed_is_paid_at_the_end(site: Site, tmp_path: Path) -> None:
    """A process that stops tells the store first."""

    async def leave(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.store.away = True
        writer.write(b"HTTP/1.1 201 x\r\nContent-Length: 4\r\n\r\ndone")

    site.backend.script = leave
    await site.ask()
    site.store.away = False
    await site.ledger.close(1.0)
    site.ledger = Ledger(SqliteStore(tmp_path / "answers.db", "", 2.0), 10.0)
    assert (await site.ask()).is_replayed
