"""`workers: N`: one parent that binds the addresses and keeps N workers alive.

    SIGTERM, SIGINT ──▶ every worker drains, then the parent ends; a second SIGINT kills them
    SIGHUP          ──▶ every worker looks at its configuration again
    a worker ends   ──▶ a new one in its place, later each time it fails at once; none at all if no worker ever came up
    a worker hangs  ──▶ killed after `HUNG_S` without a sign of life, then as above

The parent serves nothing and loads no application, so that it has little to fail with.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from gateway.config.load import ConfigError, load
from gateway.config.schema import STATIC_SECTIONS, Config
from gateway.server.worker import CANCEL_S, AppFactory, run_worker
from gateway.telemetry.process_log import configure_process_log
from gateway.telemetry.runtime import Runtime

logger = logging.getLogger("gateway.supervisor")

HUNG_S = 30.0  # a loop that has not turned for so long serves nobody
START_S = 60.0  # for a new worker to say it is up
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0)  # before the next start, by failures in a row
STEADY_S = 10.0  # a worker that lived so long has not failed at once
STOP_MARGIN_S = 10.0  # beyond the workers' own time to drain, before they are killed

_spawn = multiprocessing.get_context("spawn")


def _worker_main(
    level: int,
    factory: AppFactory,
    config: Config,
    config_path: Path,
    runtime: Runtime,
    sockets: tuple[socket.socket, socket.socket],
    parent: Connection,
) -> None:
    """What a worker process runs."""
    # Ctrl-C reaches the whole group; the parent turns it into an orderly stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_process_log(level)
    run_worker(factory, _current(config, config_path), config_path, runtime, sockets, parent)


def _current(config: Config, config_path: Path) -> Config:
    """`config` with the dynamic half as the file has it now: a worker that replaces another starts where that one was.

    A file that has become wrong in the meantime leaves the old configuration, as it does in a worker that is running.
    """
    try:
        found = load(config_path)
    except ConfigError:
        logger.warning("the configuration file is not usable now; the worker starts with the last good one")
        return config
    return found.model_copy(update={name: getattr(config, name) for name in STATIC_SECTIONS})


@dataclass
class _Place:
    """One of the N workers, whoever fills it now."""

    number: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    started_at: float = 0.0  # monotonic
    heard_at: float = 0.0  # monotonic; of the last sign of life
    is_up: bool = False
    failures: int = 0  # in a row
    start_at: float = 0.0  # monotonic; not before


class Supervisor:
    """The parent of the workers. Uses the process's signal handlers, so there is one per process."""

    def __init__(
        self,
        factory: AppFactory,
        config: Config,
        config_path: Path,
        runtime: Runtime,
        sockets: tuple[socket.socket, socket.socket],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arguments = (factory, config, config_path)
        self._runtime = runtime
        self._sockets = sockets
        self._monotonic = monotonic
        self._stop_s = config.server.announce + config.server.drain + CANCEL_S + STOP_MARGIN_S
        self._places = [_Place(number) for number in range(config.server.workers)]
        self._signals: list[int] = []
        self._wakeup, self._wakeup_end = socket.socketpair()
        self._ever_up = False
        self.restarts = 0

    def run(self) -> int:
        """Keep the workers alive until told to stop. 0, or 1 when none ever came up or some had to be killed."""
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sig, self._note)
        try:
            return self._supervise()
        finally:
            signal.set_wakeup_fd(-1)
            self._wakeup.close()
            self._wakeup_end.close()

    def _note(self, sig: int, frame: FrameType | None) -> None:
        self._signals.append(sig)

    def _supervise(self) -> int:
        while True:
            self._look_after_places()
            if not self._ever_up and any(place.failures > 0 for place in self._places):
                logger.error("a worker failed to start; stopping")
                self._stop(signal.SIGTERM)
                return 1
            self._wait(1.0)
            while self._signals:
                sig = self._signals.pop(0)
                if sig == signal.SIGHUP:
                    self._forward(signal.SIGHUP)
                else:
                    logger.info("stopping %d workers", len(self._places))
                    return self._stop(signal.SIGTERM)

    def _look_after_places(self) -> None:
        now = self._monotonic()
        for place in self._places:
            process = place.process
            if process is None:
                if now >= place.start_at:
                    self._start(place, now)
            elif not process.is_alive():
                self._bury(place, now)
            elif now - place.heard_at > (HUNG_S if place.is_up else START_S):
                logger.error("worker %d (process %d) gives no sign of life; killing it", place.number, process.pid)
                process.kill()

    def _start(self, place: _Place, now: float) -> None:
        pipe, end = _spawn.Pipe(duplex=False)
        runtime = replace(self._runtime, worker=place.number)
        process = _spawn.Process(
            target=_worker_main,
            args=(logging.getLogger().level, *self._arguments, runtime, self._sockets, end),
            name=f"gateway-worker-{place.number}",
        )
        process.start()
        end.close()  # so that the pipe ends with the worker
        place.process, place.pipe, place.is_up = process, pipe, False
        place.started_at = place.heard_at = now

    def _bury(self, place: _Place, now: float) -> None:
        assert place.process is not None
        assert place.pipe is not None
        place.process.join()
        logger.error("worker %d (process %d) ended with %s", place.number, place.process.pid, place.process.exitcode)
        steady = place.is_up and now - place.started_at >= STEADY_S
        place.failures = 1 if steady else place.failures + 1
        place.start_at = now + (0.0 if steady else BACKOFF_S[min(place.failures, len(BACKOFF_S)) - 1])
        place.process.close()
        place.pipe.close()
        place.process = place.pipe = None
        self.restarts += 1

    def _wait(self, timeout: float) -> None:
        """Sleep until a worker ends or speaks, a signal comes, or `timeout` seconds have passed."""
        sources: list[Any] = [self._wakeup]
        for place in self._places:
            if place.process is not None and place.pipe is not None:
                sources += [place.process.sentinel, place.pipe]
        ready = wait(sources, timeout)
        if self._wakeup in ready:
            self._wakeup.recv(4096)
        for place in self._places:
            if place.pipe in ready and os.read(place.pipe.fileno(), 4096):
                place.heard_at, place.is_up, self._ever_up = self._monotonic(), True, True

    def _forward(self, sig: int) -> None:
        for place in self._places:
            if place.process is not None and place.process.is_alive() and place.process.pid is not None:
                os.kill(place.process.pid, sig)

    def _stop(self, sig: int) -> int:
        """Let the workers drain; kill what is left afterwards, or on a second Ctrl-C."""
        for sock in self._sockets:
            sock.close()
        self._forward(sig)
        deadline = self._monotonic() + self._stop_s
        self._signals.clear()
        while any(place.process is not None and place.process.is_alive() for place in self._places):
            if self._monotonic() >= deadline or signal.SIGINT in self._signals:
                logger.error("killing workers that did not stop")
                self._forward(signal.SIGKILL)
                deadline = float("inf")
            self._wait(0.1)
        # A worker that was still starting has no handler yet and simply ends by the signal.
        orderly = (0, -signal.SIGTERM)
        return 0 if all(place.process is None or place.process.exitcode in orderly for place in self._places) else 1
