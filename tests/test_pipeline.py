"""One request, in order: which step speaks first, what the upstream sees, and what is written down."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from gateway.config.schema import Config
from gateway.denylist.replica import Replica
from gateway.errors import BadResponse
from gateway.generation import Generation, Surroundings, build
from gateway.pipeline import CLIENT_GONE
from gateway.telemetry.exchange import Exchange
from gateway.upstream.peer import Peers
from tests.upstream.scripted import OK, Client, ScriptedUpstream, Talk

pytestmark = pytest.mark.asyncio

SECRET = "a secret that is long enough for HS256"
ROUTES: list[dict[str, Any]] = [
    {"name": "api", "path": "/api/**", "upstream": "app"},
    {"name": "admin", "path": "/admin/**", "upstream": "app", "auth": {"scopes": ["admin"]}},
    {"name": "maybe", "path": "/maybe", "upstream": "app", "auth": "optional"},
    {"name": "public", "path": "/public", "upstream": "app", "auth": "none"},
    {"name": "reads", "path": "/reads", "upstream": "app", "denylist": {"when_stale": "allow"}},
    {"name": "small", "path": "/small", "upstream": "app", "auth": "none", "body_bytes": "1B"},
    {"name": "cookie", "path": "/cookie", "upstream": "app", "credentials": {"cookie": "session", "query": "t"}},
    {"name": "passes", "path": "/passes", "upstream": "app", "forward_token": True},
]


class Stand:
    """A pipeline between a scripted upstream and ASGI clients, with its denylist and its records in reach."""

    def __init__(self, generation: Generation, replica: Replica, records: list[Exchange], heads: list[bytes]) -> None:
        self.generation = generation
        self.replica = replica
        self.records = records
        self.heads = heads  # what the upstream saw

    async def ask(self, path: str, *fields: tuple[bytes, bytes], client: Client | None = None, **scope: Any) -> Client:
        """One request through the pipeline; `path` may carry a query."""
        client = client or Client()
        raw_path, _, query = path.encode().partition(b"?")
        await self.generation.pipeline(
            {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "server": ("127.0.0.1", 8080),
                "client": ("192.0.2.7", 4711),
                "raw_path": raw_path,
                "query_string": query,
                "headers": [(b"host", b"shop.example"), *fields],
                **scope,
            },
            client.receive,
            client.send,
        )
        return client


@asynccontextmanager
async def standing(script: Any = None, **route_changes: Any) -> AsyncIterator[Stand]:
    """A stand whose upstream answers 200 unless scripted otherwise; the denylist is loaded and fresh."""
    heads: list[bytes] = []

    async def answer(talk: Talk) -> None:
        while True:
            heads.append(await talk.request())
            await talk.say(OK)

    async with ScriptedUpstream(script or answer) as server:
        config = Config.model_validate(
            {
                "denylist": {"store": "redis://127.0.0.1:1/0"},
                "issuers": {
                    "main": {
                        "issuer": "https://i.example",
                        "secret": SECRET,
                        "audience": ["api"],
                        "algorithms": ["HS256"],
                    }
                },
                "identity": {"headers": {"x-user-id": "sub"}},
                "upstreams": {"app": {"endpoints": [server.url]}},
                "routes": ROUTES,
            }
        )
        replica = Replica()
        replica.touch(time.monotonic())
        records: list[Exchange] = []
        generation = build(config, Surroundings(replica, Peers(()), records.append), None)
        try:
            yield Stand(generation, replica, records, heads)
        finally:
            await generation.upstreams["app"].close(0)


def token(**changes: Any) -> bytes:
    """A good token, changed as told."""
    now = int(time.time())
    claims = {
        "iss": "https://i.example",
        "aud": "api",
        "sub": "u1",
        "jti": "t1",
        "iat": now,
        "exp": now + 3600,  # made when the table below is read; the whole run may take long
        **changes,
    }
    return jwt.encode({"alg": "HS256", "typ": "at+jwt"}, claims, OctKey.import_key(SECRET)).encode()


def bearer(**changes: Any) -> tuple[bytes, bytes]:
    """It as a header field."""
    return b"authorization", b"Bearer " + token(**changes)


def code(client: Client) -> str:
    """The problem's code; "" for the upstream's own answer."""
    return json.loads(client.body)["code"] if client.status >= 400 else ""


DENIED = "token:main:t1"
BAD = (b"authorization", b"Bearer a.b.c")


@pytest.mark.parametrize(
    ("path", "fields", "denied", "stale", "answer"),
    [
        # the route speaks before the token
        ("/nowhere", [BAD], False, False, "no_route"),
        ("/api/../admin", [BAD], False, False, "bad_request"),
        # two credentials are ambiguous before either is looked at
        ("/api/a", [BAD, BAD], False, False, "bad_request"),
        # a bad token is bad whatever the denylist's state
        ("/api/a", [BAD], True, True, "token_invalid"),
        # expired before revoked: the client should refresh, and a stranger learns nothing
        ("/api/a", [bearer(exp=1000, iat=900)], True, False, "token_expired"),
        # what the replica knows holds, however old it is
        ("/api/a", [bearer()], True, False, "token_revoked"),
        ("/api/a", [bearer()], True, True, "token_revoked"),
        ("/reads", [bearer()], True, True, "token_revoked"),
        # what it may have missed is refused, unless the route says otherwise
        ("/api/a", [bearer()], False, True, "denylist_stale"),
        ("/reads", [bearer()], False, True, ""),
        # revoked before forbidden: a revoked token learns nothing about scopes
        ("/admin/a", [bearer()], True, False, "token_revoked"),
        ("/admin/a", [bearer()], False, False, "insufficient_scope"),
        ("/admin/a", [bearer(scope="admin")], False, False, ""),
        # a required token may not be absent; an optional one may, and may not be wrong
        ("/api/a", [], False, False, "token_missing"),
        ("/maybe", [], False, False, ""),
        ("/maybe", [], False, True, ""),
        ("/maybe", [BAD], False, False, "token_invalid"),
        ("/maybe", [bearer()], True, False, "token_revoked"),
        # a public route looks at no token
        ("/public", [BAD], False, True, ""),
        # the body's size is judged after the caller
        ("/api/a", [(b"content-length", b"99999999")], False, False, "token_missing"),
        ("/small", [(b"content-length", b"2")], False, False, "content_too_large"),
        # other places for the token, only where the route names them
        ("/cookie?t=" + token().decode(), [], False, False, ""),
        ("/cookie", [(b"cookie", b"session=" + token())], False, False, ""),
        ("/cookie?t=x", [bearer()], False, False, "bad_request"),
        ("/api/a?t=" + token().decode(), [], False, False, "token_missing"),
    ],
)
async def test_which_step_speaks_first(
    path: str, fields: list[tuple[bytes, bytes]], denied: bool, stale: bool, answer: str
) -> None:
    """The order of the steps decides what a client learns; a refused request never reaches the upstream."""
    async with standing() as stand:
        if denied:
            stand.replica.put(DENIED, "1", None)
        if stale:
            stand.replica.max_staleness_s = -1.0
        client = await stand.ask(path, *fields)
        assert code(client) == answer
        assert len(stand.heads) == (0 if answer else 1)
        [record] = stand.records
        assert (record.code, record.status) == (answer, client.status)


async def test_the_credential_stays_here_unless_the_route_forwards_it() -> None:
    """Removed from header, cookie and query; everything beside it goes on to the byte."""
    async with standing() as stand:
        text = token()
        await stand.ask("/api/a?b=%7E", bearer())
        await stand.ask("/cookie?a=1&t=" + text.decode() + "&b=%7E", (b"cookie", b"x=1"))
        await stand.ask("/cookie", (b"cookie", b"x=1; session=" + text + b"; y=2"))
        await stand.ask("/passes", (b"authorization", b"Bearer " + text))
        header, query, cookie, passed = stand.heads
        assert text not in header + query + cookie
        assert header.startswith(b"GET /api/a?b=%7E HTTP/1.1\r\n")
        assert query.startswith(b"GET /cookie?a=1&b=%7E HTTP/1.1\r\n")
        assert b"\r\ncookie: x=1; y=2\r\n" in cookie
        assert text in passed


async def test_the_record_says_who_called_and_holds_no_credential() -> None:
    """Route, issuer, subject and token id are there; the query and the token are not."""
    async with standing() as stand:
        await stand.ask("/cookie?t=" + token().decode())
        [record] = stand.records
        assert (record.route, record.issuer, record.subject, record.token_id) == ("cookie", "main", "u1", "t1")
        assert (record.method, record.host, record.path) == ("GET", "shop.example", "/cookie")
        assert record.client == "192.0.2.7"
        assert record.upstream == "app"
        assert record.status == 200
        assert record.bytes_out == 2
        assert record.duration_s >= record.head_s > 0
        assert not record.token_cached
        await stand.ask("/api/a", bearer())
        await stand.ask("/api/a", bearer())
        assert stand.records[-1].token_cached


async def test_one_id_for_the_client_the_upstream_and_the_log() -> None:
    """Whoever complains has the id that the log has."""
    async with standing() as stand:
        client = await stand.ask("/public")
        refused = await stand.ask("/api/a")
        [forwarded] = stand.heads
        identifier = dict(client.headers)[b"x-request-id"]
        assert b"\r\nx-request-id: " + identifier + b"\r\n" in forwarded
        assert identifier.decode() == stand.records[0].request_id
        assert json.loads(refused.body)["request_id"] == stand.records[1].request_id


async def test_a_client_that_leaves_is_recorded_and_its_upstream_connection_closed() -> None:
    """Cancellation is normal: 499 in the record, nothing sent, the upstream sees the end."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def never_answers(talk: Talk) -> None:
        await talk.request()
        asked.set()
        await talk.closed()
        gone.set()

    async with standing(never_answers) as stand:
        client = Client()
        request = asyncio.create_task(stand.ask("/public", client=client))
        await asyncio.wait_for(asked.wait(), 5)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(gone.wait(), 5)
        [record] = stand.records
        assert (record.status, record.code) == (CLIENT_GONE, "client_gone")
        assert client.messages == []


async def test_a_response_that_breaks_off_is_not_answered_twice() -> None:
    """Once a head is out the only honest signal is a closed connection; the record has the reason."""

    async def dies(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        talk.hang_up()

    async with standing(dies) as stand:
        client = Client()
        with pytest.raises(BadResponse):
            await stand.ask("/public", client=client)
        [record] = stand.records
        assert (record.status, record.code) == (200, "bad_response")
        assert client.status == 200
        assert not client.is_complete


async def test_a_fault_of_our_own_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets an id, the log gets the reason under the same id."""

    class Broken(Client):
        async def receive(self) -> dict[str, Any]:
            raise ZeroDivisionError("a secret inside")

    async with standing() as stand:
        client = await stand.ask("/api/a", bearer(), (b"content-length", b"5"), client=Broken(), method="POST")
        assert (client.status, code(client)) == (500, "unexpected")
        assert b"secret inside" not in client.body
        [record] = stand.records
        assert record.cause.startswith("ZeroDivisionError")
        assert record.request_id in caplog.text
