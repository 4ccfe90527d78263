"""TLS towards clients, and a collector that does not look at what stays."""

import asyncio
import gc
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.schema import Limits, ServerTls
from gateway.server.listener import Listener
from gateway.server.protocol import HardenedProtocol
from gateway.server.websocket import Session
from gateway.server.worker import keep_what_start_made, tls_context
from tests.certificates import make_certificate
from tests.server.wire import Client, Echo, edge


@pytest.mark.asyncio
async def test_requests_over_tls(tmp_path: Path) -> None:
    """The application sees https, HTTP/1.1 is agreed on, a refusal still reaches the client, TLS 1.1 is not spoken."""
    certificate, key = make_certificate(tmp_path)
    tls, application, state = ServerTls(certificate=certificate, key=key), Echo(), None
    listener = Listener("test", Limits())
    config: Any = SimpleNamespace(listener=listener, loaded_app=application)
    loop = asyncio.get_running_loop()
    context = tls_context(tls)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2

    def protocol() -> HardenedProtocol:
        none: Any = state
        return HardenedProtocol(config, none, {}, loop)

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cafile=str(tls.certificate))
    trust.set_alpn_protocols(["h2", "http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    client = Client(reader, writer)
    await client.send(b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
    answer = await client.answer()
    assert answer is not None
    assert answer.body == b"abc"
    assert application.scopes[0]["scheme"] == "https"
    await client.send(b"GET /a HTTP/1.1\r\n\r\n")
    refused = await client.answer()
    assert refused is not None
    assert refused.code == "bad_request"
    assert await client.is_closed()
    writer.close()
    server.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("ends", ["answered", "a WebSocket"])
async def test_a_connection_leaves_nothing_to_the_cyclic_collector(ends: str) -> None:
    """Its protocol and its parser hold each other, so one of them lets go: a full look at thousands stops the loop."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        else:
            await Echo()(scope, receive, send)

    offer = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )
    gc.collect()
    gc.disable()
    try:
        async with edge(application, speaks_websocket=True) as server, server.client() as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (offer if ends == "a WebSocket" else b""))
            answer = await client.answer("HEAD")
            assert answer is not None
            assert answer.status == (101 if ends == "a WebSocket" else 200)
            client.writer.close()
            async with asyncio.timeout(5):
                while server.listener.connections or server.listener.strands:
                    await asyncio.sleep(0.001)  # until the loop has seen the end: nothing to wait on
        left = [thing for thing in gc.get_objects() if isinstance(thing, HardenedProtocol | Session)]
        assert left == []
    finally:
        gc.enable()


def test_what_start_up_made_is_not_collected_again() -> None:
    """The collector's generations are empty afterwards; what comes later is still collected."""
    try:
        keep_what_start_made()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 1_000
        loop: list[object] = []
        loop.append(loop)
        del loop
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()
