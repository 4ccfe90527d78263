"""What is known of a request when it comes in: who calls, under which id, and the record that is opened for it."""

from __future__ import annotations

from time import monotonic
from typing import Any

from gateway.fields import Header
from gateway.telemetry.exchange import Exchange, is_clean
from gateway.upstream.headers import request_id
from gateway.upstream.peer import Peer, Peers


def open_exchange(scope: dict[str, Any], peers: Peers, route: str = "") -> tuple[Exchange, Peer, bytes, bytes]:
    """The record of the request of an ASGI scope, its caller, its Host as received (b"" without one), and its id."""
    headers: list[Header] = scope["headers"]
    path: bytes = scope["raw_path"]
    host: bytes = b""
    for name, value in headers:
        if name == b"host":
            host = value
            break
    client, server = scope["client"], scope["server"]
    port = (server[1] or 0) if server else 0
    peer = peers.resolve(client[0] if client else "", scope["scheme"], host, port, headers)
    identifier = request_id(headers, peer.trusted)
    exchange = Exchange(  # by position, which costs half of what names do
        monotonic(),
        scope["method"],
        host.decode("latin-1"),
        path.decode("latin-1"),
        peer.client_ip,
        identifier.decode("ascii"),
        route,
    )
    exchange.is_clean = is_clean(path)  # as every id is that `request_id` gives
    return exchange, peer, host, identifier
