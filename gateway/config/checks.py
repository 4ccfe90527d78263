"""What needs two places of the file at once: references, ties, files that must exist, settings that defeat each other.

Each check reads `Parts`, which also exists when some sections are wrong: what could be read is checked, so that one run
finds every problem. A finding is an *error* if the gateway could not do what the file says, and a *warning* if it could
but the operator probably does not want it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway.config.document import Document
from gateway.config.document import Path as Place
from gateway.config.issuance import Issuance
from gateway.config.schema import Admin, Denylist, Identity, Issuer, Route, Server, Upstream
from gateway.config.values import is_loopback_host, listen_port
from gateway.denylist.address import parse_redis
from gateway.routing.pattern import RouteShape, find_conflicts, parse_host, parse_path


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections that are valid by themselves; None where the file's own are not."""

    server: Server | None
    admin: Admin | None
    denylist: Denylist | None
    has_denylist: bool
    identity: Identity | None
    issuer: Issuance | None
    issuers: dict[str, Issuer | None]  # without the built-in one
    upstreams: dict[str, Upstream | None]
    routes: Sequence[Route | None]
    written_routes: Sequence[Any]  # as they stand in the file, valid or not
    document: Document


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, by its place in the tree."""

    place: Place
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"
    on: Literal["value", "key"] = "value"


def suggestion(given: str, allowed: Iterable[str]) -> str:
    """`did you mean …?` if something close is allowed, else what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"there is {', '.join(f'`{name}`' for name in names)}" if names else ""


def examine_parts(parts: Parts) -> Iterator[Finding]:
    """Everything that every check finds, in no particular order."""
    for check in _CHECKS:
        yield from check(parts)


def _references(parts: Parts) -> Iterator[Finding]:
    for index, route in _mappings(parts.written_routes):
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


def _mappings(items: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((index, item) for index, item in enumerate(items) if isinstance(item, dict))


def _route_names(parts: Parts) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, route in _mappings(parts.written_routes):
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
    for index, route in _mappings(parts.written_routes):
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


def _issuers(parts: Parts) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, issuer in parts.issuers.items():
        if issuer is None:
            continue
        place: Place = ("issuers", name)
        if issuer.issuer in seen:
            message = f"issuer `{seen[issuer.issuer]}` has the same `iss`: a token would belong to both"
            yield Finding((*place, "issuer"), message, "one entry with both audiences, or distinct issuers")
        seen.setdefault(issuer.issuer, name)
        if issuer.secret is None and issuer.jwks_file is None:
            key, url = ("jwks_uri", issuer.jwks_uri) if issuer.jwks_uri else ("issuer", issuer.issuer)
            if _is_clear_text(url):
                message = "keys fetched over plain http can be replaced by whoever is on the way"
                yield Finding((*place, key), message, "use https", severity="warning")
        if issuer.secret is not None and (*place, "secret") in parts.document.literal:
            message = "a secret written into the file is read by everyone who reads the file"
            yield Finding((*place, "secret"), message, "write ${NAME} or {file: path}", severity="warning")


def _is_clear_text(url: str) -> bool:
    parsed = urlsplit(url)
    return parsed.scheme == "http" and not is_loopback_host(parsed.hostname or "")


def _own_issuer(parts: Parts) -> Iterator[Finding]:
    """The built-in issuer beside what else the file says."""
    own = parts.issuer
    if own is None:
        return
    if own.name in parts.issuers:
        message = f"the built-in issuer is called `{own.name}` too, and is trusted without an entry here"
        yield Finding(("issuers", own.name), message, "remove this entry, or rename one of them", on="key")
    for name, issuer in parts.issuers.items():
        if issuer is not None and issuer.issuer == own.url and name != own.name:
            message = "the built-in issuer has the same `iss`: a token would belong to both"
            yield Finding(("issuers", name, "issuer"), message)
    if _is_clear_text(own.url):
        message = "passwords and tokens over plain http can be read by whoever is on the way"
        yield Finding(("issuer", "url"), message, "use https", severity="warning")
    if not 300 <= own.access_token <= 900:
        message = "shorter than 5 minutes costs refreshes, longer than 15 leaves revocation to the denylist alone"
        yield Finding(("issuer", "access_token"), message, severity="warning")
    if own.registration == "open":
        message = "whoever registers learns whether a name is taken"
        yield Finding(("issuer", "registration"), message, "`verified` tells strangers nothing", severity="warning")
    if own.signing.encryption_key is None:
        message = "private keys are not encrypted: whoever reads the store can sign tokens"
        yield Finding(("issuer",), message, "add `signing: {encryption_key: …}`", severity="warning", on="key")
    for at in _own_secrets(own):
        if at in parts.document.literal:
            message = "a secret written into the file is read by everyone who reads the file"
            yield Finding(at, message, "write ${NAME} or {file: path}", severity="warning")
    if own.store.startswith("sqlite://"):
        folder = Path(own.store.removeprefix("sqlite://")).parent
        if not folder.is_dir():
            yield Finding(("issuer", "store"), f"the folder {folder} does not exist here", severity="warning")
    for index, route in _mappings(parts.written_routes):
        path = route.get("path")
        if isinstance(path, str) and (path + "/").startswith(own.path + "/"):
            message = f"below {own.path} stands the built-in issuer: this route gets no requests"
            yield Finding(("routes", index, "path"), message, "use another path, or move `issuer.path`")


def _own_secrets(own: Issuance) -> Iterator[Place]:
    yield ("issuer", "signing", "encryption_key")
    yield ("issuer", "webhook", "secret")
    for name in own.clients:
        yield ("issuer", "clients", name, "secret")


def _query_credentials(parts: Parts) -> Iterator[Finding]:
    message = "a token in a URL ends up in browser histories and in other servers' logs (RFC 6750 §5.3)"
    for name, issuer in parts.issuers.items():
        if issuer is not None and issuer.credentials.query is not None:
            yield Finding(("issuers", name, "credentials", "query"), message, severity="warning")
    for index, route in enumerate(parts.routes):
        if route is not None and route.credentials is not None and route.credentials.query is not None:
            yield Finding(("routes", index, "credentials", "query"), message, severity="warning")


def _upstreams(parts: Parts) -> Iterator[Finding]:
    used = {route.get("upstream") for _, route in _mappings(parts.written_routes)}
    is_complete = used <= parts.upstreams.keys() and None not in parts.routes  # else one of these may be meant
    for name, upstream in parts.upstreams.items():
        place: Place = ("upstreams", name)
        if is_complete and name not in used:
            yield Finding(place, "no route uses this upstream", severity="warning", on="key")
        if upstream is None:
            continue
        if upstream.tls.insecure_skip_verify:
            message = "any certificate is accepted: whoever is on the way can read and change everything"
            hint = "trust the authority with `ca` instead"
            yield Finding((*place, "tls", "insecure_skip_verify"), message, hint, severity="warning")
        if upstream.tls.model_fields_set and upstream.endpoints[0].startswith("http:"):
            yield Finding((*place, "tls"), "has no effect: the endpoints are http", "write https", on="key")


def _addresses(parts: Parts) -> Iterator[Finding]:
    if parts.server is not None:
        for index, cidr in enumerate(parts.server.trusted_proxies):
            if cidr.endswith("/0"):
                message = "every client may then claim any address"
                yield Finding(("server", "trusted_proxies", index), message, severity="warning")
    if parts.admin is None:
        return
    host = parts.admin.listen.rpartition(":")[0]
    if parts.server is not None and listen_port(parts.admin.listen) == listen_port(parts.server.listen) != 0:
        client_host = parts.server.listen.rpartition(":")[0]
        if host == client_host or {host, client_host} & {"0.0.0.0", "[::]"}:  # noqa: S104  # compared, not bound
            message = "the admin address is the clients' address: health and metrics must not be public"
            yield Finding(("admin", "listen"), message, "use another port, on loopback if possible")
    if host in ("0.0.0.0", "[::]"):  # noqa: S104  # compared, not bound
        message = "health, metrics and the admin API are reachable from everywhere"
        yield Finding(("admin", "listen"), message, "keep this port inside the cluster or machine", severity="warning")


def _denylist(parts: Parts) -> Iterator[Finding]:
    if parts.denylist is None:
        if not parts.has_denylist and (parts.issuers or parts.issuer is not None):
            message = "no denylist: a token stays valid until it expires, whatever happens"
            yield Finding((), message, "add `denylist`, for example {store: redis://…}", severity="warning")
        return
    try:
        if not parts.denylist.store.startswith("sqlite://"):
            parse_redis(parts.denylist.store)
    except ValueError as exc:
        yield Finding(("denylist", "store"), str(exc))
    if parts.denylist.store.startswith("sqlite://"):
        folder = Path(parts.denylist.store.removeprefix("sqlite://")).parent
        if not folder.is_dir():
            yield Finding(("denylist", "store"), f"the folder {folder} does not exist here", severity="warning")
    if parts.denylist.snapshot is not None and not parts.denylist.snapshot.parent.is_dir():
        message = f"the folder {parts.denylist.snapshot.parent} does not exist here"
        yield Finding(("denylist", "snapshot"), message, severity="warning")


def _revocation(parts: Parts) -> Iterator[Finding]:
    """Revocations that could not be kept, look-ups that could not be made."""
    for name, issuer in parts.issuers.items():
        if issuer is None:
            continue
        place: Place = ("issuers", name, "revocation")
        settings = issuer.revocation
        if settings.has_endpoints and not parts.has_denylist:
            yield Finding(place, "revocations would have nowhere to go", "add `denylist`", on="key")
        lists = settings.status_list
        if lists is not None and not lists.origins and not re.match(r"https?://[^/\s]+", issuer.issuer):
            message = "`issuer` is not a URL, so it does not say where lists may be fetched from"
            yield Finding((*place, "status_list"), message, "name the `origins`", on="key")
        for client in settings.clients:
            at = (*place, "clients", client, "secret")
            if at in parts.document.literal:
                message = "a secret written into the file is read by everyone who reads the file"
                yield Finding(at, message, "write ${NAME} or {file: path}", severity="warning")
    for index, route in enumerate(parts.routes):
        if route is not None and route.denylist.consistency == "strict" and not parts.has_denylist:
            at = ("routes", index, "denylist", "consistency")
            yield Finding(at, "there is no denylist to ask", "add `denylist`")


def _files(parts: Parts) -> Iterator[Finding]:
    """Certificates and keys are read at start, so they must be there; a key set may still arrive."""
    needed: list[tuple[Place, Path | None]] = []
    if parts.server is not None and parts.server.tls is not None:
        needed += [(("server", "tls", "certificate"), parts.server.tls.certificate)]
        needed += [(("server", "tls", "key"), parts.server.tls.key)]
    if parts.denylist is not None:
        needed.append((("denylist", "ca"), parts.denylist.ca))
    for name, upstream in parts.upstreams.items():
        if upstream is not None:
            tls = upstream.tls
            found = (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key))
            needed += [(("upstreams", name, "tls", key), path) for key, path in found]
    for name, issuer in parts.issuers.items():
        if issuer is not None:
            needed.append((("issuers", name, "ca"), issuer.ca))
            if issuer.jwks_file is not None and not issuer.jwks_file.is_file():
                message = f"{issuer.jwks_file} is not there (yet); until it is, tokens are answered with 503"
                yield Finding(("issuers", name, "jwks_file"), message, severity="warning")
    for place, path in needed:
        if path is not None and not path.is_file():
            yield Finding(place, f"there is no file {path}", "a relative path counts from the folder of this file")


_CHECKS: tuple[Callable[[Parts], Iterator[Finding]], ...] = (
    _references,
    _route_names,
    _patterns,
    _authentication,
    _issuers,
    _own_issuer,
    _query_credentials,
    _upstreams,
    _addresses,
    _denylist,
    _revocation,
    _files,
)
