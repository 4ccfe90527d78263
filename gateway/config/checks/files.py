"""Files that the file names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.config.checks.finding import Finding, Parts
from gateway.config.document import Path as Place


def examine_files(parts: Parts) -> Iterator[Finding]:
    """Certificates and keys are read at start, so they must be there; a key set may still arrive."""
    needed: list[tuple[Place, Path | None]] = []
    if parts.server is not None and parts.server.tls is not None:
        needed += [(("server", "tls", "certificate"), parts.server.tls.certificate)]
        needed += [(("server", "tls", "key"), parts.server.tls.key)]
    if parts.denylist is not None:
        needed.append((("denylist", "ca"), parts.denylist.ca))
    if parts.idempotency is not None:
        needed.append((("idempotency", "ca"), parts.idempotency.ca))
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
