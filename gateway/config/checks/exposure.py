"""The addresses listened on, and who may be believed there."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.checks.finding import Finding, Parts
from gateway.config.values import listen_port


def examine_exposure(parts: Parts) -> Iterator[Finding]:
    """Addresses that reach too far, and clients that are believed too much."""
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
