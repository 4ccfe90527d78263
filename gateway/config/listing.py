"""The routes as a table for people, in the order in which they match."""

from __future__ import annotations

from gateway.config.schema import Auth, Config, Route
from gateway.routing.pattern import ANY_HOST, parse_host, parse_path


def listing(config: Config) -> list[dict[str, str]]:
    """One row per route, the most specific first: name, methods, host, path, auth, upstream; idempotency if used."""
    rows = [
        {
            "name": route.name,
            "methods": ",".join(route.methods or ()) or "any",
            "host": route.host or "any",
            "path": route.path,
            "auth": auth_text(route.auth),
            "idempotency": route.idempotency.mode,
            "upstream": route.upstream,
        }
        for route in sorted(config.routes, key=_rank)
    ]
    if all(row["idempotency"] == "off" for row in rows):
        for row in rows:
            del row["idempotency"]
    return rows


def _rank(route: Route) -> tuple[object, ...]:
    host = parse_host(route.host) if route.host else ANY_HOST
    # Hosts and paths that never meet have equal ranks; their text keeps the order stable.
    return host.rank, host.name, parse_path(route.path).rank, route.path, route.methods or ("~",)


def auth_text(auth: Auth) -> str:
    """What a route asks of the caller, in a few words."""
    asks = [f"scope {scope}" for scope in auth.scopes.all]
    if auth.scopes.any:
        asks.append(f"scope {' or '.join(auth.scopes.any)}")
    asks += [f"claim {path}" for path in auth.claims]
    if auth.issuers is not None:
        asks.append(f"from {' or '.join(auth.issuers)}")
    if auth.audience is not None:
        asks.append(f"for {' or '.join(auth.audience)}")
    return auth.mode if not asks else f"{auth.mode}: {', '.join(asks)}"
