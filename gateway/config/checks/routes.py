"""Routes: what they refer to, and whether they stand in each other's way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.config.checks.finding import Finding, Parts, mappings, suggestion
from gateway.routing.pattern import RouteShape, find_conflicts, parse_host, parse_path


def examine_routes(parts: Parts) -> Iterator[Finding]:
    """What is wrong with routes, by themselves and beside each other."""
    yield from _references(parts)
    yield from _names(parts)
    yield from _patterns(parts)
    yield from _authentication(parts)


def _references(parts: Parts) -> Iterator[Finding]:
    for index, route in mappings(parts.written_routes):
        name = route.get("upstream")
        if isinstance(name, str) and name not in parts.upstreams:
            hint = suggestion(name, parts.upstreams) or "add it under `upstreams`"
            yield Finding(("routes", index, "upstream"), f"no upstream is called `{name}`", hint)
        auth = route.get("auth")
        names = auth.get("issuers") if isinstance(auth, dict) else None
        known = {*parts.issuers, *([parts.issuer.name] if parts.issuer is not None else [])}
        for position, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name not in known:
                hint = suggestion(name, known) or "add it under `issuers`"
                yield Finding(("routes", index, "auth", "issuers", position), f"no issuer is called `{name}`", hint)


def _names(parts: Parts) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, route in mappings(parts.written_routes):
        name = route.get("name")
        if not isinstance(name, str):
            continue
        if name in first:
            line = parts.document.line_of(("routes", first[name], "name"))
            yield Finding(("routes", index, "name"), f"a route called `{name}` stands in line {line} already")
        first.setdefault(name, index)


def _patterns(parts: Parts) -> Iterator[Finding]:
    """Patterns that cannot be read; then, among the others, routes that stand in each other's way."""
    shapes: list[tuple[int, RouteShape]] = []
    for index, route in mappings(parts.written_routes):
        problem = _pattern_problem(route)
        if problem is not None:
            yield Finding(("routes", index, problem[0]), problem[1])
        elif parts.routes[index] is not None or _has_plain_shape(route):
            methods = route.get("methods")
            ambiguities = tuple(route.get("allow_ambiguous") or ())
            shape = RouteShape(
                str(route.get("name", index)),
                route.get("host"),
                str(route.get("path")),
                tuple(methods) if methods else None,
                ambiguities,
            )
            shapes.append((index, shape))
    for conflict in find_conflicts([shape for _, shape in shapes]):
        index, shape = shapes[conflict.position]
        hint = "give them different hosts, paths or methods" if conflict.kind == "tie" else ""
        if conflict.other is not None:
            other, other_shape = shapes[conflict.other]
            line = parts.document.line_of(("routes", other, "path"))
            hint = f"`{other_shape.name}` stands in line {line}" + (f"; {hint}" if hint else "")
        yield Finding(("routes", index, "path"), conflict.reason, hint)


def _pattern_problem(route: dict[str, Any]) -> tuple[str, str] | None:
    for key, parse in (("path", parse_path), ("host", parse_host)):
        text = route.get(key)
        try:
            if isinstance(text, str):
                parse(text)
        except ValueError as exc:
            return key, str(exc)
    return None


def _has_plain_shape(route: dict[str, Any]) -> bool:
    """Whether a route that is wrong elsewhere still says unmistakably what it matches."""
    return isinstance(route.get("path"), str) and not {"host", "methods", "allow_ambiguous"} & set(route)


def _authentication(parts: Parts) -> Iterator[Finding]:
    for index, route in enumerate(parts.routes):
        if route is None:
            continue
        if route.auth.mode == "none":
            if route.credentials is not None:
                message = "no token is looked at on this route, so these credentials are never read"
                yield Finding(("routes", index, "credentials"), message, severity="warning", on="key")
        elif not parts.issuers and not parts.document.stands(("issuer",)):
            message = f"route `{route.name}` checks tokens, but the file has no issuers"
            yield Finding(("routes", index), message, "add one under `issuers`, or write `auth: none`", on="key")
