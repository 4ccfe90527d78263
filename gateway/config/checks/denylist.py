"""The denylist: there, with a store that can be reached and folders that exist."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.checks.finding import Finding, Parts, folder_of_sqlite, missing_folder
from gateway.config.document import Path as Place
from gateway.redis.address import parse_redis


def examine_denylist(parts: Parts) -> Iterator[Finding]:
    """What is wrong with the denylist, and with what needs one."""
    yield from _denylist(parts)
    yield from _strict_routes(parts)


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
    yield from folder_of_sqlite(("denylist", "store"), parts.denylist.store)
    if parts.denylist.snapshot is not None:
        yield from missing_folder(("denylist", "snapshot"), parts.denylist.snapshot)


def _strict_routes(parts: Parts) -> Iterator[Finding]:
    for index, route in enumerate(parts.routes):
        if route is not None and route.denylist.consistency == "strict" and not parts.has_denylist:
            place: Place = ("routes", index, "denylist", "consistency")
            yield Finding(place, "there is no denylist to ask", "add `denylist`")
