"""What the upstream sees of what clients put on the wire: the tables of `wire_table`, and mutations of them.

One gateway that trusts nobody, one that trusts this address, and one upstream serve all rows of a run. A request that
reaches the upstream unexpectedly, however late, fails a row.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.wire_table import BARE, HOST, IDENTITY_NAMES, ME, OTHER, TABLES, Row, Saw, request
from tests.edge import Answer, GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, read_answer
from tests.ports import release_port, reserve_port

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

DEADLINE_S = 10.0
SILENCE_S = 0.05  # after which a mutated request counts as unfinished

CONFIG = """\
server:
  listen: 127.0.0.1:{port}
  trusted_proxies: [<trusted>]
  limits: {head_bytes: 4KiB, headers: 40}
admin:
  listen: 127.0.0.1:{admin}
issuers:
<issuer>
identity:
  headers:
    x-user-id: sub
    x-user-email: email
    x-user-roles: {claim: roles, format: comma}
  strip: [x-internal]
upstreams:
  app:
    endpoints: [<upstream>]
routes:
  - {name: api, path: /api/**, upstream: app}
  - {name: public, path: /public/**, upstream: app, auth: none}
  - {name: optional, path: /optional/**, upstream: app, auth: optional}
  - {name: forward, path: /forward/**, upstream: app, forward_token: true}
  - {name: cookie, path: /cookie/**, upstream: app, credentials: {cookie: session}}
  - {name: query, path: /query/**, upstream: app, credentials: {query: access_token}}
  - {name: small, path: /small/**, upstream: app, auth: none, body_bytes: 16B}
  - {name: methods, path: /methods/**, upstream: app, auth: none, methods: [GET, POST]}
  - {name: host, path: /host/**, upstream: app, auth: none, host: admin.test}
  - {name: tenant, path: /tenant/**, upstream: app, auth: none, host: "*.tenant.test"}
  - name: lenient
    path: /lenient/**
    upstream: app
    auth: none
    allow_ambiguous: [dot_segments, encoded_slash, encoded_dot, backslash, empty_segments]
"""

# RFC 9110 §7.6.1, and the fields that proxies treat alike.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade http2-settings "
    b"expect proxy".split()
)
REQUEST_LINE = re.compile(rb"[A-Z-]+ (?:/[!-~]*) HTTP/1\.1")
FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+: [\t -~\x80-\xff]*")
IDENTITIES = {
    line.partition(": ")[0].encode(): {
        other.partition(": ")[2].encode() for other in (*ME, *OTHER, *BARE) if other.startswith(line.split(":")[0])
    }
    for line in ME
}


@dataclass
class Edges:
    """What the rows run against."""

    upstream: RecordingUpstream
    wary: GatewayProcess
    trusting: GatewayProcess
    tokens: dict[str, str] = field(repr=False)

    def fill(self, text: str) -> bytes:
        """The bytes of a row's text, tokens in their places."""
        for name, token in self.tokens.items():
            text = text.replace(f"<{name}>", token)
        return text.encode("latin-1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edges]:
    """Two gateways before one upstream, for every row."""
    upstream, issuer = await RecordingUpstream.start(), await TestIssuer.start()
    folder = tmp_path_factory.mktemp("wire")
    ports = [reserve_port() for _ in range(4)]

    def gateway(trusted: str, port: int, admin: int) -> GatewayProcess:
        text = CONFIG.replace("<trusted>", trusted).replace("<upstream>", upstream.url)
        return GatewayProcess(folder, text.replace("<issuer>\n", issuer.yaml()), port, admin)

    good = issuer.token(email="a@example.org", roles=["admin", "ops"])
    tokens = {
        "token": good,
        "other": issuer.token(sub="user-2"),
        "bare": issuer.token(sub="user-3"),
        "bad": good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB"),
    }
    async with AsyncExitStack() as stack:
        stack.push_async_callback(upstream.close)
        stack.push_async_callback(issuer.close)
        wary, trusting = gateway("", *ports[:2]), gateway("127.0.0.1/32", *ports[2:])
        for process in (wary, trusting):
            stack.push_async_callback(process.stop)
        await asyncio.gather(wary.start(), trusting.start())
        yield Edges(upstream, wary, trusting, tokens)
        assert "Traceback" not in wary.log + trusting.log
    for port in ports:
        release_port(port)


# --- the tables ------------------------------------------------------------------------------------------------------

ROWS = [(group, name) for group, rows in TABLES.items() for name in rows]


@pytest.mark.parametrize(("group", "name"), ROWS, ids=[f"{group}: {name}" for group, name in ROWS])
async def test_the_upstream_sees_exactly_this(edges: Edges, group: str, name: str) -> None:
    """Each row: the replies, then all that reached the upstream, and that the connection is in step or at its end."""
    row = TABLES[group][name]
    gateway = edges.trusting if group == "trusted" else edges.wary
    before = len(edges.upstream.seen)
    async with asyncio.timeout(DEADLINE_S):
        answers = await converse(edges, gateway, row)
        while len(edges.upstream.seen) < before + len(row.saw):
            await asyncio.sleep(0.001)  # what was cut off may be read after its reply
    seen = edges.upstream.seen[before:]
    if not is_closed_by(row):
        assert seen.pop().line == b"GET /public/end HTTP/1.1"
    assert [(request.line, request.body) for request in seen] == [
        (expected.line.encode() + b" HTTP/1.1", expected.body) for expected in row.saw
    ]
    passed = [answer for answer in answers if answer.status == 200]
    for request_seen, expected, answer in zip(seen, row.saw, passed or answers, strict=False):
        check_fields(edges, gateway, request_seen, expected, answer)
        assert request_seen.is_complete == expected.is_complete
        assert request_seen.trailers == b""
        check_sound(request_seen)


def is_closed_by(row: Row) -> bool:
    """Whether nothing can follow on the connection."""
    return row.ends or row.replies[-1].closes


async def converse(edges: Edges, gateway: GatewayProcess, row: Row) -> list[Answer]:
    """Play the client's part of a row and check the replies; a last request shows where the next message begins."""
    pieces = [edges.fill(piece) for piece in ((row.sent,) if isinstance(row.sent, str) else row.sent)]
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    answers: list[Answer] = []
    try:
        writer.write(pieces.pop(0))
        for reply in row.replies:
            answer = Answer(await read_answer(reader, is_head=reply.is_head))
            assert (answer.status, answer.code) == (reply.status, reply.code), answer.raw
            if answer.status >= 200:
                assert (b"close" in answer.all(b"connection")) == reply.closes
                assert len(answer.all(b"x-request-id")) == 1
                answers.append(answer)
            if pieces:
                writer.write(pieces.pop(0))
        if is_closed_by(row):
            assert await read_to_the_end(reader) == b""
        else:
            writer.write(request("/public/end").encode())
            assert Answer(await read_answer(reader)).status == 200
    finally:
        writer.close()
    return answers


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """What still comes; a reset is an end as well, since the gateway leaves what it does not want unread."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def check_fields(edges: Edges, gateway: GatewayProcess, seen: SeenRequest, expected: Saw, answer: Answer) -> None:
    """Every field, in order: Host, framing and the client's own, identity, then the gateway's."""
    ours = {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": expected.host,
        "x-forwarded-port": str(gateway.port),
        "forwarded": f'for=127.0.0.1;host="{expected.host}";proto=http',
        "x-request-id": answer.all(b"x-request-id")[0].decode(),
        "traceparent": seen.all(b"traceparent")[0].decode(),
        "via": "1.1 gateway",
        **expected.ours,
    }
    assert seen.head.split(b"\r\n")[1:] == [
        edges.fill(line)
        for line in (f"host: {expected.host}", *expected.fields, *(f"{name}: {value}" for name, value in ours.items()))
    ]
    assert answer.all(b"x-request-id")[0].decode() == ours["x-request-id"]
    if "traceparent" not in expected.ours and len(ours["x-request-id"]) == 32:
        assert re.fullmatch(rf"00-{ours['x-request-id']}-[0-9a-f]{{16}}-01", ours["traceparent"])


def check_sound(seen: SeenRequest) -> None:
    """What holds for every request that reaches an upstream, whatever the client sent."""
    lines = seen.head.split(b"\r\n")
    assert REQUEST_LINE.fullmatch(lines[0]), lines[0]
    assert all(FIELD.fullmatch(line) for line in lines[1:]), lines
    names = [name for name, _ in seen.headers]
    assert names.count(b"host") == 1
    assert not HOP_BY_HOP.intersection(names)
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert set(seen.all(b"transfer-encoding")) <= {b"chunked"}
    check_identity(seen.headers)


def check_identity(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """No identity in any spelling but the gateway's own, once each, and one of those that the tokens give."""
    found = [(name, value) for name, value in headers if folded(name) in IDENTITY_NAMES]
    assert len({folded(name) for name, _ in found}) == len(found)
    for name, value in found:
        assert value in IDENTITIES.get(name, ()), (name, value)


def folded(name: bytes) -> str:
    """The form that servers may give to a name: CGI's variables know letters, digits and one other character."""
    return re.sub("[^a-z0-9]", "-", name.decode("latin-1").lower())


# --- mutations -------------------------------------------------------------------------------------------------------

SEEDS = [
    piece
    for group, rows in TABLES.items()
    for row in rows.values()
    for piece in ((row.sent,) if isinstance(row.sent, str) else row.sent[:1])
    if len(piece) < 1000
]
SCRAPS = (
    *("\r\n", "\n", "\r", " ", "\t", "\0", ":", ",", ";", "_", "\xff", "0", "\r\n\r\n", "\r\n ", "0\r\n\r\n"),
    *("X-User-Id: root\r\n", "x_user_id: root\r\n", "\r\nX-User-Roles: god", "X-Internal: 1\r\n"),
    *("Connection: x-user-id, host\r\n", "Connection: close\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    *(
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
    ),
    *("Host: evil.test\r\n", "Expect: 100-continue\r\n", "Authorization: Bearer <token>\r\n", " HTTP/1.1\r\n"),
    *("/..", "%2e", "%00", "//", "\\", "?", "#", "3\r\nabc\r\n", "GET /public/x HTTP/1.1\r\n", f"Host: {HOST}\r\n"),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """One or two seeds in a row, with scraps put in, bytes left out, or a part repeated."""
    text = draw(st.sampled_from(SEEDS)) + draw(st.sampled_from(["", *SEEDS]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        scrap = draw(st.sampled_from((*SCRAPS, "", text[at : at + length])))
        text = text[:at] + scrap + text[at + draw(st.sampled_from((0, 0, 1, length))) :]
    return text


@settings(
    max_examples=250,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(text=mutated())
async def test_no_mutation_gets_through(edges: Edges, text: str) -> None:
    """Whatever is sent: no fault of the gateway, and an upstream that sees sound requests without foreign identity."""
    before = len(edges.upstream.seen)
    for gateway in (edges.wary, edges.trusting):
        received = await exchange(gateway.port, edges.fill(text))
        statuses = [int(status) for status in re.findall(rb"(?:^|\n|ok)HTTP/1\.1 ([0-9]{3}) ", received)]
        assert all(status < 500 for status in statuses), received
        assert b'"code": "unexpected"' not in received
        assert (await gateway.get("/public/alive")).status == 200
    for seen in edges.upstream.seen[before:]:
        check_sound(seen)


async def exchange(port: int, sent: bytes) -> bytes:
    """Send, and read until the gateway closes or has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(sent)
        while True:
            async with asyncio.timeout(SILENCE_S):
                piece = await reader.read(65536)
            if not piece:
                return received
            received += piece
    except (TimeoutError, ConnectionError):
        return received
    finally:
        writer.close()
