"""What clients may put on the wire, each with the answer and with all that the upstream saw of it.

A `Row` is one client connection. `Saw` is one request as it arrived at the upstream, to the byte and in order, without
the fields that the gateway adds to each (those are checked everywhere, and named only where a row changes them).
`<token>`, `<other>` and `<bare>` stand for good tokens, `<bad>` for a forged one; text is Latin-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

HOST = "edge.test"
IDENTITY_NAMES = ("x-user-id", "x-user-email", "x-user-roles", "x-internal")
ME = ("x-user-id: user-1", "x-user-email: a@example.org", "x-user-roles: admin,ops")  # what <token> says
OTHER = ("x-user-id: user-2",)  # what <other> says
BARE = ("x-user-id: user-3",)  # what <bare> says: no email, no roles
AUTH = "Authorization: Bearer <token>"


class Reply(NamedTuple):
    """One response: its status, a problem's code, and whether the connection ends with it."""

    status: int
    code: str = ""
    closes: bool = False
    is_head: bool = False


@dataclass(frozen=True)
class Saw:
    """One request at the upstream."""

    line: str
    fields: tuple[str, ...] = ()  # after Host: framing, the client's own, identity
    body: bytes = b""
    host: str = HOST
    ours: Mapping[str, str] = field(default_factory=dict)  # fields of the gateway that are not as usual
    is_complete: bool = True  # False: cut off within the body


@dataclass(frozen=True)
class Row:
    """One connection: each piece after the first is sent when a reply has come."""

    sent: str | tuple[str, ...]
    replies: tuple[Reply, ...]
    saw: tuple[Saw, ...] = ()
    ends: bool = False  # the connection ends although no reply said so


def request(
    target: str = "/public/a",
    *fields: str,
    method: str = "GET",
    version: str = "HTTP/1.1",
    host: str | None = HOST,
    body: str = "",
) -> str:
    """A request's text; `host=None` leaves Host out; `body` gets no framing of its own."""
    lines = [f"{method} {target} {version}", *([] if host is None else [f"Host: {host}"]), *fields]
    return "".join(line + "\r\n" for line in lines) + "\r\n" + body


def post(*fields: str, body: str = "", target: str = "/public/a") -> str:
    """A POST whose framing is among `fields`."""
    return request(target, *fields, method="POST", body=body)


def saw(
    line: str = "GET /public/a", *fields: str, body: str = "", host: str = HOST, ours: Mapping[str, str] | None = None
) -> Saw:
    """A whole request at the upstream."""
    return Saw(line, fields, body.encode("latin-1"), host, ours or {})


OK = Reply(200)
BROKEN = Reply(400, "bad_request", closes=True)  # not a message that may be followed by another
AMBIGUOUS = Reply(400, "bad_request")  # a message, but not one to forward
MISSING = Reply(401, "token_missing")
INVALID = Reply(401, "token_invalid")
NOWHERE = Reply(404, "no_route")
LARGE_HEAD = Reply(431, "header_too_large", closes=True)
LARGE_BODY = Reply(413, "content_too_large", closes=True)
CONTINUE = Reply(100)


def passes(sent: str, *seen: Saw) -> Row:
    """Answered 200; without `seen`, the upstream saw `GET /public/a` and nothing of the client's fields."""
    return Row(sent, (OK,), seen or (saw(),))


def refused(sent: str, reply: Reply = BROKEN) -> Row:
    """Answered by the gateway; the upstream saw nothing."""
    return Row(sent, (reply,))


CHUNKED = "Transfer-Encoding: chunked"
POSTED = saw("POST /public/a", "content-length: 3", body="abc")
CUT_OFF = Saw("POST /public/a", ("transfer-encoding: chunked",), b"abc", is_complete=False)
POSTED_IN_CHUNKS = saw("POST /public/a", "transfer-encoding: chunked", body="abc")


def chunks(body: str, *fields: str) -> str:
    """A POST with a chunked body as written."""
    return post(CHUNKED, *fields, body=body)


FRAMING = {
    "a length": passes(post("Content-Length: 3", body="abc"), POSTED),
    "a length of nothing": passes(post("Content-Length: 0"), saw("POST /public/a", "content-length: 0")),
    "a length with zeros in front": passes(post("Content-Length: 0003", body="abc"), POSTED),
    "chunks": passes(chunks("3\r\nabc\r\n0\r\n\r\n"), POSTED_IN_CHUNKS),
    "chunked in capitals": passes(post("TRANSFER-ENCODING: Chunked", body="3\r\nabc\r\n0\r\n\r\n"), POSTED_IN_CHUNKS),
    "chunk sizes with zeros in front": passes(chunks("0003\r\nabc\r\n000\r\n\r\n"), POSTED_IN_CHUNKS),
    "no chunks at all": passes(chunks("0\r\n\r\n"), saw("POST /public/a", "transfer-encoding: chunked")),
    "a body on GET": passes(
        request("/public/a", "Content-Length: 3", body="abc"), saw("GET /public/a", "content-length: 3", body="abc")
    ),
    "chunks on GET": passes(
        request("/public/a", CHUNKED, body="1\r\na\r\n0\r\n\r\n"),
        saw("GET /public/a", "transfer-encoding: chunked", body="a"),
    ),
    "a body on DELETE": passes(
        request("/public/a", "Content-Length: 1", method="DELETE", body="x"),
        saw("DELETE /public/a", "content-length: 1", body="x"),
    ),
    "bytes after a GET": Row(
        request(body="abc\r\n\r\n"),
        (OK, BROKEN),
        (saw(),),  # no length, so they are the next message, and it is none
    ),
    "length, then chunked": refused(post("Content-Length: 5", CHUNKED, body="0\r\n\r\n")),
    "chunked, then length": refused(post(CHUNKED, "Content-Length: 5", body="0\r\n\r\n")),
    "length of zero and chunked": refused(post("Content-Length: 0", CHUNKED, body="0\r\n\r\n")),
    "two lengths": refused(post("Content-Length: 3", "Content-Length: 4", body="abc")),
    "the same length twice": refused(post("Content-Length: 3", "Content-Length: 3", body="abc")),
    "lengths in a list": refused(post("Content-Length: 3, 3", body="abc")),
    "a signed length": refused(post("Content-Length: +3", body="abc")),
    "a negative length": refused(post("Content-Length: -1")),
    "a hexadecimal length": refused(post("Content-Length: 0x3", body="abc")),
    "a length with a space inside": refused(post("Content-Length: 1 1", body="abc")),
    "an empty length": refused(post("Content-Length:", body="abc")),
    "a length beyond counting": refused(post("Content-Length: 18446744073709551619", body="abc")),
    "a length with a space before the colon": refused(post("Content-Length : 3", body="abc")),
    "a length with an underscore": refused(post("Content_Length: 3", body="abc")),
    "a length with a dot": passes(request("/public/a", "Content.Length: 3")),
    "a coding with an underscore": refused(post("Transfer_Encoding: chunked", body="0\r\n\r\n")),
    "a coding with a dot": passes(request("/public/a", "Transfer.Encoding: chunked")),
    "gzip, then chunked": refused(post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n")),
    "chunked, then gzip": refused(post("Transfer-Encoding: chunked, gzip", body="0\r\n\r\n")),
    "gzip and chunked in two fields": refused(post("Transfer-Encoding: gzip", CHUNKED, body="0\r\n\r\n")),
    "chunked twice": refused(post(CHUNKED, CHUNKED, body="0\r\n\r\n")),
    "chunked and identity": refused(post("Transfer-Encoding: chunked, identity", body="0\r\n\r\n")),
    "identity": refused(post("Transfer-Encoding: identity", body="abc")),
    "an empty coding": refused(post("Transfer-Encoding:", body="abc")),
    "a coding like chunked": refused(post("Transfer-Encoding: xchunked", body="0\r\n\r\n")),
    "a coding in quotes": refused(post('Transfer-Encoding: "chunked"', body="0\r\n\r\n")),
    "a coding with a parameter": refused(post("Transfer-Encoding: chunked;a=b", body="0\r\n\r\n")),
    "a coding after a vertical tab": refused(post("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n")),
    "a coding on a folded line": refused(post("Transfer-Encoding:\r\n chunked", body="0\r\n\r\n")),
    "a coding in HTTP/1.0": refused(request("/public/a", CHUNKED, version="HTTP/1.0", body="0\r\n\r\n")),
    "a chunk size that is no number": refused(chunks("x\r\nabc\r\n0\r\n\r\n")),
    "a negative chunk size": refused(chunks("-3\r\nabc\r\n0\r\n\r\n")),
    "a signed chunk size": refused(chunks("+3\r\nabc\r\n0\r\n\r\n")),
    "a chunk size with a prefix": refused(chunks("0x3\r\nabc\r\n0\r\n\r\n")),
    "an empty chunk size": refused(chunks("\r\nabc\r\n0\r\n\r\n")),
    "a chunk size beyond counting": refused(chunks("fffffffffffffffff3\r\nabc\r\n0\r\n\r\n")),
    "a chunk size before a space": refused(chunks("3 \r\nabc\r\n0\r\n\r\n")),
    "a chunk size before a bare LF": refused(chunks("3\nabc\r\n0\r\n\r\n")),
    "a chunk that is longer than it says": Row(chunks("3\r\nabcd\r\n0\r\n\r\n"), (BROKEN,), (CUT_OFF,)),
    "a last chunk that is wrong": Row(chunks("3\r\nabc\r\nx\r\n\r\n"), (BROKEN,), (CUT_OFF,)),
    "chunk extensions": passes(chunks('3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n'), POSTED_IN_CHUNKS),
    "a chunk extension with a bare LF": refused(chunks("3;a\nabc\r\n0\r\n\r\n")),
    "trailers with identity and credential": passes(
        chunks("3\r\nabc\r\n0\r\nX-User-Id: root\r\nAuthorization: Bearer <other>\r\nx_user_roles: god\r\n\r\n"),
        POSTED_IN_CHUNKS,
    ),
    "announced trailers that route": passes(
        chunks(
            "3\r\nabc\r\n0\r\nHost: evil.test\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: x-user-id\r\n\r\n",
            "Trailer: Host, X-Forwarded-For",
        ),
        POSTED_IN_CHUNKS,
    ),
    "trailers that frame": Row(chunks("3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"), (BROKEN,), (CUT_OFF,)),
    "trailers on a required route": passes(
        post(CHUNKED, AUTH, target="/api/a", body="1\r\na\r\n0\r\nX-User-Id: root\r\nX-Internal: 1\r\n\r\n"),
        saw("POST /api/a", "transfer-encoding: chunked", *ME, body="a"),
    ),
    "a trailer that is a credential where none came before": refused(
        post(CHUNKED, target="/api/a", body=f"1\r\na\r\n0\r\n{AUTH}\r\n\r\n"), MISSING
    ),
}

HEADS = {
    "an empty line in front": passes("\r\n" + request()),
    "bare LF": refused(f"GET /public/a HTTP/1.1\nHost: {HOST}\n\n"),
    "bare LF after a field": refused(f"GET /public/a HTTP/1.1\r\nHost: {HOST}\nX-A: 1\r\n\r\n"),
    "bare CR after a field": refused(f"GET /public/a HTTP/1.1\r\nHost: {HOST}\rX-A: 1\r\n\r\n"),
    "bare CR in a value": refused(request("/public/a", "X-A: 1\rX-User-Id: root")),
    "a folded line": refused(request("/public/a", "X-A: 1", " X-User-Id: root")),
    "a folded line with a tab": refused(request("/public/a", "X-A: 1", "\tmore")),
    "a first field behind a space": refused(f"GET /public/a HTTP/1.1\r\n X-A: 1\r\nHost: {HOST}\r\n\r\n"),
    "a space before the colon": refused(request("/public/a", "X-User-Id : root")),
    "an empty name": refused(request("/public/a", ": root")),
    "a line without a colon": refused(request("/public/a", "X-User-Id")),
    "a name with a space": refused(request("/public/a", "X User Id: root")),
    "a name beyond ASCII": refused(request("/public/a", "X-User-\xefd: root")),
    "NUL in a name": refused(request("/public/a", "X-User\0-Id: root")),
    "NUL in a value": refused(request("/public/a", "X-A: 1\0")),
    "NUL in the target": refused(request("/public/\0a")),
    "a control character in a value": refused(request("/public/a", "X-A: \x01")),
    "too many fields": refused(request("/public/a", *["X-A: 1"] * 40), LARGE_HEAD),
    "a field too large": refused(request("/public/a", "X-A: " + "a" * 5000), LARGE_HEAD),
    "a target too large": refused(request("/public/" + "a" * 5000), LARGE_HEAD),
    "HTTP/0.9": refused("GET /public/a\r\n\r\n"),
    "HTTP/1.0": Row(request(version="HTTP/1.0"), (Reply(200, closes=True),), (saw(ours={"via": "1.0 gateway"}),)),
    "HTTP/1.0 that asks to stay": Row(
        request("/public/a", "Connection: keep-alive", version="HTTP/1.0"),
        (Reply(200, closes=True),),
        (saw(ours={"via": "1.0 gateway"}),),
    ),
    "HTTP/1.0 without Host": refused(request(version="HTTP/1.0", host=None)),
    "HTTP/1.2": refused(request(version="HTTP/1.2")),
    "HTTP/2.0 in a line": refused(request(version="HTTP/2.0")),
    "a lower-case version": refused(request(version="http/1.1")),
    "the preface of HTTP/2": refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no Host": refused(request(host=None)),
    "an empty Host": refused(request(host="")),
    "two Hosts": refused(request("/public/a", "Host: evil.test")),
    "the same Host twice": refused(request("/public/a", f"Host: {HOST}")),
    "absolute form": passes(request(f"http://{HOST}/public/a?b"), saw("GET /public/a?b")),
    "absolute form in capitals": passes(request(f"HTTP://{HOST.upper()}/public/a")),
    "absolute form without a path": refused(request(f"http://{HOST}"), NOWHERE),
    "absolute form of another host": refused(request("http://evil.test/public/a")),
    "absolute form with a user": refused(request(f"http://root@{HOST}/public/a")),
    "absolute form of another scheme": refused(request(f"ftp://{HOST}/public/a")),
    "authority form": refused(request(f"{HOST}:80")),
    "a target with two slashes in front": refused(request("//evil.test/public/a"), AMBIGUOUS),
    "a relative target": refused(request("public/a")),
    "a target with a space": refused(request("/public/a b")),
    "a target with a fragment": refused(request("/public/a#b")),
    "an asterisk": refused(request("*")),
    "OPTIONS of the server": refused(request("*", method="OPTIONS"), NOWHERE),
    "OPTIONS of a resource": passes(request(method="OPTIONS"), saw("OPTIONS /public/a")),
    "CONNECT": refused(request("evil.test:443", method="CONNECT")),
    "TRACE": refused(request(method="TRACE")),
    "an unknown method": refused(request(method="FETCH")),
    "a lower-case method": refused(request(method="get")),
    "PROPFIND": passes(request(method="PROPFIND"), saw("PROPFIND /public/a")),
    "fields as they are": passes(
        request("/public/a", "X-B:  2 \t", "X-A:1", "x-b: \xe9", "X-C:"),
        saw("GET /public/a", "x-b: 2", "x-a: 1", "x-b: \xe9", "x-c: "),
    ),
    "HEAD": Row(request(method="HEAD"), (Reply(200, is_head=True),), (saw("HEAD /public/a"),)),
    "HEAD with a body": Row(
        request("/public/a", "Content-Length: 3", method="HEAD", body="abc"),
        (Reply(200, is_head=True),),
        (saw("HEAD /public/a", "content-length: 3", body="abc"),),
    ),
    "a method that the route does not have": refused(
        request("/methods/a", method="DELETE"), Reply(405, "method_not_allowed")
    ),
}


def path(target: str) -> Row:
    """Forwarded byte for byte."""
    return passes(request(target), saw(f"GET {target}"))


PATHS = {
    "dot segments out of the route": refused(request("/public/../api/a"), AMBIGUOUS),
    "dot segments within the route": refused(request("/public/b/../a"), AMBIGUOUS),
    "a dot segment at the end": refused(request("/public/.."), AMBIGUOUS),
    "a single dot": refused(request("/public/./a"), AMBIGUOUS),
    "encoded dots": refused(request("/public/%2e%2e/api/a"), AMBIGUOUS),
    "half-encoded dots": refused(request("/public/.%2E/api/a"), AMBIGUOUS),
    "dots encoded twice": refused(request("/public/%252e%252e/api/a"), AMBIGUOUS),
    "three dots": path("/public/.../a"),
    "an encoded slash": refused(request("/public/..%2fapi/a"), AMBIGUOUS),
    "an encoded slash without dots": refused(request("/public/a%2Fb"), AMBIGUOUS),
    "a slash encoded twice": refused(request("/public/a%252Fb"), AMBIGUOUS),
    "a backslash": refused(request("/public\\..\\api\\a"), AMBIGUOUS),
    "an encoded backslash": refused(request("/public/..%5capi/a"), AMBIGUOUS),
    "an overlong slash": refused(request("/public/..%c0%afapi"), AMBIGUOUS),
    "empty segments": refused(request("/public//a"), AMBIGUOUS),
    "a slash at the end": path("/public/a/"),
    "parameters": path("/public/a;v=1"),
    "parameters that look like dots": refused(request("/public/..;/api/a"), AMBIGUOUS),
    "parameters with an encoded semicolon": refused(request("/public/..%3b/api/a"), AMBIGUOUS),
    "parameters inside the prefix": refused(request("/public;x/a"), NOWHERE),
    "parameters that hide a required route": refused(request("/api;x/a"), NOWHERE),
    "UTF-8 as bytes": refused(request("/public/\xc3\xa9")),
    "UTF-8, encoded": path("/public/%C3%a9"),
    "Latin-1, encoded": refused(request("/public/%e9"), AMBIGUOUS),
    "an encoded NUL": refused(request("/public/a%00"), AMBIGUOUS),
    "an encoded line break": refused(request("/public/a%0d%0aX-User-Id:%20root"), AMBIGUOUS),
    "a line break encoded twice": refused(request("/public/a%250d%250a"), AMBIGUOUS),
    "an encoded letter": refused(request("/%61pi/a"), AMBIGUOUS),
    "an encoded tilde": refused(request("/public/%7ea"), AMBIGUOUS),
    "a percent sign alone": refused(request("/public/100%"), AMBIGUOUS),
    "an encoding that is none": refused(request("/public/%zz"), AMBIGUOUS),
    "encoded in IIS's way": refused(request("/public/%u002e"), AMBIGUOUS),
    "capitals": refused(request("/Public/a"), NOWHERE),
    "a longer name": refused(request("/publicity"), NOWHERE),
    "the bare prefix": path("/public"),
    "reserved characters": path("/public/a!$&'()*+,=:@b"),
    "characters that should be encoded": path('/public/a"<>[]^`{|}'),
    "a query as it is": path("/public/a?b=/../%2e%2e//;c=%00&&d=\\?e"),
    "an empty query": passes(request("/public/a?")),
    "allowed: empty segments": path("/lenient/a//b"),
    "allowed: an encoded slash": path("/lenient/a%2Fb"),
    "allowed: a dot segment inside": path("/lenient/a/../b"),
    "allowed, but it leads to a strict route": refused(request("/lenient/../api/a"), AMBIGUOUS),
    "allowed, but encoded it leads to a strict route": refused(request("/lenient/..%2fapi/a"), AMBIGUOUS),
}

HOSTS = {
    "a host's own route": passes(request("/host/a", host="admin.test"), saw("GET /host/a", host="admin.test")),
    "in capitals, with a port": passes(
        request("/host/a", host="ADMIN.test:8443"), saw("GET /host/a", host="ADMIN.test:8443")
    ),
    "with a dot at the end": passes(request("/host/a", host="admin.test."), saw("GET /host/a", host="admin.test.")),
    "another host": refused(request("/host/a"), NOWHERE),
    "a host that begins alike": refused(request("/host/a", host="admin.test.evil.test"), NOWHERE),
    "a suffix": passes(request("/tenant/a", host="b.tenant.test"), saw("GET /tenant/a", host="b.tenant.test")),
    "the suffix itself": refused(request("/tenant/a", host="tenant.test"), NOWHERE),
    "a name that ends alike": refused(request("/tenant/a", host="eviltenant.test"), NOWHERE),
    "an IPv6 address": passes(
        request(host="[2001:db8::1]:80"),
        saw(host="[2001:db8::1]:80"),
    ),
    "an IPv6 address without brackets": refused(request(host="2001:db8::1")),
    "a user": refused(request(host=f"root@{HOST}")),
    "a path": refused(request(host=f"{HOST}/a")),
    "a list": refused(request(host=f"{HOST}, evil.test")),
    "two words": refused(request(host=f"{HOST} evil.test")),
    "a quote": refused(request(host=f'{HOST}"')),
    "a port that is no number": refused(request(host=f"{HOST}:80a")),
    "a port of six digits": refused(request(host=f"{HOST}:123456")),
    "an encoded name": refused(request(host="%65dge.test")),
    "a name beyond ASCII": refused(request(host="\xe9dge.test")),
    "an empty label": refused(request(host="edge..test"), AMBIGUOUS),
    "only a port": refused(request(host=":80")),
}


def api(*fields: str, keep: tuple[str, ...] = ()) -> Row:
    """A GET with a good token; `keep` is what passes of `fields`, in lower case."""
    return passes(request("/api/a", AUTH, *fields), saw("GET /api/a", *keep, *ME))


def public(*fields: str, keep: tuple[str, ...] = (), ours: Mapping[str, str] | None = None) -> Row:
    """A GET without a token; `ours` are fields of the gateway that are not as usual."""
    return passes(request("/public/a", *fields), saw("GET /public/a", *keep, ours=ours))


HOP_BY_HOP = {
    "nominated fields": public("Connection: X-A, x-b", "X-A: 1", "X-B: 2", "X-C: 3", keep=("x-c: 3",)),
    "nominated in two fields": public("X-A: 1", "Connection: close-not", "Connection: x-a"),
    "nominated with odd commas": public("X-A: 1", "Connection: ,, x-a ,"),
    "identity nominated": api("Connection: X-User-Id, x-user-roles, X-User-Email"),
    "identity nominated and sent": api("X-User-Id: root", "Connection: keep-alive, X-User-Id"),
    "identity nominated with an underscore": api("X_User_Id: root", "Connection: x_user_id"),
    "the credential nominated": api("Connection: authorization"),
    "the gateway's own fields nominated": public(
        "Connection: x-forwarded-for, x-forwarded-proto, forwarded, via, x-request-id, traceparent, host"
    ),
    "Host nominated": api("Connection: Host"),
    "framing nominated": passes(post("Connection: content-length", "Content-Length: 3", body="abc"), POSTED),
    "coding nominated": passes(
        post("Connection: transfer-encoding", CHUNKED, body="3\r\nabc\r\n0\r\n\r\n"), POSTED_IN_CHUNKS
    ),
    "a cookie nominated": public("Connection: cookie", "Cookie: a=b"),
    "Connection: close": Row(
        request("/public/a", "Connection: close, X-A", "X-A: 1"), (Reply(200, closes=True),), (saw(),)
    ),
    "Keep-Alive": public("Connection: keep-alive", "Keep-Alive: timeout=5"),
    "TE": public("Connection: TE", "TE: trailers"),
    "TE, not nominated": public("TE: trailers, deflate;q=0.5"),
    "Trailer": public("Trailer: X-User-Id"),
    "Upgrade to h2c": public(
        "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    ),
    "Upgrade to a WebSocket without a nonce": refused(
        request("/public/a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    ),
    "Upgrade to a WebSocket with a body": passes(
        post("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3", body="abc"), POSTED
    ),
    "Upgrade, not nominated": public("Upgrade: h2c"),
    "Upgrade with a body and a smuggled request behind it": Row(
        post("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 3", body="abc")
        + request("/public/b", "X-User-Id: root"),
        (OK, OK),
        (POSTED, saw("GET /public/b")),
    ),
    "Upgrade with chunks": passes(
        post("Connection: Upgrade", "Upgrade: h2c", CHUNKED, body="3\r\nabc\r\n0\r\nX-User-Id: root\r\n\r\n"),
        POSTED_IN_CHUNKS,
    ),
    "fields for proxies": public(
        "Proxy-Authorization: Basic eDp5", "Proxy-Connection: keep-alive", "Proxy-Authenticate: Basic"
    ),
    "fields for proxies with underscores": public("Proxy_Authorization: Basic eDp5", "Keep_Alive: 5"),
    "Proxy, which CGI takes for the environment's": public("Proxy: http://evil.test"),
}

SPOOFS = (
    *("X-User-Id: root", "X-User-Id: root", "x-user-id: root", "X-USER-ROLES: god", "X_User_Id: root"),
    *("X-User_Id: root", "x_user_roles: god", "X.User.Id: root", "X-User.Roles: god", "X~User^Id: root"),
    *("X_User-Email: root@evil.test", "X-Internal: 1", "X_INTERNAL: 1"),
)

IDENTITY = {
    "spoofed on a public route": public(*SPOOFS),
    "spoofed on a public route, with a token": public(AUTH, *SPOOFS),
    "spoofed on an optional route": passes(request("/optional/a", *SPOOFS), saw("GET /optional/a")),
    "spoofed on an optional route, with a token": passes(
        request("/optional/a", *SPOOFS, AUTH), saw("GET /optional/a", *ME)
    ),
    "spoofed on a required route": api(*SPOOFS),
    "spoofed on a required route, without a token": refused(request("/api/a", *SPOOFS), MISSING),
    "spoofed where the token is silent": passes(
        request("/api/a", "Authorization: Bearer <bare>", *SPOOFS), saw("GET /api/a", *BARE)
    ),
    "spoofed where the token is forwarded": passes(
        request("/forward/a", AUTH, *SPOOFS), saw("GET /forward/a", "authorization: Bearer <token>", *ME)
    ),
    "spoofed beside a body": passes(
        post("Content-Length: 1", AUTH, *SPOOFS, target="/api/a", body="x"),
        saw("POST /api/a", "content-length: 1", *ME, body="x"),
    ),
    "names that only begin or end alike": public(
        "X-User-Identity: 1",
        "X-User: 1",
        "My-X-User-Id: 1",
        keep=("x-user-identity: 1", "x-user: 1", "my-x-user-id: 1"),
    ),
    "the credential on a public route": public(AUTH),
    "a forged credential on a public route": public("Authorization: Bearer <bad>"),
}

FORWARDED = {
    "X-Forwarded-For": public("X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"),
    "X-Forwarded-Proto, -Host and -Port": public(
        "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test", "X-Forwarded-Port: 443"
    ),
    "others of the kind": public("X-Forwarded-Prefix: /a", "X-Forwarded-User: root", "X-Forwarded-Ssl: on"),
    "spelled otherwise": public("X_Forwarded_For: 1.1.1.1", "X.Forwarded.Host: evil.test", "x-forwarded_proto: https"),
    "Forwarded": public('Forwarded: for=1.1.1.1;host="evil.test";proto=https'),
    "addresses that frameworks believe": public(
        *("X-Real-IP: 1.1.1.1", "X-Client-IP: 1.1.1.1", "True-Client-IP: 1.1.1.1", "X-Cluster-Client-IP: 1.1.1.1"),
        *("Client-IP: 1.1.1.1", "CF-Connecting-IP: 1.1.1.1", "Fastly-Client-IP: 1.1.1.1", "X-Forwarded: 1.1.1.1"),
        *("Forwarded-For: 1.1.1.1", "X_Real_IP: 1.1.1.1"),
    ),
    "paths that frameworks believe": public("X-Original-URL: /admin", "X-Rewrite-URL: /admin"),
    "a request id": public("X-Request-Id: mine", "X_Request_Id: mine"),
    "a trace": public(
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate: a=b",
        "Trace_Parent: x",
        keep=("trace_parent: x",),
    ),
    "Via goes on": public("Via: 1.1 other", keep=("via: 1.1 other",)),
}

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def believed(address: str, *, host: str = HOST, proto: str = "http") -> dict[str, str]:
    """The forwarding fields for a client behind one trusted proxy."""
    return {
        "x-forwarded-for": f"{address}, 127.0.0.1",
        "x-forwarded-host": host,
        "x-forwarded-proto": proto,
        "forwarded": f'for={address};host="{host}";proto={proto}, for=127.0.0.1',
    }


# These come from an address in `trusted_proxies`.
TRUSTED = {
    "an address": public("X-Forwarded-For: 203.0.113.7", ours=believed("203.0.113.7")),
    "an address behind a claimed one": public("X-Forwarded-For: 1.1.1.1, 203.0.113.7", ours=believed("203.0.113.7")),
    "an address in a second field": public(
        "X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.7", ours=believed("203.0.113.7")
    ),
    "a last address that is none": public("X-Forwarded-For: 203.0.113.7, unknown"),
    "all four": public(
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.test",
        "X-Forwarded-Port: 443",
        ours={**believed("203.0.113.7", host="shop.test", proto="https"), "x-forwarded-port": "443"},
    ),
    "a scheme and a host that are none": public(
        "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a/b", "X-Forwarded-Port: x"
    ),
    "Forwarded": public(
        'Forwarded: for=1.1.1.1, for=203.0.113.7;proto=https;host="shop.test"',
        ours=believed("203.0.113.7", host="shop.test", proto="https"),
    ),
    "Forwarded beside X-Forwarded-For": public(
        "Forwarded: for=1.1.1.1", "X-Forwarded-For: 203.0.113.7", ours=believed("203.0.113.7")
    ),
    "spelled otherwise": public("X_Forwarded_For: 1.1.1.1", "X_Forwarded_Host: evil.test"),
    "an address nominated by Connection": public(
        "Connection: x-forwarded-for", "X-Forwarded-For: 203.0.113.7", ours=believed("203.0.113.7")
    ),
    "what proxies add": public(
        "X-Real-IP: 203.0.113.7", "X-Forwarded-Prefix: /a", keep=("x-real-ip: 203.0.113.7", "x-forwarded-prefix: /a")
    ),
    "a request id": public("X-Request-Id: from-the-proxy", ours={"x-request-id": "from-the-proxy"}),
    "two request ids": public("X-Request-Id: a", "X-Request-Id: b"),
    "a request id that is not plain": public('X-Request-Id: a"b'),
    "a trace": public(
        f"traceparent: {TRACE}", "tracestate: a=b", keep=("tracestate: a=b",), ours={"traceparent": TRACE}
    ),
    "a trace that is none": public("traceparent: 00-0-0-0", "tracestate: a=b"),
    "identity": public(*SPOOFS),
    "identity, with a token": api(*SPOOFS),
    "identity nominated": api("Connection: x-user-id, x-user-roles"),
}

CREDENTIALS = {
    "none": refused(request("/api/a"), MISSING),
    "the scheme in lower case": passes(request("/api/a", "authorization: bearer <token>"), saw("GET /api/a", *ME)),
    "more than one space": passes(request("/api/a", "Authorization: Bearer   <token>"), saw("GET /api/a", *ME)),
    "two": refused(request("/api/a", AUTH, "Authorization: Bearer <other>"), AMBIGUOUS),
    "the same twice": refused(request("/api/a", AUTH, AUTH), AMBIGUOUS),
    "Bearer and Basic": refused(request("/api/a", AUTH, "Authorization: Basic eDp5"), AMBIGUOUS),
    "two in one field": refused(request("/api/a", "Authorization: Bearer <token>, Bearer <other>"), AMBIGUOUS),
    "two words": refused(request("/api/a", "Authorization: Bearer <token> <other>"), AMBIGUOUS),
    "Bearer alone": refused(request("/api/a", "Authorization: Bearer"), AMBIGUOUS),
    "Bearer and a tab": refused(request("/api/a", "Authorization: Bearer\t<token>"), AMBIGUOUS),
    "Basic": refused(request("/api/a", "Authorization: Basic eDp5"), MISSING),
    "Basic where a token may be absent": passes(
        request("/optional/a", "Authorization: Basic eDp5"), saw("GET /optional/a")
    ),
    "Basic on a public route": public("Authorization: Basic eDp5"),
    "a forged token": refused(request("/api/a", "Authorization: Bearer <bad>"), INVALID),
    "a forged token where it may be absent": refused(request("/optional/a", "Authorization: Bearer <bad>"), INVALID),
    "no token at all": refused(request("/api/a", "Authorization: Bearer x"), INVALID),
    "a misspelt field": refused(request("/api/a", "Authorization_: Bearer <token>"), MISSING),
    "a token that is forwarded": passes(
        request("/forward/a", AUTH), saw("GET /forward/a", "authorization: Bearer <token>", *ME)
    ),
    "a cookie": passes(
        request("/cookie/a", "Cookie: a=1; session=<token>; b=2"), saw("GET /cookie/a", "cookie: a=1; b=2", *ME)
    ),
    "a cookie alone": passes(request("/cookie/a", "Cookie: session=<token>"), saw("GET /cookie/a", *ME)),
    "a cookie in a second field": passes(
        request("/cookie/a", "Cookie: a=1", "Cookie: session=<token>; b=2"),
        saw("GET /cookie/a", "cookie: a=1", "cookie: b=2", *ME),
    ),
    "two cookies": refused(request("/cookie/a", "Cookie: session=<token>; session=<token>"), AMBIGUOUS),
    "two cookies in two fields": refused(
        request("/cookie/a", "Cookie: session=<token>", "Cookie: session=<other>"), AMBIGUOUS
    ),
    "a cookie and a field": refused(request("/cookie/a", "Cookie: session=<token>", AUTH), AMBIGUOUS),
    "an empty cookie": refused(request("/cookie/a", "Cookie: session="), INVALID),
    "a cookie in capitals": refused(request("/cookie/a", "Cookie: SESSION=<token>"), MISSING),
    "a cookie where the route reads none": refused(request("/api/a", "Cookie: session=<token>"), MISSING),
    "a cookie on a public route": public("Cookie: session=<token>; a=1", keep=("cookie: a=1",)),
    "a cookie beside a field where the route reads none": passes(
        request("/api/a", AUTH, "Cookie: session=<other>"), saw("GET /api/a", *ME)
    ),
    "a parameter": passes(request("/query/a?b=1&access_token=<token>&c=%2f"), saw("GET /query/a?b=1&c=%2f", *ME)),
    "a parameter alone": passes(request("/query/a?access_token=<token>"), saw("GET /query/a", *ME)),
    "a parameter with an encoded name": passes(request("/query/a?acc%65ss_token=<token>"), saw("GET /query/a", *ME)),
    "two parameters": refused(request("/query/a?access_token=<token>&access_token=<token>"), AMBIGUOUS),
    "two parameters, one encoded": refused(request("/query/a?access_token=<token>&acc%65ss_token=<other>"), AMBIGUOUS),
    "a parameter and a field": refused(request("/query/a?access_token=<token>", AUTH), AMBIGUOUS),
    "a parameter where the route reads none": refused(request("/api/a?access_token=<token>"), MISSING),
    "a parameter on a public route": passes(request("/public/a?access_token=<token>&b=1"), saw("GET /public/a?b=1")),
}

LARGE = "x" * 17  # one byte more than /small takes
INNER = request("/public/inner", "X-User-Id: root")  # a request where a body should be

SEQUENCES = {
    "two requests at once, the second with identity": Row(
        request("/api/a", AUTH) + request("/public/b", "X-User-Id: root", "X_User_Roles: god"),
        (OK, OK),
        (saw("GET /api/a", *ME), saw("GET /public/b")),
    ),
    "two callers on one connection": Row(
        request("/api/a", AUTH) + request("/api/b", "Authorization: Bearer <other>"),
        (OK, OK),
        (saw("GET /api/a", *ME), saw("GET /api/b", *OTHER)),
    ),
    "a caller, then nobody": Row(
        request("/api/a", AUTH) + request("/api/b") + request("/optional/c"),
        (OK, MISSING, OK),
        (saw("GET /api/a", *ME), saw("GET /optional/c")),
    ),
    "a body, then a request": Row(
        post("Content-Length: 3", body="abc") + request("/public/b"), (OK, OK), (POSTED, saw("GET /public/b"))
    ),
    "chunks, then a request": Row(
        chunks("3\r\nabc\r\n0\r\n\r\n") + request("/public/b"), (OK, OK), (POSTED_IN_CHUNKS, saw("GET /public/b"))
    ),
    "a request inside a body": passes(
        post(f"Content-Length: {len(INNER)}", body=INNER),
        saw("POST /public/a", f"content-length: {len(INNER)}", body=INNER),
    ),
    "HEAD, then GET": Row(
        request(method="HEAD") + request("/public/b"),
        (Reply(200, is_head=True), OK),
        (saw("HEAD /public/a"), saw("GET /public/b")),
    ),
    "a good request, then a broken one": Row(request() + request(host=None), (OK, BROKEN), (saw(),)),
    "a broken request, then a good one": refused(request(host=None) + request("/public/b")),
    "a request after Connection: close": Row(
        request("/public/a", "Connection: close") + request("/public/b"), (Reply(200, closes=True),), (saw(),)
    ),
    "Expect: 100-continue": Row((post("Expect: 100-continue", "Content-Length: 3"), "abc"), (CONTINUE, OK), (POSTED,)),
    "Expect: 100-continue, with chunks": Row(
        (post("Expect: 100-Continue", CHUNKED), "3\r\nabc\r\n0\r\n\r\n"), (CONTINUE, OK), (POSTED_IN_CHUNKS,)
    ),
    "Expect: 100-continue with the body at once": passes(
        post("Expect: 100-continue", "Content-Length: 3", body="abc"), POSTED
    ),
    "Expect without a body": public("Expect: 100-continue"),
    "Expect something else": passes(post("Expect: tea", "Content-Length: 3", body="abc"), POSTED),
    "Expect without a token": refused(
        post("Expect: 100-continue", "Content-Length: 3", target="/api/a"), Reply(401, "token_missing", closes=True)
    ),
    "Expect with too much": refused(post("Expect: 100-continue", "Content-Length: 17", target="/small/a"), LARGE_BODY),
    "as large as allowed": passes(
        post("Content-Length: 16", body=LARGE[1:], target="/small/a"),
        saw("POST /small/a", "content-length: 16", body=LARGE[1:]),
    ),
    "larger than allowed": refused(post("Content-Length: 17", body=LARGE, target="/small/a"), LARGE_BODY),
    "much larger than allowed": refused(post("Content-Length: 999999999999", target="/small/a"), LARGE_BODY),
    "a chunk larger than allowed": refused(
        post(CHUNKED, body=f"11\r\n{LARGE}\r\n0\r\n\r\n", target="/small/a"), LARGE_BODY
    ),
    "chunks larger than allowed together": Row(
        post(CHUNKED, body="a\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", target="/small/a"),
        (LARGE_BODY,),
        (Saw("POST /small/a", ("transfer-encoding: chunked",), b"0123456789", is_complete=False),),
    ),
    "refused with its body at hand": Row(
        post("Content-Length: 3", body="abc", target="/api/a") + request("/public/b"),
        (MISSING, OK),
        (saw("GET /public/b"),),
    ),
    "refused before its body came": Row(
        (post(f"Content-Length: {len(INNER)}", target="/api/a"), INNER + request("/public/b")),
        (MISSING, OK),
        (saw("GET /public/b"),),
    ),
    "refused before its chunks came": Row(
        (post(CHUNKED, target="/api/a"), "3\r\nabc\r\n0\r\nX-User-Id: root\r\n\r\n" + request("/public/b")),
        (MISSING, OK),
        (saw("GET /public/b"),),
    ),
    "refused with more body than is worth reading": Row(
        (post("Content-Length: 200000", target="/api/a"), "x" * 200_000), (MISSING,), ends=True
    ),
}

TABLES: dict[str, dict[str, Row]] = {
    "framing": FRAMING,
    "heads": HEADS,
    "paths": PATHS,
    "hosts": HOSTS,
    "hop-by-hop": HOP_BY_HOP,
    "identity": IDENTITY,
    "forwarded": FORWARDED,
    "trusted": TRUSTED,
    "credentials": CREDENTIALS,
    "sequences": SEQUENCES,
}
