"""One process that serves: the clients' listener, the admin listener, and an end that nobody notices.

The end, on SIGTERM or SIGINT:

    unready ──announce──▶ listener closed ──drain──▶ streams ended ──▶ admin listener closed ──▶ background work ended

Readiness goes first and waits, so that a load balancer has stopped sending before a connection is refused.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
from contextlib import AbstractAsyncContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import uvicorn
import uvloop

from gateway.config.schema import Config, ServerTls
from gateway.server.listener import Listener
from gateway.server.protocol import HardenedProtocol
from gateway.server.turns import ask_for_short_turns
from gateway.telemetry.runtime import Runtime

logger = logging.getLogger("gateway.server")

BACKLOG = 2048
CANCEL_S = 2.0  # for cancelled requests to release what they hold
ADMIN_DRAIN_S = 1.0
HEARTBEAT_S = 1.0
# Python's own are (700, 10, 10). Of ten thousand live connections come a million objects, which a full look takes 0.8 s
# for, so that one is left to `_collect`; the last number is for a process that never has so few connections. The look
# before it takes in some 20,000 objects: 10 to 20 ms.
COLLECTOR_THRESHOLDS = (5_000, 3, 20_000)
COLLECT_S = 0.1  # between two looks at what is young: few enough objects that requests do not notice
FULL_LOOK_AFTER = 3_000  # looks at younger objects: some five minutes
FEW_CONNECTIONS = 200  # some 20,000 objects


class App(Protocol):
    """What a worker needs of the application."""

    admin: Any  # an ASGI application of its own

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, as ASGI has it."""

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Runs everything that lives beside requests."""

    def begin_drain(self) -> None:
        """Be unready from now on."""

    def end_live(self) -> None:
        """Tell WebSockets and event streams that this process goes away; the listener is closed."""

    async def reload(self) -> None:
        """Look at the configuration file again, now."""


class AppFactory(Protocol):
    """Makes the application inside a worker; picklable, because workers are spawned."""

    def __call__(self, config: Config, config_path: Path, runtime: Runtime) -> App:
        """The application, not yet running."""


class EdgeConfig(uvicorn.Config):
    """uvicorn's settings for an edge: our protocol, and nothing that uvicorn would add or believe by itself."""

    def __init__(self, app: Any, listener: Listener) -> None:
        super().__init__(
            app,
            http=HardenedProtocol,
            ws="none",
            loop="uvloop",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
        )
        self.listener = listener


class EdgeServer(uvicorn.Server):
    """One listening address on the running loop, opened and closed by its owner instead of by signals."""

    def __init__(self, app: Any, listener: Listener, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(EdgeConfig(app, listener))
        self.listener = listener
        self._tls = tls
        self.servers = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on `sockets`, which are bound already."""
        loop = asyncio.get_running_loop()
        self.config.load()
        options: dict[str, Any] = {"backlog": BACKLOG}
        if self._tls is not None:
            options |= {"ssl": self._tls, "ssl_handshake_timeout": self.listener.head_timeout_s}
        for sock in sockets or ():
            self.servers.append(await loop.create_server(self._connection, sock=sock, **options))
        self.listener.start(loop)
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        return HardenedProtocol(self.config, self.server_state, {})  # type: ignore[arg-type]  # it is an EdgeConfig

    def close_listener(self) -> None:
        """Accept no further connection."""
        for server in self.servers:
            server.close()

    async def drain(self, drain_s: float) -> None:
        """Close the listener, let requests in flight finish for `drain_s` seconds, then end them."""
        self.close_listener()
        for connection in tuple(self.listener.connections):
            connection.shutdown()
        if not await self._until_idle(drain_s):
            logger.warning("ending %d requests that outlasted the drain time", len(self.listener.strands))
            for strand in tuple(self.listener.strands):
                strand.cancel()
            await self._until_idle(CANCEL_S)
        self.listener.stop()

    async def _until_idle(self, timeout: float) -> bool:
        deadline = asyncio.get_running_loop().time() + timeout
        while self.listener.connections or self.listener.strands:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True


def tls_context(tls: ServerTls) -> ssl.SSLContext:
    """TLS 1.2 and up, HTTP/1.1 only."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.certificate, tls.key)
    return context


def keep_what_start_made() -> None:
    """Take everything that exists out of the cyclic collector's sight, for good.

    Modules, classes, configuration and routes live as long as the process. Looking at all of them in every full
    collection would hold up the requests of that moment for tens of milliseconds. What requests leave behind is freed
    by counting references; the collector is for the rare cycle, and may look less often than it does by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Worker:
    """One process's servers and its application, from start to the last byte."""

    def __init__(
        self,
        factory: AppFactory,
        config: Config,
        config_path: Path,
        runtime: Runtime,
        sockets: tuple[socket.socket, socket.socket],
        parent: Connection | None = None,
    ) -> None:
        """`sockets` are the clients' and the admin's, bound; `parent` is told that this process is alive."""
        self._config = config
        self._parent = parent
        self._sockets = sockets
        self._stop = asyncio.Event()
        self._app = factory(config, config_path, runtime)
        self._tls = tls_context(config.server.tls) if config.server.tls else None
        limits = config.server.limits
        edge, admin = Listener("edge", limits, runtime.record, speaks_websocket=True), Listener("admin", limits)
        runtime.sources += [edge, admin]
        self._edge = EdgeServer(self._app, edge, self._tls)
        self._admin = EdgeServer(self._app.admin, admin)
        self._reloads: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with self._app.lifespan():
            keep_what_start_made()
            await self._admin.startup([self._sockets[1]])
            await self._edge.startup([self._sockets[0]])
            logger.info("serving on %s, admin on %s", *(_address(sock) for sock in self._sockets))
            beside = (loop.create_task(self._heartbeat()), loop.create_task(self._collect()))
            await self._stop.wait()
            await self._end()
            for task in beside:
                task.cancel()

    async def _end(self) -> None:
        server = self._config.server
        logger.info("stopping: unready for %gs, then up to %gs for requests in flight", server.announce, server.drain)
        self._app.begin_drain()
        await asyncio.sleep(server.announce)
        self._edge.close_listener()
        self._app.end_live()
        await self._edge.drain(server.drain)
        await self._admin.drain(ADMIN_DRAIN_S)

    def _reload(self) -> None:
        if self._tls is not None and self._config.server.tls is not None:
            try:
                self._tls.load_cert_chain(self._config.server.tls.certificate, self._config.server.tls.key)
            except (OSError, ssl.SSLError) as exc:
                logger.error("the TLS certificate stays as it was: %s", exc)
        task = asyncio.get_running_loop().create_task(self._app.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _heartbeat(self) -> None:
        """Tell the parent once a second that the loop turns; stop when there is no parent any more."""
        if self._parent is not None:
            os.set_blocking(self._parent.fileno(), False)
        while True:
            try:
                if self._parent is not None:
                    os.write(self._parent.fileno(), b".")
            except BlockingIOError:
                pass  # the parent is not reading; it will find enough when it does
            except OSError:
                logger.error("the supervising process is gone; stopping")
                self._stop.set()
                return
            await asyncio.sleep(HEARTBEAT_S)

    async def _collect(self) -> None:
        """Let the cyclic collector look: at what is young every time, at everything when that is due and cheap.

        By itself it counts by how much objects have become more. Connections that only replace theirs, some with every
        message, would make it look at all of these at once, after minutes.
        """
        while True:
            await asyncio.sleep(COLLECT_S)
            if gc.get_count()[2] >= FULL_LOOK_AFTER and len(self._edge.listener.connections) <= FEW_CONNECTIONS:
                gc.collect()
            else:
                gc.collect(1)


def run_worker(
    factory: AppFactory,
    config: Config,
    config_path: Path,
    runtime: Runtime,
    sockets: tuple[socket.socket, socket.socket],
    parent: Connection | None = None,
) -> None:
    """Run one worker in this process, from a new event loop to the last byte."""

    ask_for_short_turns()

    async def main() -> None:
        await Worker(factory, config, config_path, runtime, sockets, parent).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
