"""All routes, compiled: a request's method, host and raw path lead to one of them, or to a reason why not.

    host    a dictionary of exact names, one of suffixes, one tree for any host; remembered per received Host value
    path    one tree per host pattern: a dictionary look-up per segment, whatever the number of routes
    method  at the end of the path

Candidates are tried from the most to the least specific (`gateway.routing.pattern` has the order). The first that
accepts the method is the route; if some match and none accepts it, the answer is 405.

A plain path is matched at once. An ambiguous one (`gateway.routing.ambiguity`) is served only if the route it matches
allows each of its kinds, *and* so does every route to which another reading of it would lead: a permissive route must
not become a way around a strict one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from gateway.config.schema import Ambiguity
from gateway.errors import BadRequest, MethodNotAllowed, NoRoute
from gateway.routing.ambiguity import PHRASES, Segments, has_parameters, is_plain, kinds_of, readings, split
from gateway.routing.pattern import ANY_HOST, PathPattern, RouteShape, find_conflicts, parse_host, parse_path

T = TypeVar("T")

# RFC 3986 §3.2.2 allows more in a reg-name; nothing more is ever a name that resolves.
_HOST = re.compile(rb"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.?(?::[0-9]{0,5})?|(\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_REMEMBERED_HOSTS = 1024
# Their other readings only go deeper below the same segment: `/projects/group%2Fname`, which no pattern need describe.
_DEEPER = frozenset({"encoded_slash", "encoded_dot", "backslash"})


class _Entry(Generic[T]):
    """One route at the end of its path."""

    __slots__ = ("allowed", "shape", "target")

    def __init__(self, shape: RouteShape, target: T) -> None:
        self.shape = shape
        self.target = target
        self.allowed: frozenset[Ambiguity] = frozenset(shape.allow_ambiguous)


class _Ending(Generic[T]):
    """The routes of one path: those that name their methods, or one for any."""

    __slots__ = ("any_method", "by_method", "entries")

    def __init__(self) -> None:
        self.by_method: dict[str, _Entry[T]] = {}
        self.any_method: _Entry[T] | None = None
        self.entries: list[_Entry[T]] = []

    def add(self, entry: _Entry[T]) -> None:
        self.entries.append(entry)
        methods = entry.shape.method_set
        if methods is None:
            self.any_method = entry
        else:
            self.by_method.update(dict.fromkeys(methods, entry))


class _Node(Generic[T]):
    """A place in the tree of paths: the segments so far, and where they may lead."""

    __slots__ = ("end", "literals", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[bytes, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.end: _Ending[T] | None = None  # routes whose path ends here
        self.rest: _Ending[T] | None = None  # routes that go on with `/**`

    def add(self, path: PathPattern, entry: _Entry[T]) -> None:
        node = self
        for segment in path.segments:
            if segment is not None:
                node = node.literals.setdefault(segment, _Node())
            else:
                if node.parameter is None:
                    node.parameter = _Node()
                node = node.parameter
        if path.has_rest:
            node.rest = node.rest or _Ending()
            node.rest.add(entry)
        else:
            node.end = node.end or _Ending()
            node.end.add(entry)


class RouteTable(Generic[T]):
    """Routes of any kind of target; immutable once made, but for the hosts it remembers."""

    __slots__ = ("_any_host", "_hosts", "_remembered", "_suffixes")

    def __init__(self, entries: Sequence[tuple[RouteShape, T]]) -> None:
        """ValueError if a pattern cannot be parsed or two routes tie; the order of `entries` has no meaning."""
        self._any_host: _Node[T] = _Node()
        self._hosts: dict[str, _Node[T]] = {}
        self._suffixes: dict[str, _Node[T]] = {}
        # Received Host value → trees to search. Filled by requests, so emptied when strangers have filled it.
        self._remembered: dict[bytes, tuple[_Node[T], ...]] = {}
        for shape, target in entries:
            host = ANY_HOST if shape.host is None else parse_host(shape.host)
            self._tree(host.name, host.is_suffix).add(parse_path(shape.path), _Entry(shape, target))
        for conflict in find_conflicts([shape for shape, _ in entries]):
            if conflict.kind == "tie":
                raise ValueError(f"route {entries[conflict.position][0].name!r}: {conflict.reason}")

    def match(self, method: str, host: bytes, raw_path: bytes) -> T:
        """The target of the most specific route for this method.

        `host` is the Host value as received, `raw_path` the path as received, without the query. BadRequest for a
        host that is no host and for a path that is ambiguous; NoRoute; MethodNotAllowed with what the matching routes
        accept.
        """
        trees = self._remembered.get(host) or self._trees(host)
        if not is_plain(raw_path):
            return self._match_closely(method, trees, raw_path)
        segments = raw_path.split(b"/")
        for tree in trees:
            entry = _find(tree, segments, 1, method)
            if entry is not None:
                return entry.target
        raise _nothing(trees, segments)

    def candidates(self, host: bytes, raw_path: bytes) -> list[tuple[RouteShape, T]]:
        """The routes that match whatever the method and ambiguities, most specific first; BadRequest as `match`."""
        kinds_of(raw_path)
        segments = split(raw_path)
        return [(entry.shape, entry.target) for tree in self._trees(host) for entry in _all(tree, segments, 1)]

    def _tree(self, name: str, is_suffix: bool) -> _Node[T]:
        if not name:
            return self._any_host
        return (self._suffixes if is_suffix else self._hosts).setdefault(name, _Node())

    def _trees(self, host: bytes) -> tuple[_Node[T], ...]:
        """The trees for a Host value, the most specific first; remembered."""
        found = _HOST.fullmatch(host)
        if found is None:
            raise BadRequest("The Host header field does not hold a host.")
        name = (found[1] or found[2]).decode().lower()
        trees = [self._hosts.get(name)]
        parent = name.partition(".")[2]
        while parent:
            trees.append(self._suffixes.get(parent))
            parent = parent.partition(".")[2]
        result = (*(tree for tree in trees if tree is not None), self._any_host)
        if len(self._remembered) >= _REMEMBERED_HOSTS:
            self._remembered.clear()
        self._remembered[host] = result
        return result

    def _match_closely(self, method: str, trees: tuple[_Node[T], ...], raw_path: bytes) -> T:
        if raw_path == b"*":
            raise NoRoute("The request is about the server as a whole, which no route serves.")
        kinds = kinds_of(raw_path)
        segments = split(raw_path)
        entry = _first(trees, segments, method)
        if entry is None:
            raise _ambiguous(kinds) if kinds else _nothing(trees, segments)
        if not kinds <= entry.allowed:
            raise _ambiguous(kinds - entry.allowed)
        if kinds or has_parameters(raw_path):
            self._compare_readings(method, trees, raw_path, entry, kinds)
        return entry.target

    def _compare_readings(
        self, method: str, trees: tuple[_Node[T], ...], raw_path: bytes, entry: _Entry[T], kinds: frozenset[Ambiguity]
    ) -> None:
        """BadRequest if a server could read the path as one that a stricter route guards, or that no route exposes."""
        stays_below = bool(kinds) and kinds <= _DEEPER and not has_parameters(raw_path)
        for reading in readings(raw_path):
            other = _first(trees, reading, method)
            if other is entry:
                continue
            if other is None:
                if stays_below and not _any_match(trees, reading):
                    continue
            elif kinds and kinds <= other.allowed:
                continue
            raise BadRequest("The path could be read as that of another route.")


def _find(node: _Node[T], segments: list[bytes], at: int, method: str) -> _Entry[T] | None:
    """The most specific route below `node` for `segments[at:]` that accepts the method.

    One visit per segment; less specific branches are visited only when the more specific one comes to nothing.
    """
    if at == len(segments):
        ending = node.end
        if ending is not None:
            entry = ending.by_method.get(method, ending.any_method)
            if entry is not None:
                return entry
    else:
        segment = segments[at]
        child = node.literals.get(segment)
        if child is not None:
            entry = _find(child, segments, at + 1, method)
            if entry is not None:
                return entry
        child = node.parameter
        if child is not None and segment:
            entry = _find(child, segments, at + 1, method)
            if entry is not None:
                return entry
    ending = node.rest
    return None if ending is None else ending.by_method.get(method, ending.any_method)


def _first(trees: tuple[_Node[T], ...], segments: Segments, method: str) -> _Entry[T] | None:
    names = list(segments)
    for tree in trees:
        entry = _find(tree, names, 1, method)
        if entry is not None:
            return entry
    return None


def _all(node: _Node[T], segments: Sequence[bytes], at: int) -> Iterator[_Entry[T]]:
    """As `_find`, but every route, whatever its methods."""
    if at == len(segments):
        if node.end is not None:
            yield from node.end.entries
    else:
        child = node.literals.get(segments[at])
        if child is not None:
            yield from _all(child, segments, at + 1)
        if node.parameter is not None and segments[at]:
            yield from _all(node.parameter, segments, at + 1)
    if node.rest is not None:
        yield from node.rest.entries


def _any_match(trees: tuple[_Node[T], ...], segments: Segments) -> bool:
    return any(True for tree in trees for _ in _all(tree, segments, 1))


def _nothing(trees: tuple[_Node[T], ...], segments: Sequence[bytes]) -> NoRoute | MethodNotAllowed:
    """Why a path that nobody could misread has no route."""
    found = [entry for tree in trees for entry in _all(tree, segments, 1)]
    if not found:
        return NoRoute()
    return MethodNotAllowed(tuple(sorted(frozenset().union(*(entry.shape.method_set or () for entry in found)))))


def _ambiguous(kinds: frozenset[Ambiguity]) -> BadRequest:
    words = " and ".join(PHRASES[kind] for kind in sorted(kinds))
    return BadRequest(f"The path holds {words}, which servers read differently.")
