"""Small applications for whole processes: `python -m tests.server.applications CONFIG` serves one.

It answers what it is asked for: `/pid`, `/slow` (begins to answer, ends after half a second), `/endless`, `/die`.
Anything else is the word `ok`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.admin import create_admin
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.server import serve, supervisor
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.health import Readiness
from gateway.telemetry.metrics import RequestMetrics, Scrape
from gateway.telemetry.process_log import configure_process_log
from gateway.telemetry.runtime import Runtime


class Small:
    """The least that serves."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self._metrics = RequestMetrics()
        self._log = AccessLog(config.telemetry.access_log, runtime.digest_key)
        self._readiness = Readiness(dict)
        self._scrape = Scrape(runtime, lambda: [self._metrics, self._log, self._readiness])
        self.admin = create_admin(self._readiness, self._scrape)
        runtime.record = self._record

    def _record(self, exchange: Exchange) -> None:
        self._metrics.record(exchange)
        self._log.record(exchange)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        if path == "/slow":
            await asyncio.sleep(0.5)
        if path == "/endless":
            await asyncio.Event().wait()
        body = str(os.getpid()) if path == "/pid" else "ok"
        self._record(Exchange(0.0, scope["method"], "", path, "", route="small", status=200, duration_s=0.001))
        await send({"type": "http.response.body", "body": body.encode()})

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Shares numbers and writes lines."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._scrape.run()), group.create_task(self._log.run())]
            yield
            for task in tasks:
                task.cancel()

    def begin_drain(self) -> None:
        """Unready."""
        self._readiness.begin_drain()

    def end_live(self) -> None:
        """Has nothing that lasts but `/endless`."""

    async def reload(self) -> None:
        """Says so."""
        sys.stderr.write(f"reloaded {os.getpid()}\n")
        sys.stderr.flush()


def create(config: Config, config_path: Path, runtime: Runtime) -> Small:
    """The application, for `serve`."""
    return Small(config, runtime)


def broken(config: Config, config_path: Path, runtime: Runtime) -> Small:
    """An application that cannot be made."""
    raise RuntimeError("no")


def main() -> int:
    """Serve the configuration of the first argument."""
    configure_process_log()
    supervisor.HUNG_S = float(os.environ.get("TEST_HUNG_S", supervisor.HUNG_S))
    path = Path(sys.argv[1])
    return serve(load(path), path, broken if "broken" in sys.argv else create)


if __name__ == "__main__":
    sys.exit(main())
