"""Composition root: a configuration becomes an ASGI application and everything that lives beside its requests.

    create_app ──▶ lifespan: [ store, log, watch, monitor │ the current generation's keys and upstreams ] ──▶ closed

One task group owns every background task. A task that fails is a fault of ours: it is logged, counted and started
again, and requests go on meanwhile. Each worker process has one `App`; they share the store and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from time import time
from typing import Any, Protocol

from gateway.admin import BaseRoute, DenylistApi, create_admin
from gateway.config.load import ConfigError, load
from gateway.config.schema import STATIC_SECTIONS, Config
from gateway.config.watch import ConfigWatch
from gateway.denylist.intake import Intake
from gateway.denylist.replica import Replica
from gateway.denylist.store import Store, open_store
from gateway.denylist.strict import StrictCheck
from gateway.generation import Generation, Resource, Surroundings, UnusableConfig, build
from gateway.idempotency.ledger import Ledger
from gateway.idempotency.store import open_store as open_answers
from gateway.issuing import Issuing
from gateway.live import LiveConnections
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.health import Probe, Readiness
from gateway.telemetry.loop_monitor import LoopMonitor
from gateway.telemetry.metrics import RequestMetrics, Scrape
from gateway.telemetry.runtime import Runtime
from gateway.telemetry.sample import Sample, Sampled
from gateway.upstream.endpoints import Upstream
from gateway.upstream.peer import Peers

logger = logging.getLogger("gateway.app")

WARM_S = 5.0  # at start: how long to wait for keys and denylist before serving without them
CLOSE_S = 5.0  # for connections of a retired upstream
RESTART_S = 1.0  # before a background task that failed is started again


class Runs(Protocol):
    """Anything with a life of its own."""

    async def run(self) -> None:
        """Until cancelled."""


def create_app(config: Config, config_path: Path, runtime: Runtime) -> App:
    """The application of one worker. Raises `UnusableConfig`; nothing runs before its `lifespan` is entered."""
    return App(config, config_path, runtime)


class App:
    """The ASGI application of one worker, and the owner of everything that runs beside its requests."""

    __slots__ = (
        "_access_log",
        "_around",
        "_config_path",
        "_faults",
        "_generation",
        "_intake",
        "_issuing",
        "_ledger",
        "_live",
        "_loaded_at",
        "_loop_monitor",
        "_reloads",
        "_replica",
        "_request_metrics",
        "_retiring",
        "_running",
        "_runtime",
        "_scrape",
        "_static",
        "_store",
        "_strict",
        "_tasks",
        "_watch",
        "admin",
        "current",
        "readiness",
    )

    def __init__(self, config: Config, config_path: Path, runtime: Runtime) -> None:
        self._config_path = config_path
        self._static = config
        self._runtime = runtime
        self._access_log: AccessLog = AccessLog(config.telemetry.access_log, runtime.digest_key)
        self._request_metrics: RequestMetrics = RequestMetrics()
        self._loop_monitor = LoopMonitor()
        self._replica: Replica | None = None
        self._store: Store | None = None
        if config.denylist is not None:
            self._replica = Replica(config.denylist.prefix)
            self._store = open_store(config.denylist, self._replica)
        self._strict = StrictCheck(self._store) if self._store is not None else None
        self._intake = Intake(self._store) if self._store is not None else None
        self._live = LiveConnections(self._replica)
        answers = open_answers(config)
        self._ledger = Ledger(answers, config.idempotency.lease) if answers is not None else None
        peers = Peers(config.server.trusted_proxies)
        self._issuing = Issuing(config, self._store, peers, self.record) if config.issuer is not None else None
        self._around = Surroundings(
            self._replica,
            peers,
            self.record,
            strict=self._strict,
            intake=self._intake,
            live=self._live,
            ledger=self._ledger,
            own_keys=self._issuing.keys if self._issuing is not None else {},
        )
        self.current: Generation = build(config, self._around, None)
        self._retiring: list[Generation] = []  # replaced, and still with requests
        self._generation = 1
        self._loaded_at = time()
        self._watch = ConfigWatch(config_path, self.apply)
        self._running: dict[Runs, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.readiness = Readiness(self._probes)
        self._scrape = Scrape(runtime, self._sources)
        self._reloads = {"ok": 0, "refused": 0}
        self._faults = 0  # background tasks that failed and were started again
        self.admin = create_admin(self.readiness, self._scrape, self._denylist_routes())
        runtime.record = self.record

    def _denylist_routes(self) -> list[BaseRoute]:
        """The denylist's API, where the configuration has a password for it."""
        secret = self._static.admin.secret
        if secret is None or self._store is None or self._intake is None:
            return []
        issuers = lambda: frozenset(self.current.config.issuers)  # noqa: E731 - of the generation of that moment
        return DenylistApi(self._store, self._intake, secret.get_secret_value(), issuers).routes()

    # --- requests ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request, through the generation that is current when it comes in and no other."""
        if self._issuing is not None:
            admitted = await self._issuing.admit(scope, receive, send)
            if admitted is None:
                return
            scope, send = admitted
        generation = self.current
        generation.in_flight += 1
        try:
            if scope["type"] == "http":
                await generation.entry(scope, receive, send)
            else:
                await generation.pipeline.upgrade(scope, receive, send)
        finally:
            generation.leave()

    def record(self, exchange: Exchange) -> None:
        """Account for a request that has ended."""
        self._access_log.record(exchange)
        self._request_metrics.record(exchange)

    # --- life --------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Everything beside the requests, from the first key to the last log line."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            issuer = self._issuing.issuer if self._issuing is not None else None
            beside = (self._access_log, self._loop_monitor, self._live, self._scrape, self._watch)
            for part in (self._store, self._ledger, issuer, *beside):
                if part is not None:
                    self.start(part)
            await self._warm_up()
            for resource in self.current.resources():
                self.start(resource)
            try:
                yield
            finally:
                await self._close()

    async def _warm_up(self) -> None:
        """Give keys and denylist a moment, so that the first requests need not be refused; readiness tells the rest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                await self.current.warm(None)
                while self._replica is not None and not self._replica.loaded:  # noqa: ASYNC110 - once, at start
                    await asyncio.sleep(0.01)

    async def _close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._running.clear()
        if self._ledger is not None:
            await self._ledger.close(CLOSE_S)
        await asyncio.gather(*(upstream.close(0) for upstream in self.current.upstreams.values()))
        if self._issuing is not None:
            await self._issuing.issuer.close()
        if self._store is not None:
            await self._store.close()
        self._tasks = None

    def start(self, part: Runs) -> None:
        """Run something beside the requests until the end, or until it is retired."""
        assert self._tasks is not None
        self._running[part] = self._tasks.create_task(self._keep_running(part), name=type(part).__name__)

    async def _keep_running(self, part: Runs) -> None:
        """`part.run()`, for ever: whatever it raises is a fault of ours that must not take the gateway down."""
        while True:
            try:
                await part.run()
                return
            except Exception:
                self._faults += 1
                logger.exception("%s failed; starting it again", type(part).__name__)
                await asyncio.sleep(RESTART_S)

    def begin_drain(self) -> None:
        """Be unready from now on; requests are served as before."""
        self.readiness.begin_drain()

    def end_live(self) -> None:
        """End WebSockets and event streams, which would not end by themselves; call it once nobody can come back."""
        self._live.end_all()

    # --- what it tells of itself -------------------------------------------------------------------------------------

    def _probes(self) -> dict[str, Probe]:
        """The dependencies that readiness asks, at the moment of asking."""
        probes: dict[str, Probe] = {f"keys of {name}": keys.health for name, keys in self.current.keys.items()}
        if self._replica is not None:
            probes["denylist"] = self._replica.health
        if self._issuing is not None:
            probes["issuer"] = self._issuing.issuer.health
        return probes

    def _sources(self) -> list[Sampled]:
        """Everything that counts, at the moment of asking."""
        found: list[Sampled] = [self, self._request_metrics, self._access_log, self._loop_monitor, self.readiness]
        found.append(self._live)
        if self._replica is not None:
            found.append(self._replica)
        if self._issuing is not None:
            found.append(self._issuing.issuer)
        if self._strict is not None:
            found.append(self._strict)
        if self._intake is not None:
            found.append(self._intake)
        if self._ledger is not None:
            found.append(self._ledger)
        return [*found, self.current]

    def samples(self) -> Iterable[Sample]:
        """Which configuration is in use, reloads, and faults of background work."""
        yield Sample("gateway_config_generation", {}, self._generation)
        yield Sample("gateway_config_loaded_timestamp_seconds", {}, self._loaded_at)
        for outcome, count in self._reloads.items():
            yield Sample("gateway_config_reloads_total", {"outcome": outcome}, count)
        yield Sample("gateway_background_faults_total", {}, self._faults)

    # --- hot swap ----------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Look at the configuration file now, changed or not (SIGHUP)."""
        self._watch.poke()

    async def apply(self) -> None:
        """Build a generation from the file as it is now and swap it in; a file that cannot be used changes nothing."""
        try:
            found = await asyncio.to_thread(load, self._config_path)
            config = self._with_static_half(found)
            generation = build(config, self._around, self.current)
        except (ConfigError, UnusableConfig) as exc:
            self._reloads["refused"] += 1
            reasons = [problem.brief for problem in exc.problems] if isinstance(exc, ConfigError) else [str(exc)]
            for reason in reasons:
                logger.error("%s", reason)
            logger.error("the changed configuration is not used; the gateway goes on as before")
            return
        await generation.warm(self.current)
        self._swap(generation)

    def _with_static_half(self, config: Config) -> Config:
        """The new dynamic half beside the static half that is in force."""
        changed = [name for name in STATIC_SECTIONS if getattr(config, name) != getattr(self._static, name)]
        if changed:
            logger.warning("changes to %s need a restart and are not in force", ", ".join(changed))
        return config.with_static_half_of(self._static)

    def _swap(self, generation: Generation) -> None:
        assert self._tasks is not None
        previous, self.current = self.current, generation
        kept = set(generation.resources())
        for resource in kept.difference(previous.resources()):
            self.start(resource)
        self._reloads["ok"] += 1
        self._generation += 1
        self._loaded_at = time()
        logger.info(
            "configuration applied: %d routes, %d upstreams", len(generation.config.routes), len(generation.upstreams)
        )
        for name in previous.keys.keys() - generation.keys.keys():
            self._live.distrust(previous.keys[name])
        self._retiring.append(previous)
        self._tasks.create_task(self._retire(previous, [part for part in previous.resources() if part not in kept]))

    async def _retire(self, generation: Generation, leaving: list[Resource]) -> None:
        """Close what the new generation did not take over, once the last request that may use it has ended."""
        await generation.drained()
        self._retiring.remove(generation)
        for part in leaving:
            # It may have been carried over from a generation that is not empty yet.
            for older in [other for other in self._retiring if part in other.resources()]:
                await older.drained()
            task = self._running.pop(part, None)
            if task is not None:
                task.cancel()
            if isinstance(part, Upstream):
                await part.close(CLOSE_S)
