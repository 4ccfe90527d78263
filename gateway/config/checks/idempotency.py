"""Idempotency keys: a place for the answers, and a caller to whom they belong."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.checks.finding import Finding, Parts, folder_of_sqlite
from gateway.redis.address import parse_redis


def examine_idempotency(parts: Parts) -> Iterator[Finding]:
    """What is wrong with the store of answers, and with the routes that need it."""
    store = parts.idempotency.store if parts.idempotency is not None else None
    if store is not None:
        try:
            if not store.startswith("sqlite://"):
                parse_redis(store)
        except ValueError as exc:
            yield Finding(("idempotency", "store"), str(exc))
        yield from folder_of_sqlite(("idempotency", "store"), store)
    for index, route in enumerate(parts.routes):
        if route is None or route.idempotency.mode == "off":
            continue
        if route.auth.mode != "required":
            message = f"with `auth: {route.auth.mode}` there is nobody to whom a kept answer would belong"
            yield Finding(("routes", index, "idempotency"), message, "write `auth: required`", on="key")
        if store is None and parts.idempotency is not None and not parts.has_denylist:
            message = "there is no place to keep answers"
            yield Finding(("routes", index, "idempotency"), message, "add `idempotency: {store: …}`", on="key")
