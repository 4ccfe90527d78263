"""The rim: what may reach the application at all, and how processes start and stop.

`serve` is what `gateway serve` calls. Bytes come in through `protocol` (the parser, limits and framing), which judges a
head by the rules of `head` and runs each request as a `cycle` of `receive` and `send`; an ordinary head alone is read
by its lines, without the parser (`plain_head`). `connection` takes the requests in turn, times them, answers what is
refused here and closes. All connections of one address share a `listener` (limits, counters, the sweep that times
things out). `worker` is one process from start to drain, and `supervisor` keeps several of them alive.

The application is an ASGI callable that knows nothing of this; what is refused here, it never sees.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from pathlib import Path

from gateway.config.schema import Config
from gateway.server.protocol import HardenedProtocol
from gateway.server.supervisor import Supervisor
from gateway.server.worker import AppFactory, run_worker
from gateway.telemetry.runtime import Runtime

__all__ = ["HardenedProtocol", "bind", "serve"]

logger = logging.getLogger("gateway.server")


def bind(listen: str) -> socket.socket:
    """A socket bound to `HOST:PORT`, not yet listening; OSError says why not."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock


def serve(config: Config, config_path: Path, factory: AppFactory) -> int:
    """Serve until SIGTERM or SIGINT. The exit status: 0 after an orderly stop, 1 when serving failed.

    `factory` makes the application in each process; a module-level function, because workers are spawned.
    """
    try:
        sockets = (bind(config.server.listen), bind(config.admin.listen))
    except OSError as exc:
        logger.error("cannot listen on %s or %s: %s", config.server.listen, config.admin.listen, exc)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="gateway-"))  # readable by this user only
    runtime = Runtime(directory)
    try:
        if config.server.workers > 1:
            return Supervisor(factory, config, config_path, runtime, sockets).run()
        run_worker(factory, config, config_path, runtime, sockets)
    except OSError as exc:
        logger.error("serving failed: %s", exc)
        return 1
    else:
        return 0
    finally:
        for sock in sockets:
            sock.close()
        shutil.rmtree(directory, ignore_errors=True)
