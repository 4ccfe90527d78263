"""The compiled table: which route a request belongs to, and how it is told that it belongs to none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import BadRequest, GatewayError, MethodNotAllowed
from gateway.routing import table as table_module
from gateway.routing.ambiguity import split
from gateway.routing.pattern import ANY_HOST, RouteShape, find_conflicts, parse_host, parse_path
from gateway.routing.table import RouteTable

HOST = b"shop.example"


def table(*routes: str) -> RouteTable[str]:
    """A table of routes written `[METHOD,METHOD ][host]/path[ +kind,kind]`; each leads to its own text."""
    return RouteTable([(shape(text), text) for text in routes])


def shape(text: str) -> RouteShape:
    """The route that `table` reads in a text."""
    head, _, allow = text.partition(" +")
    methods, _, place = head.rpartition(" ")
    host, slash, path = place.partition("/")
    kinds: Any = tuple(kind for kind in allow.split(",") if kind)
    return RouteShape(text, host or None, slash + path, tuple(methods.split(",")) if methods else None, kinds)


def outcome(routes: RouteTable[str], method: str, host: bytes, raw_path: bytes) -> str:
    """The route's text, or the error: its code, with what 405 allows."""
    try:
        return routes.match(method, host, raw_path)
    except MethodNotAllowed as exc:
        return "405 " + ",".join(exc.allow)
    except GatewayError as exc:
        return str(exc.status)


SHOP = table(
    "/",
    "/users",
    "/users/{id}",
    "/users/@me",
    "/users/{id}/orders",
    "GET,PUT /users/{id}/photo",
    "DELETE /users/{id}/photo",
    "/files/**",
    "/files/{name}/meta",
    "GET /reports/**",
    "/café",
    "admin.example/**",
    "*.example/tenants",
    "*.eu.example/tenants",
    "a.eu.example/tenants",
)


@pytest.mark.parametrize(
    ("method", "host", "raw_path", "expected"),
    [
        ("GET", HOST, b"/", "/"),
        ("GET", HOST, b"/users", "/users"),
        ("GET", HOST, b"/users/", "404"),
        ("GET", HOST, b"/users/7", "/users/{id}"),
        ("GET", HOST, b"/users/@me", "/users/@me"),
        ("GET", HOST, b"/users/%40me", "/users/@me"),  # as many clients write it, and as servers decode it
        ("GET", HOST, b"/users/7/orders", "/users/{id}/orders"),
        ("GET", HOST, b"/users/@me/orders", "/users/{id}/orders"),  # back from the literal that leads no further
        ("GET", HOST, b"/users/7/orders/1", "404"),
        ("GET", HOST, b"/files", "/files/**"),
        ("GET", HOST, b"/files/", "/files/**"),
        ("GET", HOST, b"/files/a/b/c", "/files/**"),
        ("GET", HOST, b"/files/a/meta", "/files/{name}/meta"),
        ("GET", HOST, b"/files/a/meta/b", "/files/**"),
        ("GET", HOST, b"/files/.hidden/%20", "/files/**"),
        ("GET", HOST, b"/filesystem", "404"),
        ("GET", HOST, b"/caf%c3%a9", "/café"),
        ("GET", HOST, b"/Users", "404"),
        # methods
        ("HEAD", HOST, b"/users/7/photo", "GET,PUT /users/{id}/photo"),
        ("DELETE", HOST, b"/users/7/photo", "DELETE /users/{id}/photo"),
        ("POST", HOST, b"/users/7/photo", "405 DELETE,GET,HEAD,PUT"),
        ("get", HOST, b"/users/7/photo", "405 DELETE,GET,HEAD,PUT"),  # methods are case-sensitive (RFC 9110 §9.1)
        ("PUT", HOST, b"/reports", "405 GET,HEAD"),
        ("PROPFIND", HOST, b"/users", "/users"),
        # hosts
        ("GET", b"admin.example", b"/users", "admin.example/**"),
        ("GET", b"ADMIN.Example:8443", b"/users", "admin.example/**"),
        ("GET", b"admin.example.", b"/users", "admin.example/**"),
        ("GET", b"admin.example.:80", b"/users", "admin.example/**"),
        ("GET", b"x.example", b"/tenants", "*.example/tenants"),
        ("GET", b"y.x.example", b"/tenants", "*.example/tenants"),
        ("GET", b"x.eu.example", b"/tenants", "*.eu.example/tenants"),
        ("GET", b"a.eu.example", b"/tenants", "a.eu.example/tenants"),
        ("GET", b"example", b"/tenants", "404"),
        ("GET", b"a.eu.example", b"/users", "/users"),  # nothing of its own: the routes for any host apply
        ("GET", b"[::1]:8080", b"/users", "/users"),
        ("GET", b"10.0.0.1", b"/users", "/users"),
        # request targets that are no path
        ("OPTIONS", HOST, b"*", "404"),
        ("GET", HOST, b"", "400"),
        ("CONNECT", HOST, b"shop.example:443", "400"),
    ],
)
def test_match(method: str, host: bytes, raw_path: bytes, expected: str) -> None:
    """A request belongs to the most specific route for its host, path and method."""
    assert outcome(SHOP, method, host, raw_path) == expected


def test_a_method_that_the_specific_route_refuses_falls_through() -> None:
    """405 is the answer only when no matching route accepts the method, whatever its host."""
    routes = table("GET /x/y", "POST /x/{a}", "shop.example/x/{a}", "PATCH /x/**")
    assert outcome(routes, "POST", b"other.example", b"/x/y") == "POST /x/{a}"
    assert outcome(routes, "PATCH", b"other.example", b"/x/y") == "PATCH /x/**"
    assert outcome(routes, "PUT", b"other.example", b"/x/y") == "405 GET,HEAD,PATCH,POST"
    assert outcome(routes, "PUT", HOST, b"/x/y") == "shop.example/x/{a}"


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b".", b"..", b"a..b", b"a..", b".a", b"a b", b"a/b", b"a@b", b"a,b", b"http://a"),
        *(b"a:b", b"a:80:80", b"a:123456", b"[::1", b"::1", b"[]", b"[g]"),
        *(b"a\x00", b"caf\xc3\xa9", b"%61.example"),
    ],
)
def test_a_host_that_is_no_host(host: bytes) -> None:
    """A Host value that names no host is a bad request (RFC 9112 §3.2), before any route is considered."""
    assert outcome(SHOP, "GET", host, b"/users") == "400"


def test_remembered_hosts_are_bounded() -> None:
    """Strangers can send any number of hosts; each is matched rightly, and few are remembered."""
    routes = table("*.example/x", "/x")
    for number in range(5000):
        assert outcome(routes, "GET", b"h%d.example" % number, b"/x") == "*.example/x"
        assert outcome(routes, "GET", b"h%d.other" % number, b"/x") == "/x"
    assert len(routes._remembered) <= 1024


def test_a_tie_is_refused() -> None:
    """Which of two equal routes wins would be chance, so no table is made of them."""
    with pytest.raises(ValueError, match=r"matches the same requests as route '/b/\{x\}'"):
        table("/a", "/b/{x}", "/b/{y}")


def test_candidates() -> None:
    """All routes that match are listed, the most specific first, whatever their methods."""
    routes = table("/**", "GET /x/{a}", "POST /x/{a}", "/x/y", "shop.example/x/**", "*.example/x/y", "/z")
    found = [target for _, target in routes.candidates(HOST, b"/x/y")]
    assert found == ["shop.example/x/**", "*.example/x/y", "/x/y", "GET /x/{a}", "POST /x/{a}", "/**"]
    assert [route.name for route, _ in routes.candidates(b"other", b"/x%2Fy")] == ["/**"]
    with pytest.raises(BadRequest):
        routes.candidates(HOST, b"/%00")


# --- ambiguous paths -------------------------------------------------------------------------------------------------

GUARDED = table("/public/**", "/admin/**", "/{page}", "/projects/{id}", "/projects/{id}/issues")

REFUSED = [
    b"/public/../admin/x",
    b"/public/./x",
    b"/public/..",
    b"/public/..;/admin/x",
    b"/public/..;a=b/admin/x",
    b"/public/%2e%2e/admin/x",
    b"/public/%2E%2E;/admin/x",
    b"/public/.%2e/admin/x",
    b"/public/%252e%252e/admin/x",
    b"/public/..%2fadmin/x",
    b"/public%2f..%2fadmin/x",
    b"/public%2Fx",
    b"/public%252Fx",
    b"/public\\..\\admin\\x",
    b"/public/..%5cadmin/x",
    b"/public%5cx",
    b"//admin/x",
    b"/public//x",
    b"/./admin/x",
    b"/%2fadmin/x",
    b"/\\admin/x",
    b"/;/admin/x",
    b"/;x/admin/x",
    b"/public/file%2etxt",
    b"/%61dmin/x",
    b"/adm%69n/x",
    b"/public/%00",
    b"/public/%0d%0a",
    b"/public/a%2500",
    b"/public/%",
    b"/public/%2",
    b"/public/%gg",
    b"/public/%u002e",
    b"/public/\x80",
    b"/public/a b",
    b"/public/\xc0\xae",
    b"/public/%c0%ae%c0%ae/admin/x",
    b"/public/%ff",
    b"/public/a?b",
    b"/public/a#b",
    # one reading is `/{page}`, the other what guards /admin
    b"/admin;x",
    b"/admin%3bx",
    b"/projects/7;/issues/..",
]


@pytest.mark.parametrize("raw_path", REFUSED)
def test_ambiguous_paths_are_refused(raw_path: bytes) -> None:
    """No path that a server behind the gateway could read as another reaches a route that does not allow it."""
    assert outcome(GUARDED, "GET", HOST, raw_path) == "400"


@pytest.mark.parametrize(
    ("raw_path", "expected"),
    [
        (b"/public/a;v=1/b", "/public/**"),  # with or without the parameter the same route
        (b"/page;v=1", "/{page}"),
        (b"/projects/7;v=1/issues", "/projects/{id}/issues"),
        (b"/public/...", "/public/**"),
        (b"/public/..a/b..", "/public/**"),
        (b"/public/.well-known/", "/public/**"),
        (b"/public/100%25/%E2%82%AC", "/public/**"),
        (b"/public/a%26b%3Dc", "/public/**"),
    ],
)
def test_certain_paths_are_matched(raw_path: bytes, expected: str) -> None:
    """Dots within names, parameters that change no route, and encoded text are everyday paths."""
    assert outcome(GUARDED, "GET", HOST, raw_path) == expected


def test_the_reason_is_public() -> None:
    """The client learns which form is refused."""
    with pytest.raises(BadRequest) as caught:
        GUARDED.match("GET", HOST, b"/public/../a%2Fb")
    assert caught.value.detail == "The path holds dot segments and an encoded slash, which servers read differently."


ALL_KINDS = "+dot_segments,encoded_slash,encoded_dot,backslash,empty_segments"


@pytest.mark.parametrize(
    ("routes", "raw_path", "expected"),
    [
        # Each kind is allowed by its own word, and all kinds of a path are needed.
        (["/f/** +encoded_slash"], b"/f/a%2Fb", 0),
        (["/f/** +encoded_slash"], b"/f/a%252Fb", 0),
        (["/f/** +encoded_slash"], b"/f/a%2etxt", "400"),
        (["/f/** +encoded_dot"], b"/f/a%2etxt", 0),
        (["/f/** +encoded_dot"], b"/f/%2e%2e/f/a", "400"),
        (["/f/** +encoded_dot,dot_segments"], b"/f/%2e%2e/f/a", 0),
        (["/f/** +backslash"], b"/f/a\\b", 0),
        (["/f/** +empty_segments"], b"/f/a//b", 0),
        (["/f/** +dot_segments"], b"/f/a/../b", 0),
        (["/f/** +dot_segments"], b"/f/a/..;/b", 0),
        # Never, whatever is allowed.
        ([f"/f/** {ALL_KINDS}"], b"/f/%00", "400"),
        ([f"/f/** {ALL_KINDS}"], b"/f/%61", "400"),
        ([f"/f/** {ALL_KINDS}"], b"/f/%zz", "400"),
        # A name with slashes goes below the same prefix, where nothing else is guarded.
        (["/projects/{id} +encoded_slash"], b"/projects/group%2Fname", 0),
        (["/projects/{id} +encoded_slash,encoded_dot"], b"/projects/group%2Fname%2egit", 0),
        # But not into what another route guards, unless that one allows it too.
        (["/projects/{id} +encoded_slash", "/projects/{id}/issues"], b"/projects/7%2Fissues", "400"),
        (["/projects/{id} +encoded_slash", "/projects/{id}/issues +encoded_slash"], b"/projects/7%2Fissues", 0),
        (["/projects/{id} +encoded_slash", "/**"], b"/projects/a%2Fb", "400"),
        (["/projects/{id} +encoded_slash", "/** +encoded_slash"], b"/projects/a%2Fb", 0),
        # Nor into a method that another route withholds.
        (["/projects/{id} +encoded_slash", "POST /projects/{id}/issues"], b"/projects/7%2Fissues", "400"),
        # Nor out of what is routed at all.
        (["/f/** +dot_segments"], b"/f/../internal", "400"),
        (["/f/** +dot_segments"], b"/f/..", "400"),
        (["/f/{x} +encoded_slash"], b"/f/;y", "400"),
        ([f"/f/** {ALL_KINDS}", "/admin"], b"/f/..%2f..\\admin", "400"),
        ([f"/f/** {ALL_KINDS}", f"/admin {ALL_KINDS}", f"/** {ALL_KINDS}"], b"/f/..%2f..\\admin", 0),
        ([f"/** {ALL_KINDS}", "/admin/**"], b"//admin/x", "400"),
        ([f"/** {ALL_KINDS}", "/admin/**"], b"/admin%2Fx", "400"),
        ([f"/** {ALL_KINDS}", "/admin/**"], b"/a/..//admin/x", "400"),
        ([f"/** {ALL_KINDS}", "/admin/**"], b"/admin%5cx", "400"),
        ([f"/** {ALL_KINDS}", "/admin/**"], b"/a/%252e%252e/admin/x", "400"),
        ([f"/** {ALL_KINDS}", "/admin/**"], b"/a/b%2F..", 0),
    ],
)
def test_allowed_ambiguity(routes: list[str], raw_path: bytes, expected: str | int) -> None:
    """An allowed form is served if every server, however it reads the path, ends at a route that allows it."""
    wanted = routes[expected] if isinstance(expected, int) else expected
    assert outcome(table(*routes), "GET", HOST, raw_path) == wanted


def test_an_unknown_path_is_refused_for_its_form() -> None:
    """Whether an ambiguous path would have had a route is not told."""
    assert outcome(table("/a"), "GET", HOST, b"/b//c") == "400"


# --- against a plain reference ---------------------------------------------------------------------------------------


def reference(shapes: list[RouteShape], method: str, host: str, raw_path: bytes) -> str:
    """Matching as the documentation says it, one route after the other."""
    segments = split(raw_path)
    found = []
    for route in shapes:
        hosts, path = (parse_host(route.host) if route.host else ANY_HOST), parse_path(route.path)
        if hosts.matches(host) and path.matches(segments):
            found.append((hosts.rank, path.rank, route))
    if not found:
        return "404"
    for *_, route in sorted(found, key=lambda item: item[:2]):
        if route.method_set is None or method in route.method_set:
            return route.name
    return "405 " + ",".join(sorted({name for *_, route in found for name in route.method_set or ()}))


SEGMENT = st.sampled_from(["a", "b", "c"])


@st.composite
def route_texts(draw: st.DrawFn) -> str:
    """A route over few words, so that routes overlap often."""
    parts = draw(st.lists(st.one_of(SEGMENT, st.just("{}")), max_size=4))
    parts = [part.replace("{}", f"{{p{number}}}") for number, part in enumerate(parts)]
    tail = draw(st.sampled_from([[], [], ["**"], [""]])) or ([] if parts else [""])
    host = draw(st.sampled_from(["", "", "x.y.z", "*.y.z", "*.z", "y.z"]))
    methods = draw(st.sampled_from(["", "", "GET ", "POST ", "GET,PUT "]))
    return f"{methods}{host}/{'/'.join(parts + tail)}"


def without_ties(texts: list[str]) -> list[str]:
    """The texts without those that tie with an earlier one."""
    kept: list[str] = []
    for text in texts:
        if all(conflict.kind != "tie" for conflict in find_conflicts([shape(each) for each in (*kept, text)])):
            kept.append(text)
    return kept


ROUTES = st.lists(route_texts(), min_size=1, max_size=12).map(without_ties)
PATHS = st.lists(SEGMENT, max_size=5).map("/".join)


@given(ROUTES, st.lists(st.tuples(PATHS, st.sampled_from(["", "/"])), min_size=1, max_size=8), st.randoms())
def test_agrees_with_the_reference(texts: list[str], paths: list[tuple[str, str]], random: Any) -> None:
    """For every host, path and method the tree finds what the documentation promises, whatever the order of routes."""
    shuffled = texts.copy()
    random.shuffle(shuffled)
    routes, shapes = table(*shuffled), [shape(text) for text in texts]
    for (path, slash), host, method in itertools.product(
        paths, ["x.y.z", "q.x.y.z", "y.z", "w"], ["GET", "HEAD", "POST", "DELETE"]
    ):
        raw_path = f"/{path}{slash if path else ''}".encode()
        expected = reference(shapes, method, host, raw_path)
        assert outcome(routes, method, f"{host}:80".encode(), raw_path) == expected


# Routes that cover one another in part, or together in full.
NESTED = st.lists(
    st.sampled_from(
        [
            *("/**", "/", "/{p}/**", "/{p}", "/{p}/", "/{p}/{q}/**", "/a/a/**"),
            *("/a/**", "/a", "/a/", "/a/{p}/**", "/a/{p}", "/a/{p}/"),
            *("GET /a/**", "GET /a", "POST /a", "GET,POST /a/", "GET /a/{p}/**", "POST /a/{p}/**"),
        ]
    ),
    min_size=1,
).map(without_ties)


@given(NESTED)
def test_a_route_is_reachable_unless_reported(texts: list[str]) -> None:
    """Over the routes' own words and a new one, some request ends at each route but those reported as unreachable."""
    routes = table(*texts)
    unreachable = {texts[conflict.position] for conflict in find_conflicts([shape(text) for text in texts])}
    reached = {
        outcome(routes, method, HOST, f"/{'/'.join(words)}{slash if words else ''}".encode())
        for length, method, slash in itertools.product(range(5), ["GET", "POST", "OTHER"], ["", "/"])
        for words in itertools.product(("a", "new"), repeat=length)
    }
    assert reached & set(texts) == set(texts) - unreachable


HOSTILE_PATHS = st.lists(
    st.sampled_from(["/", "/", "a", "b", ".", "..", ";", "\\", "%2f", "%252F", "%2e", "%5c", "%3b", "%20"]), max_size=10
).map(lambda pieces: ("/" + "".join(pieces)).encode())


def as_served(raw_path: bytes, habits: tuple[bool, ...]) -> bytes:
    """A server's view of a path: written apart from the gateway's code, for each set of habits."""
    decodes_slash, decodes_dot, twice, backslash, cuts, merges, resolves = habits
    text = raw_path.decode()
    for _ in range(1 + twice):
        text = text.replace("%2f", "/").replace("%2F", "/") if decodes_slash else text
        text = text.replace("%2e", ".") if decodes_dot else text
        text = text.replace("%3b", ";").replace("%5c", "\\")
        text = text.replace("%25", "%") if twice else text
    text = text.replace("\\", "/") if backslash else text
    parts = text.split("/")[1:]
    parts = [part.split(";")[0] for part in parts] if cuts else parts
    parts = [*(part for part in parts[:-1] if part), parts[-1]] if merges else parts
    if resolves:
        kept: list[str] = []
        for part in parts:
            if part == "..":
                kept = kept[:-1]
            elif part != ".":
                kept.append(part)
        parts = [*kept, ""] if parts[-1] in (".", "..") else kept
    return ("/" + "/".join(parts)).encode()


@example(b"/./a%2f..%252F")  # decoded once it is below /a, decoded twice it is not
@given(HOSTILE_PATHS)
def test_no_path_is_a_way_around_a_strict_route(raw_path: bytes) -> None:
    """Whatever a permissive route lets through, no server with any set of habits serves it from below a strict one."""
    routes = table(f"/** {ALL_KINDS}", "/a/**", f"/b/** {ALL_KINDS}", "/b/a")
    found = outcome(routes, "GET", HOST, raw_path)
    if found == "400":
        return
    for habits in itertools.product((False, True), repeat=7):
        served = as_served(raw_path, habits).decode()
        below_strict = served == "/a" or served.startswith("/a/") or served == "/b/a"
        assert not below_strict or found in ("/a/**", "/b/a"), habits


# --- the work of a match ---------------------------------------------------------------------------------------------


def visits(monkeypatch: pytest.MonkeyPatch, routes: RouteTable[str], raw_path: bytes) -> int:
    """How many places of the tree are looked at for one request."""
    count = 0
    find = table_module._find

    def counting(*args: Any) -> Any:
        nonlocal count
        count += 1
        return find(*args)

    with monkeypatch.context() as patch:
        patch.setattr(table_module, "_find", counting)
        routes.match("GET", HOST, raw_path)
    return count


@pytest.mark.parametrize("raw_path", [b"/s7", b"/s7/users/1/orders/2", b"/s9/files/a/b/c/d/e/f/g", b"/x/y/z"])
def test_thousands_of_routes_match_as_fast_as_ten(monkeypatch: pytest.MonkeyPatch, raw_path: bytes) -> None:
    """The places visited depend on the path's segments alone, not on the number of routes, their hosts or methods."""

    def make(services: int) -> RouteTable[str]:
        patterns = [
            "/s{}",
            "/s{}/users/{{id}}/orders/{{o}}",
            "GET /s{}/files/**",
            "PUT /s{}/files/**",
            "h{}.example/**",
        ]
        return table("/**", *(pattern.format(number) for number in range(services) for pattern in patterns))

    few, many = make(10), make(1000)
    assert visits(monkeypatch, few, raw_path) == visits(monkeypatch, many, raw_path) <= raw_path.count(b"/") + 2


def test_a_long_path_ends_where_the_patterns_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of thousands of segments costs no more than the patterns are deep."""
    assert visits(monkeypatch, table("/a/**", "/{x}/{y}"), b"/a" * 5000) <= 3
