"""The patterns of routes: what they match, which of two is more specific, and which stand in each other's way.

    path   /users/{id}/orders   a literal, a parameter (one segment, not empty), a literal
           /files/**            the bare /files, /files/ and everything below
    host   shop.example         that name alone
           *.shop.example       every name below, at any depth; not the bare name
           (none)               any

Specificity is a total order on the routes that match one request. The host decides first: exact, then the longest
suffix, then any. Then the path, segment by segment from the left: literal, then parameter, then `**`; a pattern that
ends with the request precedes one that goes on with `**` there. `rank` is that order as a tuple, the most specific
first when sorted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal
from urllib.parse import quote

from gateway.config.schema import Ambiguity
from gateway.errors import BadRequest
from gateway.routing.ambiguity import PHRASES, Segments, kinds_of, split

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESS = re.compile(r"\[[0-9a-f:.]+\]")
_DEEPEST = 64  # segments of a pattern
_LITERAL, _ANY_SEGMENT, _REST = 0, 1, 2
_WRITTEN = "".join(map(chr, range(0x21, 0x7F)))  # what stands in a raw path as it is, `%` included

_Segments = tuple[bytes | None, ...]
_Shape = tuple[_Segments, bool]
_Methods = frozenset[str] | None
_Slots = dict[_Shape, list[tuple[int, _Methods]]]
"""The routes of one host by the shape of their paths: their positions and methods."""


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A parsed path pattern; equal shapes match the same paths, whatever their parameters are called."""

    text: str
    segments: _Segments  # after the leading slash, decoded; None is a parameter, a final b"" a trailing slash
    has_rest: bool  # ends with `/**`
    ambiguities: frozenset[Ambiguity]  # kinds that every request for it has

    @property
    def shape(self) -> _Shape:
        """What it matches, apart from names."""
        return self.segments, self.has_rest

    @property
    def rank(self) -> tuple[int, ...]:
        """Its place among the patterns that match one path; the lowest is the most specific."""
        ranks = tuple(_ANY_SEGMENT if segment is None else _LITERAL for segment in self.segments)
        return (*ranks, _REST) if self.has_rest else ranks

    def matches(self, segments: Segments) -> bool:
        """Whether it matches a path as `gateway.routing.ambiguity.split` reads it."""
        found = segments[1:]
        if len(found) < len(self.segments) or (len(found) > len(self.segments) and not self.has_rest):
            return False
        pairs = zip(self.segments, found, strict=False)
        return all(have if want is None else want == have for want, have in pairs)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A parsed host pattern."""

    name: str  # lower-case, without `*.`; "" for any host
    is_suffix: bool

    @property
    def rank(self) -> tuple[int, ...]:
        """Its place among the patterns that match one host; the lowest is the most specific."""
        if not self.name:
            return (2,)
        return (1, -self.name.count(".")) if self.is_suffix else (0,)

    def matches(self, host: str) -> bool:
        """Whether it matches a lower-case host without port and trailing dot."""
        if not self.name:
            return True
        return host.endswith("." + self.name) if self.is_suffix else host == self.name


ANY_HOST = HostPattern("", False)


@dataclass(frozen=True, slots=True)
class RouteShape:
    """What of a route decides whether it matches; `host` and `methods` None mean any."""

    name: str
    host: str | None
    path: str
    methods: tuple[str, ...] | None
    allow_ambiguous: tuple[Ambiguity, ...] = ()

    @property
    def method_set(self) -> _Methods:
        """The methods it accepts: GET includes HEAD (RFC 9110 §9.3.2); None for any."""
        if self.methods is None:
            return None
        return frozenset(self.methods) | ({"HEAD"} if "GET" in self.methods else set())


@dataclass(frozen=True, slots=True)
class Conflict:
    """A route that cannot do what it says; positions count from 0 in the sequence that was checked."""

    kind: Literal["tie", "unreachable"]
    position: int
    other: int | None  # the route it ties with, or one of those that cover it
    reason: str  # a sentence for the operator


def parse_path(text: str) -> PathPattern:
    """The pattern of a route's `path`; ValueError says what to write instead.

    Characters outside ASCII may be written as they are or percent-encoded in UTF-8; both match the encoded request.
    """
    if not text.startswith("/"):
        raise ValueError("a path begins with a slash")
    parts = text[1:].split("/")
    has_rest = parts[-1] == "**"
    if has_rest:
        parts.pop()
    if len(parts) > _DEEPEST:
        raise ValueError(f"a path has at most {_DEEPEST} segments")
    names = [match[1] for match in map(_PARAMETER.fullmatch, parts) if match is not None]
    if len(set(names)) < len(names):
        raise ValueError("two parameters have the same name")
    for part in parts:
        _check_part(part)
    # A stand-in for what parameters and `**` match: any request for the pattern is read as this one is.
    raw = "/" + "/".join("x" if _PARAMETER.fullmatch(part) else quote(part, safe=_WRITTEN) for part in parts)
    if has_rest and parts:
        raw += "/"
    try:
        kinds = kinds_of(raw.encode())
    except BadRequest as exc:
        raise ValueError(f"no request can match it: {exc.detail}") from None
    read = split(raw.encode())[1 : len(parts) + 1]
    segments = tuple(None if _PARAMETER.fullmatch(part) else segment for part, segment in zip(parts, read, strict=True))
    return PathPattern(text, segments, has_rest, kinds)


def _check_part(part: str) -> None:
    if "**" in part:
        raise ValueError("** matches the rest of a path, so it can only be its last segment")
    if "*" in part:
        raise ValueError("* is not a wildcard here: write {name} for one segment, or /** at the end")
    if ("{" in part or "}" in part) and _PARAMETER.fullmatch(part) is None:
        raise ValueError("a parameter is a whole segment: {name}, of letters, digits and underscores")
    if ";" in part:
        raise ValueError("path parameters (;) cannot be matched on; leave them out, they match {name} and **")
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in part):
        raise ValueError("a path holds no control characters")
    if "?" in part or "#" in part:
        raise ValueError("a path holds no query and no fragment")


def parse_host(text: str) -> HostPattern:
    """The pattern of a route's `host`; ValueError says what to write instead."""
    if not text.isascii():
        raise ValueError("write an international name in its ASCII form (xn--…), as clients send it")
    name = text.lower().removesuffix(".")
    is_suffix = name.startswith("*.")
    name = name.removeprefix("*.")
    if "*" in name:
        raise ValueError("a wildcard is the whole first label: *.example.com; leave host out for any")
    if not is_suffix and _ADDRESS.fullmatch(name):
        return HostPattern(name, False)
    if ":" in name:
        raise ValueError("a host is written without port or scheme; an IPv6 address in brackets")
    if len(name) > 253 or _NAME.fullmatch(name) is None:
        raise ValueError("write a host name such as shop.example.com or *.example.com")
    return HostPattern(name, is_suffix)


def find_conflicts(routes: Sequence[RouteShape]) -> list[Conflict]:
    """Routes that tie, and routes that no request can reach, in the order of the sequence.

    Two tie when host and path have the same shape and a method is in both. A route is unreachable when every request
    for its path is refused as ambiguous, or when more specific routes match all that it matches. Routes whose
    patterns cannot be parsed are left out; `parse_path` and `parse_host` say why.
    """
    parsed = [(position, route, *patterns) for position, route in enumerate(routes) if (patterns := _patterns(route))]
    slots: dict[HostPattern, _Slots] = defaultdict(lambda: defaultdict(list))
    conflicts: list[Conflict] = []
    for position, route, host, path in parsed:
        slot = slots[host][path.shape]
        rival = next((other for other, taken in slot if _overlap(taken, route.method_set)), None)
        if rival is not None:
            conflicts.append(Conflict("tie", position, rival, _tie(routes[rival], route)))
        slot.append((position, route.method_set))
    for position, route, host, path in parsed:
        needed = path.ambiguities - set(route.allow_ambiguous)
        if needed:
            words = " and ".join(PHRASES[kind] for kind in sorted(needed))
            reason = f"its path has {words}, so every request for it is refused; see allow_ambiguous"
            conflicts.append(Conflict("unreachable", position, None, reason))
        elif "empty_segments" in route.allow_ambiguous:
            continue  # only `**` matches /a//b, so something is always left for it
        elif path.has_rest and (covers := _cover(slots[host], path.segments, route.method_set)):
            names = ", ".join(repr(routes[cover].name) for cover in sorted(set(covers)))
            reason = f"more specific routes match all of it: {names}"
            conflicts.append(Conflict("unreachable", position, min(covers), reason))
    return sorted(conflicts, key=lambda conflict: conflict.position)


def _patterns(route: RouteShape) -> tuple[HostPattern, PathPattern] | None:
    try:
        return ANY_HOST if route.host is None else parse_host(route.host), parse_path(route.path)
    except ValueError:
        return None


def _overlap(one: _Methods, two: _Methods) -> bool:
    return one is None or two is None or not one.isdisjoint(two)


def _tie(first: RouteShape, second: RouteShape) -> str:
    common = sorted((first.method_set or second.method_set or set()) & (second.method_set or first.method_set or set()))
    methods = f" {', '.join(common)}" if common else ""
    return f"matches the same{methods} requests as route {first.name!r}, and neither is more specific"


def _cover(slots: _Slots, prefix: _Segments, methods: _Methods) -> list[int]:
    """The routes that leave nothing of `prefix/**` with these methods; empty when something is left.

    Names are endless, so no number of literals covers a parameter: only the same prefix, the same with a slash, and all
    below a parameter together cover it.
    """
    bare = _accepting(slots, (prefix, False), methods) if prefix else [-1]  # "/**" has no bare form
    slash = _accepting(slots, ((*prefix, b""), False), methods)
    below: list[int] = []
    if bare and slash and len(prefix) < _DEEPEST:
        deeper = (*prefix, None)
        below = _accepting(slots, (deeper, True), methods) or _cover(slots, deeper, methods)
    return [position for position in chain(bare, slash, below) if position >= 0] if below else []


def _accepting(slots: _Slots, shape: _Shape, methods: _Methods) -> list[int]:
    """The routes of one shape that together accept all these methods; empty when one is left over."""
    routes = slots.get(shape, [])
    if any(accepted is None for _, accepted in routes):
        return [position for position, accepted in routes if accepted is None]
    if methods is None or methods - frozenset(_flatten(accepted for _, accepted in routes)):
        return []
    return [position for position, accepted in routes if accepted and accepted & methods]


def _flatten(sets: Iterable[_Methods]) -> Iterable[str]:
    return chain.from_iterable(methods or () for methods in sets)
