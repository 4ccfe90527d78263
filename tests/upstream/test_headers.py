"""What passes from the client's head to the upstream's, and back; above all what never does."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.upstream.headers import (
    NO_BODY,
    RequestHeaders,
    body_length,
    request_id,
    response_headers,
    response_lines,
    spelling,
    without_cookies,
)
from gateway.upstream.peer import Peers
from gateway.upstream.response import parse_head

Header = tuple[bytes, bytes]

STRANGER = Peers(()).resolve("198.51.100.7", "http", b"api.test", 80, [])
PROXY = Peers(("10.0.0.0/8",)).resolve("10.0.0.1", "http", b"api.test", 80, [])
IDENTITY = [(b"x-user-id", b"u1"), (b"x-user-roles", b"a,b")]
IDENTITY_LINES = b"x-user-id: u1\r\nx-user-roles: a,b\r\n"
RULES = RequestHeaders(stripped={b"x-user-id", b"x-user-roles", b"x-user-email"})


def _build(headers: list[Header], rules: RequestHeaders = RULES, trusted: bool = False) -> list[Header]:
    return _fields(rules.build(headers, IDENTITY_LINES, PROXY if trusted else STRANGER, b"0123456789abcdef" * 2))


def _fields(built: tuple[list[Header], bytes]) -> list[Header]:
    passed, ours = built
    assert ours.endswith(b"\r\n")
    return passed + [(name, value) for name, value in (line.split(b": ", 1) for line in ours.split(b"\r\n")[:-1])]


def _values(headers: list[Header], name: bytes) -> list[bytes]:
    return [value for found, value in headers if found == name]


def _client_part(headers: list[Header], trusted: bool = False) -> list[Header]:
    """What is left of the client's own fields: everything before the identity."""
    built = _build(headers, trusted=trusted)
    return built[: built.index(IDENTITY[0])]


PASSES = [
    [(b"accept", b"*/*"), (b"x-app", b"1"), (b"accept", b"text/html")],
    [(b"cookie", b"a=b; c=d")],
    [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")],
    [(b"x-user", b"1"), (b"x-user-id-2", b"1"), (b"user_id", b"1")],
    [(b"via", b"1.1 other")],
    [(b"accept", b"a"), (b"connection", b"keep-alive")],
]


@pytest.mark.parametrize("headers", PASSES)
def test_ordinary_fields_pass_in_order(headers: list[Header]) -> None:
    """End-to-end fields go on untouched: order, duplicates and bytes."""
    assert _client_part(headers) == [pair for pair in headers if pair[0] != b"connection"]


REMOVED = [
    *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"te"),
    *(b"proxy", b"Proxy", b"client-ip", b"client_ip", b"cf-connecting-ip", b"fastly-client-ip", b"forwarded-for"),
    *(b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings", b"host", b"content-length", b"expect"),
    *(b"authorization", b"forwarded", b"x-request-id", b"traceparent", b"tracestate"),
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-user"),
    *(b"x-forwarded", b"x-forwarded-prefix", b"x-real-ip", b"true-client-ip", b"x-original-url", b"x-rewrite-url"),
    *(b"x_forwarded_for", b"x_real_ip", b"content_length", b"transfer_encoding", b"x_request_id", b"x.forwarded.for"),
    *(b"x-user-id", b"x_user_id", b"x-user_id", b"x_user-id", b"X-User-Id", b"X_USER_ID", b"x.user.id", b"x!user-id"),
    *(b"x-user-email", b"x_user_email"),
]


@pytest.mark.parametrize("name", REMOVED)
def test_what_a_stranger_may_not_say_is_removed(name: bytes) -> None:
    """Connection fields, framing, the credential, and every spelling of what only the gateway may say."""
    assert _client_part([(b"a", b"1"), (name, b"evil"), (name, b"evil"), (b"b", b"2")]) == [(b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize("name", [b"x-user-id", b"x_user_id", b"x-forwarded-for", b"host", b"connection", b"te"])
def test_a_trusted_proxy_cannot_say_it_either(name: bytes) -> None:
    """Trust is about addresses; identity comes from the token, whoever the peer."""
    assert _client_part([(name, b"evil")], trusted=True) == []


def test_a_trusted_proxy_may_add_its_own_forwarding_fields() -> None:
    """What a proxy says besides the standard fields passes from a trusted one."""
    headers = [(b"x-real-ip", b"192.0.2.1"), (b"x-forwarded-prefix", b"/app")]
    assert _client_part(headers, trusted=True) == headers


@pytest.mark.parametrize(
    "value", [b"x-hop", b"close, X-Hop", b"x-hop , keep-alive", b"X-HOP", b"x-user-id, x-hop, x-request-id, via"]
)
def test_nominated_fields_end_here_and_ours_do_not(value: bytes) -> None:
    """`Connection` removes the client's own fields; nothing it names can remove what the gateway sets."""
    built = _build([(b"x-hop", b"1"), (b"connection", value), (b"x-user-id", b"evil"), (b"accept", b"*/*")])
    assert _values(built, b"x-hop") == []
    assert _values(built, b"accept") == [b"*/*"]
    assert _values(built, b"x-user-id") == [b"u1"]
    assert len(_values(built, b"x-request-id")) == 1
    assert _values(built, b"via") == [b"1.1 gateway"]
    assert _values(built, b"x-forwarded-for") == [b"198.51.100.7"]


def test_the_token_is_forwarded_only_if_the_route_says_so() -> None:
    """Authorization passes with `forward_token`, and cookies that hold the credential never do."""
    headers = [(b"authorization", b"Bearer t"), (b"cookie", b"a=1; session=t; b=2"), (b"cookie", b"session=t")]
    rules = RequestHeaders(forward_token=True, drop_cookies={b"session"})
    built = _build(headers, rules)
    assert _values(built, b"authorization") == [b"Bearer t"]
    assert _values(built, b"cookie") == [b"a=1; b=2"]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"a=1; t=x; b=2", b"a=1; b=2"),
        (b"t=x", b""),
        (b"t=x; a=1", b"a=1"),
        (b"a=1; t=x", b"a=1"),
        (b"a=1;t=x;b=2", b"a=1;b=2"),
        (b"t=x; t=y; tt=z", b"tt=z"),
        (b" t =x; a=t", b"a=t"),
        (b'a="1; b"; t', b'a="1; b"'),
    ],
)
def test_a_cookie_is_removed_and_the_others_stay_as_they_are(value: bytes, left: bytes) -> None:
    """Every cookie of the name goes, the rest stays byte for byte."""
    assert without_cookies(value, frozenset((b"t",))) == left


def test_via_is_appended() -> None:
    """Each gateway adds itself after those before it, with the protocol version it was spoken to in."""
    built = _fields(RULES.build([(b"via", b"1.1 other")], b"", STRANGER, b"r", "1.0"))
    assert _values(built, b"via") == [b"1.1 other", b"1.0 gateway"]


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.mark.parametrize(
    ("sent", "trusted", "kept"),
    [
        ([TRACE], True, True),
        ([TRACE], False, False),
        ([TRACE, TRACE], True, False),
        ([b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"], True, False),
        ([b"ff" + TRACE[2:]], True, False),
        ([TRACE.upper()], True, False),
        ([TRACE + b"\r\nx: y"], True, False),
        ([], True, False),
    ],
)
def test_a_trace_is_continued_only_for_trusted_proxies(sent: list[bytes], trusted: bool, kept: bool) -> None:
    """Otherwise a new one begins, whose id is the request id, and the state of the old one is dropped."""
    headers = [*((b"traceparent", value) for value in sent), (b"tracestate", b"a=b")]
    built = _build(headers, trusted=trusted)
    (trace,) = _values(built, b"traceparent")
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", trace)
    assert (trace == TRACE) == kept
    assert (_values(built, b"tracestate") == [b"a=b"]) == kept
    if not kept:
        assert trace.split(b"-")[1] == b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("sent", "trusted", "kept"),
    [
        ([b"abc-1"], True, True),
        ([b"abc-1"], False, False),
        ([b"a", b"b"], True, False),
        ([b"a b"], True, False),
        ([b'a"'], True, False),
        ([b""], True, False),
        ([b"a" * 129], True, False),
    ],
)
def test_a_request_id_is_kept_only_from_trusted_proxies(sent: list[bytes], trusted: bool, kept: bool) -> None:
    """A new id is 32 hex digits and differs each time."""
    headers = [(b"x-request-id", value) for value in sent]
    identifier = request_id(headers, trusted)
    assert (identifier in sent) == kept
    if not kept:
        assert re.fullmatch(rb"[0-9a-f]{32}", identifier)
        assert request_id(headers, trusted) != identifier


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], NO_BODY),
        ([(b"content-length", b"0")], 0),
        ([(b"content-length", b"12")], 12),
        ([(b"transfer-encoding", b"chunked")], None),
        ([(b"transfer-encoding", b"Chunked")], None),
    ],
)
def test_the_length_of_a_request_body(headers: list[Header], length: int | None) -> None:
    """Content-Length, chunked, or no body."""
    assert body_length(headers) == length


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"1")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"")],
        [(b"content-length", b"1" * 19)],
        [(b"content-length", "\u0661".encode())],
    ],
)
def test_a_request_with_two_readings_is_refused(headers: list[Header]) -> None:
    """Whichever server is in front, no ambiguous body is forwarded."""
    with pytest.raises(BadRequest):
        body_length(headers)


def test_response_fields_keep_order_and_lose_what_is_hop_by_hop() -> None:
    """Duplicates and order stay; connection fields, nominated ones and the upstream's request id go."""
    headers = [
        (b"set-cookie", b"a=1"),
        (b"connection", b"X-Hop, date, content-length"),
        (b"x-hop", b"1"),
        (b"content-length", b"3"),
        (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"x-request-id", b"theirs"),
        (b"set-cookie", b"b=2"),
    ]
    assert response_headers(headers, 200, b"ours", "1.0") == [
        (b"set-cookie", b"a=1"),
        (b"content-length", b"3"),
        (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"set-cookie", b"b=2"),
        (b"via", b"1.0 gateway"),
        (b"x-request-id", b"ours"),
    ]


def test_a_response_without_a_date_gets_one() -> None:
    """RFC 9110 §6.6.1: a recipient with a clock adds what the origin left out."""
    (date,) = _values(response_headers([], 200, b"r"), b"date")
    assert re.fullmatch(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)


def test_a_204_has_no_content_length() -> None:
    """RFC 9110 §8.6; a 304 may keep the one it describes."""
    headers = [(b"content-length", b"0")]
    assert _values(response_headers(headers, 204, b"r"), b"content-length") == []
    assert _values(response_headers(headers, 304, b"r"), b"content-length") == [b"0"]


_NAMES = st.one_of(
    st.sampled_from([*REMOVED, b"accept", b"cookie", b"x-app", b"x__user__id", b"x-user-idx"]),
    st.from_regex(re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,12}"), fullmatch=True),
    st.from_regex(re.compile(rb"x[!#$%&'*+.^_`|~-]user[!#$%&'*+.^_`|~-](id|roles|email)"), fullmatch=True),
)
_FIELDS = st.lists(
    st.tuples(_NAMES, st.one_of(st.just(b"evil"), _NAMES, st.lists(_NAMES, max_size=3).map(b", ".join))), max_size=12
)


@given(_FIELDS, st.booleans())
def test_no_request_can_forge_or_remove_what_the_gateway_says(headers: list[Header], trusted: bool) -> None:
    """Whatever a client sends, each of the gateway's fields has the gateway's value, in one spelling only."""
    built = _build(headers, trusted=trusted)
    for name in (b"x-user-id", b"x-user-roles", b"x-user-email", b"x-request-id", b"traceparent", b"x-forwarded-for"):
        assert [pair for pair in built if spelling(pair[0]) == name] == [
            pair for pair in built if pair[0] == name and pair[1] != b"evil"
        ]
    assert _values(built, b"x-user-id") == [b"u1"]
    assert _values(built, b"x-user-email") == []
    assert len(_values(built, b"x-forwarded-for")) == 1
    assert not {spelling(name) for name, _ in built} & {b"connection", b"te", b"transfer-encoding", b"content-length"}


@given(_FIELDS)
def test_what_passes_passes_in_order(headers: list[Header]) -> None:
    """The client's part of the built head is a subsequence of what it sent."""
    rest = iter(headers)
    assert all(pair in rest for pair in _client_part(headers))


_RESPONSE_FIELDS = st.sampled_from(
    [
        *(b"Content-Type: a/b", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X:", b"X-Y:  spaced ", b"Via: 1.1 other"),
        *(b"Date: Sun, 22 Nov 2026 00:00:00 GMT", b"Keep-Alive: timeout=5", b"X-Request-Id: theirs", b"Upgrade: h2c"),
        *(b"Connection: close", b"Connection: Keep-Alive", b"Connection: x, Date, content-length", b"connection: via"),
        *(b"Proxy-Connection: x", b"TE: trailers", b"Trailer: x", b"content-length-x: 1"),
    ]
)


@given(
    st.lists(_RESPONSE_FIELDS, max_size=8),
    st.sampled_from([b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]),
    st.sampled_from([200, 204, 304, 404]),
)
def test_lines_and_pairs_of_a_response_agree(fields: list[bytes], framing: bytes, status: int) -> None:
    """The lines that are sent in answer to a request say what the pairs say that a WebSocket's answer is made of."""
    lines = b"".join(b"%b\r\n" % field for field in fields)
    head = parse_head(b"HTTP/1.1 %d X\r\n%b%b\r\n" % (status, framing, lines), False)
    assert head is not None
    sent = response_lines(head, b"id")
    pairs = [pair for pair in response_headers(head.headers, status, b"id") if pair[0] != b"transfer-encoding"]
    dated = [pair for pair in pairs if pair[0] == b"date"]
    # Only the place of a Date of our own may differ, and the second that it tells.
    assert [pair for pair in sent if pair[0] != b"date"] == [pair for pair in pairs if pair[0] != b"date"]
    assert len([pair for pair in sent if pair[0] == b"date"]) == len(dated) > 0
    assert sent.length == (5 if b"Content-Length" in framing and status != 204 else -1)


_FORKED = """
import os
from gateway.upstream.headers import request_id
made = [request_id([], False) for _ in range(1000)]
reader, writer = os.pipe()
if not os.fork():
    os.write(writer, request_id([], False))
    os._exit(0)
os.wait()
print(len(set(made)), os.read(reader, 32) != request_id([], False))
"""


def test_no_id_comes_twice_not_even_to_a_forked_process() -> None:
    """Though they are made for many requests at once."""
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000", "True"]
