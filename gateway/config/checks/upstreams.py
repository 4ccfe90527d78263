"""Upstreams: used, and reached safely."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.checks.finding import Finding, Parts, mappings
from gateway.config.document import Path as Place


def examine_upstreams(parts: Parts) -> Iterator[Finding]:
    """Upstreams that nobody uses, and TLS that does not protect."""
    used = {route.get("upstream") for _, route in mappings(parts.written_routes)}
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
