"""Patterns of paths and hosts: their grammar, their order, and those that stand in each other's way."""

from __future__ import annotations

import itertools

import pytest

from gateway.config.schema import Ambiguity
from gateway.routing.ambiguity import split
from gateway.routing.pattern import HostPattern, RouteShape, find_conflicts, parse_host, parse_path

# Pattern → requests it matches, requests it does not.
MATCHES = {
    "/": (["/"], ["/a", "//"]),
    "/users": (["/users"], ["/users/", "/Users", "/user", "/users/1", "/"]),
    "/users/": (["/users/"], ["/users", "/users//", "/users/1"]),
    "/users/{id}": (["/users/1", "/users/a%2Fb", "/users/%20"], ["/users", "/users/", "/users/1/", "/users/1/x"]),
    "/users/{id}/orders": (["/users/1/orders"], ["/users//orders", "/users/orders", "/users/1/2/orders"]),
    "/files/**": (["/files", "/files/", "/files/a", "/files/a/b/", "/files//a"], ["/file", "/filesystem", "/"]),
    "/{tenant}/**": (["/a", "/a/", "/a/b"], ["/"]),
    "/**": (["/", "/a", "/a/b/c/", "//"], []),
    "/café/a b": (["/caf%C3%A9/a%20b", "/caf%c3%a9/a%20b"], ["/cafe/a%20b"]),
    "/caf%C3%A9": (["/caf%C3%A9", "/caf%c3%a9"], []),
    "/@me": (["/@me", "/%40me"], ["/me"]),
    "/a.b/..c/...": (["/a.b/..c/..."], ["/aXb/..c/..."]),
}

MALFORMED_PATHS = {
    "users": "begins with a slash",
    "": "begins with a slash",
    "*": "begins with a slash",
    "/**/a": "last segment",
    "/a/**b": "last segment",
    "/a**": "last segment",
    "/***": "last segment",
    "/a/*": "not a wildcard",
    "/a*b": "not a wildcard",
    "/{id}.json": "whole segment",
    "/{}": "whole segment",
    "/{a-b}": "whole segment",
    "/{id": "whole segment",
    "/id}": "whole segment",
    "/{id:[0-9]+}": "whole segment",
    "/{1a}": "whole segment",
    "/{a}/{a}": "same name",
    "/a?b": "no query",
    "/a#b": "no query",
    "/a;v=1": "path parameters",
    "/a\nb": "no control",
    "/a\x85": "no control",
    "/a%": "does not begin a percent-encoding",
    "/a%zz": "does not begin a percent-encoding",
    "/%61dmin": "needs no encoding",
    "/a%00": "control character",
    "/%ff": "UTF-8",
    "/a" * 65: "at most 64",
}


@pytest.mark.parametrize(("text", "requests"), MATCHES.items())
def test_path_pattern(text: str, requests: tuple[list[str], list[str]]) -> None:
    """A path pattern matches the paths it describes and no others."""
    pattern = parse_path(text)
    matching, others = requests
    assert [path for path in matching if not pattern.matches(split(path.encode()))] == []
    assert [path for path in others if pattern.matches(split(path.encode()))] == []


@pytest.mark.parametrize(("text", "reason"), MALFORMED_PATHS.items())
def test_malformed_path_pattern(text: str, reason: str) -> None:
    """A pattern that means nothing, or that no request could ever match, is refused with what to write instead."""
    with pytest.raises(ValueError, match=reason):
        parse_path(text)


def test_path_specificity() -> None:
    """Of the patterns that match one path, literals precede parameters from the left, and `**` comes last."""
    patterns = ["/a/b", "/a/b/**", "/a/{x}", "/a/{x}/**", "/a/**", "/{x}/b", "/{x}/b/**", "/{x}/{y}", "/{x}/**", "/**"]
    assert sorted(patterns, key=lambda text: parse_path(text).rank) == patterns
    assert all(parse_path(text).matches((b"", b"a", b"b")) for text in patterns)
    assert sorted(["/a/**", "/a"], key=lambda text: parse_path(text).rank) == ["/a", "/a/**"]


def test_path_specificity_is_total() -> None:
    """Two patterns of different shape that match one path never have the same rank."""
    texts = [
        "/" + "/".join((*combination, *tail))
        for length in range(4)
        for combination in itertools.product("ab{", repeat=length)
        for tail in ([], ["**"], [""])
    ]
    named = [text.replace("{", "{%s}") % tuple("xyz"[: text.count("{")]) for text in texts]
    patterns = {pattern.shape: pattern for pattern in map(parse_path, named)}.values()
    for length in range(4):
        for path in itertools.product((b"a", b"b", b"c", b""), repeat=length):
            ranks = [pattern.rank for pattern in patterns if pattern.matches((b"", *path))]
            assert len(set(ranks)) == len(ranks)


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        ("shop.example", ["shop.example"], ["a.shop.example", "shop.example.org", "xshop.example"]),
        ("Shop.Example.", ["shop.example"], []),
        ("*.shop.example", ["a.shop.example", "b.a.shop.example"], ["shop.example", "ashop.example"]),
        ("localhost", ["localhost"], ["local"]),
        ("my_service", ["my_service"], []),
        ("127.0.0.1", ["127.0.0.1"], []),
        ("[::1]", ["[::1]"], ["::1"]),
    ],
)
def test_host_pattern(text: str, matching: list[str], others: list[str]) -> None:
    """A host pattern is a name, or a suffix that stands for every name below it."""
    pattern = parse_host(text)
    assert all(map(pattern.matches, matching))
    assert not any(map(pattern.matches, others))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write a host name"),
        ("*", "leave host out"),
        ("*.", "leave host out"),
        ("a.*.example", "first label"),
        ("*a.example", "first label"),
        ("**.example", "first label"),
        ("shop.example:8080", "without port"),
        ("http://shop.example", "without port"),
        ("::1", "without port"),
        ("*.[::1]", "without port"),
        ("bücher.example", "xn--"),
        ("a..b", "write a host name"),
        ("-a.example", "write a host name"),
        ("a b", "write a host name"),
        ("shop.example/x", "write a host name"),
        (".".join(["abcdefgh"] * 30), "write a host name"),
    ],
)
def test_malformed_host_pattern(text: str, reason: str) -> None:
    """A host that no client could send is refused with what to write instead."""
    with pytest.raises(ValueError, match=reason):
        parse_host(text)


def test_host_specificity() -> None:
    """The exact name, then the longest suffix, then any."""
    patterns = [HostPattern("", False), parse_host("*.example"), parse_host("*.b.example"), parse_host("a.b.example")]
    assert sorted(patterns, key=lambda pattern: pattern.rank) == patterns[::-1]
    assert all(pattern.matches("a.b.example") for pattern in patterns)


def shape(
    name: str, path: str, methods: str = "", host: str | None = None, allow: tuple[Ambiguity, ...] = ()
) -> RouteShape:
    """A route; `methods` separated by spaces, any when empty."""
    return RouteShape(name, host, path, tuple(methods.split()) or None, allow)


TIES = [
    (shape("a", "/x"), shape("b", "/x"), True),
    (shape("a", "/x/{id}"), shape("b", "/x/{name}"), True),
    (shape("a", "/x/**"), shape("b", "/x/**"), True),
    (shape("a", "/caf%C3%A9"), shape("b", "/café"), True),
    (shape("a", "/x", host="Shop.example"), shape("b", "/x", host="shop.example."), True),
    (shape("a", "/x", host="*.shop.example"), shape("b", "/x", host="*.SHOP.example"), True),
    (shape("a", "/x", "GET"), shape("b", "/x"), True),
    (shape("a", "/x", "GET POST"), shape("b", "/x", "POST PUT"), True),
    (shape("a", "/x", "GET"), shape("b", "/x", "HEAD"), True),  # GET includes HEAD
    (shape("a", "/x", "GET"), shape("b", "/x", "POST"), False),
    (shape("a", "/x"), shape("b", "/x/"), False),
    (shape("a", "/x"), shape("b", "/x/**"), False),
    (shape("a", "/x/{id}"), shape("b", "/x/y"), False),
    (shape("a", "/x", host="shop.example"), shape("b", "/x"), False),
    (shape("a", "/x", host="shop.example"), shape("b", "/x", host="*.example"), False),
]


@pytest.mark.parametrize(("first", "second", "tie"), TIES)
def test_ties(first: RouteShape, second: RouteShape, tie: bool) -> None:
    """Two routes tie when host and path have the same shape and a method is in both; the later one is named."""
    conflicts = find_conflicts([first, second])
    assert [(conflict.kind, conflict.position, conflict.other) for conflict in conflicts] == [("tie", 1, 0)] * tie
    assert all("route 'a'" in conflict.reason for conflict in conflicts)


def test_a_tie_names_the_methods_in_question() -> None:
    """The sentence says which requests two routes compete for."""
    [conflict] = find_conflicts([shape("a", "/x", "GET POST"), shape("b", "/x", "GET PUT")])
    assert conflict.reason == "matches the same GET, HEAD requests as route 'a', and neither is more specific"


# A `/x/**` among other routes: which of them leave nothing for it.
COVERS = [
    ([shape("1", "/x"), shape("2", "/x/"), shape("3", "/x/{a}/**")], True),
    (
        [shape("1", "/x"), shape("2", "/x/"), shape("3", "/x/{a}"), shape("4", "/x/{a}/"), shape("5", "/x/{a}/{b}/**")],
        True,
    ),
    ([shape("1", "/x", "GET POST"), shape("2", "/x", "PUT"), shape("3", "/x/"), shape("4", "/x/{a}/**")], False),
    ([shape("1", "/x"), shape("2", "/x/{a}/**")], False),  # /x/ is left
    ([shape("1", "/x/"), shape("2", "/x/{a}/**")], False),  # /x is left
    ([shape("1", "/x"), shape("2", "/x/"), shape("3", "/x/{a}")], False),  # /x/1/2 is left
    ([shape("1", "/x"), shape("2", "/x/"), shape("3", "/x/y/**")], False),  # other names are left
    (
        [shape("1", "/x"), shape("2", "/x/"), shape("3", "/x/{a}/**", host="shop.example")],
        False,
    ),  # other hosts are left
]


@pytest.mark.parametrize(("others", "covered"), COVERS)
def test_unreachable_because_covered(others: list[RouteShape], covered: bool) -> None:
    """A prefix route is unreachable when more specific routes match the bare prefix, its slash and all below."""
    conflicts = find_conflicts([shape("rest", "/x/**"), *others])
    assert [(conflict.kind, conflict.position) for conflict in conflicts] == [("unreachable", 0)] * covered
    assert all("'1', '2'" in conflict.reason for conflict in conflicts)


def test_methods_are_covered_together() -> None:
    """Several routes cover a route's methods if together they accept each of them."""
    slash, below = shape("slash", "/x/"), shape("below", "/x/{a}/**", "GET POST")
    routes = [shape("rest", "/x/**", "GET POST"), shape("get", "/x", "GET"), shape("post", "/x", "POST"), slash, below]
    assert [conflict.position for conflict in find_conflicts(routes)] == [0]
    assert find_conflicts([shape("rest", "/x/**", "GET PUT"), *routes[1:]]) == []


def test_root_is_covered_without_a_bare_form() -> None:
    """`/**` has no form without its slash, so two routes cover it; a route for empty segments keeps those."""
    covers = [shape("root", "/"), shape("below", "/{a}/**")]
    assert [conflict.position for conflict in find_conflicts([shape("rest", "/**"), *covers])] == [0]
    assert find_conflicts([shape("rest", "/**", allow=("empty_segments",)), *covers]) == []


@pytest.mark.parametrize(
    ("path", "allow", "words"),
    [
        ("/a/../b", (), "dot segments"),
        ("/a%2Fb", (), "an encoded slash"),
        ("/a%2etxt", (), "an encoded dot"),
        ("/a\\b", (), "a backslash"),
        ("/a//b", (), "empty segments"),
        ("/a//**", (), "empty segments"),
        ("//x%2Fb", ("encoded_slash",), "empty segments"),
        ("/a%2Fb", ("encoded_slash",), None),
    ],
)
def test_unreachable_because_ambiguous(path: str, allow: tuple[Ambiguity, ...], words: str | None) -> None:
    """A pattern whose every request is refused as ambiguous is reported, unless the route allows that kind."""
    conflicts = find_conflicts([shape("a", path, allow=allow)])
    assert [conflict.kind for conflict in conflicts] == ["unreachable"] * (words is not None)
    assert all(words is not None and words in conflict.reason for conflict in conflicts)


def test_malformed_patterns_are_left_out() -> None:
    """Conflicts are sought among the patterns that can be read; the others are for `parse_path` to explain."""
    assert find_conflicts([shape("a", "x"), shape("b", "x"), shape("c", "/x", host="*"), shape("d", "/x")]) == []
