"""Everything built from one dynamic configuration: built in full, swapped once, drained after.

    build ──▶ warm ──▶ current ──swap──▶ retired ──last request ends──▶ closed
      │         └ keys of new issuers, so that the swap makes nobody wait
      └ fails: ConfigError; nothing has changed

A resource whose section of the file is unchanged is carried over: keys stay warm, connections stay open, remembered
tokens stay remembered. Whoever leaves is closed only when the last request of its generation has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.config import schema
from gateway.denylist.intake import Intake
from gateway.denylist.replica import Replica
from gateway.denylist.strict import StrictCheck
from gateway.errors import KeysUnavailable
from gateway.idempotency.ledger import Ledger
from gateway.idempotency.route import Idempotency, Rules
from gateway.identity import IdentityHeaders
from gateway.inlets.mount import Application, Mount, build_inlets
from gateway.keys.source import KeySource, build_key_source, build_transmitter_keys
from gateway.live import LiveConnections, Watch
from gateway.pipeline import Pipeline, Route
from gateway.policy import Policy
from gateway.routing.pattern import RouteShape
from gateway.routing.table import RouteTable
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.sample import Sample
from gateway.tokens.bearer import CredentialSources
from gateway.tokens.cache import TokenCache
from gateway.tokens.status_cache import StatusLists
from gateway.tokens.verifier import IssuerRules, Verifier
from gateway.upstream.endpoints import Upstream
from gateway.upstream.headers import RequestHeaders
from gateway.upstream.peer import Peers
from gateway.websocket import WebSocketRules

Resource = KeySource | Upstream | StatusLists
"""What a generation may lend to the next."""


class UnusableConfig(Exception):
    """The file is well-formed, but something it names cannot be used; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What outlives every generation: made once from the static half."""

    replica: Replica | None
    peers: Peers
    record: Callable[[Exchange], None]
    strict: StrictCheck | None = None
    intake: Intake | None = None
    live: LiveConnections | None = None  # None: nothing that lasts is ended
    ledger: Ledger | None = None  # None: there is no place to keep answers
    own_keys: Mapping[str, KeySource] = field(default_factory=dict)  # of issuers that run in this process


@dataclass(slots=True, eq=False)
class Generation:
    """One dynamic configuration at work. Counts its requests in flight, so that it can be closed after the last."""

    config: schema.Config
    pipeline: Pipeline
    verifier: Verifier
    identity: IdentityHeaders
    keys: dict[str, KeySource]
    upstreams: dict[str, Upstream]
    transmitters: dict[str, KeySource]  # of security events, with keys of their own
    statuses: dict[str, StatusLists]
    entry: Application  # the pipeline, behind the inlets if there are any
    outliving: set[asyncio.Task[None]]  # exchanges that go on when their client leaves
    in_flight: int = 0
    _ended: asyncio.Event | None = field(default=None, repr=False)

    def resources(self) -> list[Resource]:
        """Everything with a life of its own."""
        return [*self.keys.values(), *self.transmitters.values(), *self.statuses.values(), *self.upstreams.values()]

    def leave(self) -> None:
        """One request has ended."""
        self.in_flight -= 1
        if self._ended is not None and self.in_flight == 0:
            self._ended.set()

    async def drained(self) -> None:
        """Until the last request has ended; call it once the generation gets no new ones."""
        if self.in_flight:
            self._ended = self._ended or asyncio.Event()  # several may wait
            await self._ended.wait()
        if self.outliving:
            await asyncio.wait(self.outliving)

    async def warm(self, previous: Generation | None) -> None:
        """Load the keys of issuers that are new here, as far as they can be had within their timeouts."""
        known = set(previous.keys.values()) if previous is not None else set()
        await asyncio.gather(
            *(
                _load(source, self.config.issuers[name].algorithms[0])
                for name, source in self.keys.items()
                if source not in known
            )
        )

    def samples(self) -> Iterable[Sample]:
        """The numbers of every resource."""
        for resource in self.resources():
            yield from resource.samples()
        yield from self.verifier.cache.samples()


async def _load(source: KeySource, alg: str) -> None:
    # Has a deadline of its own, the issuer's timeout; until keys can be had requests get 503, and the log says why.
    with contextlib.suppress(KeysUnavailable):
        await source.find(None, alg)


def build(config: schema.Config, around: Surroundings, previous: Generation | None) -> Generation:
    """A generation for `config`, with what `previous` can lend. Raises `UnusableConfig`; starts nothing."""
    keys = {
        name: around.own_keys.get(name) or _key_source(name, issuer, previous)
        for name, issuer in config.issuers.items()
    }
    upstreams = {name: _upstream(name, upstream, previous) for name, upstream in config.upstreams.items()}
    verifier = _verifier(config, keys, previous)
    # Rendered headers are remembered per token and per this object, so an unchanged section keeps it.
    if previous is not None and previous.config.identity == config.identity:
        identity = previous.identity
    else:
        identity = IdentityHeaders(config.identity)
    # A browser sends a cookie to every path of its host, so what holds a token for one route is removed on all.
    settings = [issuer.credentials for issuer in config.issuers.values()]
    settings += [route.credentials for route in config.routes if route.credentials is not None]
    held = CredentialSources.of(settings)
    statuses = _statuses(config, keys, previous)
    watches = {word: _watch(around.live, verifier, statuses, ends=word == "end") for word in ("end", "finish")}
    outliving: set[asyncio.Task[None]] = set()
    routes = RouteTable(
        [
            (
                route_shape(route),
                _route(
                    route,
                    config,
                    identity,
                    upstreams,
                    held,
                    watches[route.on_revoke],
                    _idempotency(route, around.ledger, outliving),
                ),
            )
            for route in config.routes
        ]
    )
    pipeline = Pipeline(routes, verifier, around.replica, around.peers, around.record, around.strict, statuses)
    transmitters = _transmitters(config, previous)
    entry = _entry(config, around, pipeline, verifier, keys, transmitters)
    return Generation(config, pipeline, verifier, identity, keys, upstreams, transmitters, statuses, entry, outliving)


def _watch(
    live: LiveConnections | None, verifier: Verifier, statuses: dict[str, StatusLists], *, ends: bool
) -> Watch | None:
    if live is None:
        return None
    return Watch(live, verifier.valid_until, ends, statuses)


def route_shape(route: schema.Route) -> RouteShape:
    """What of a route decides whether it matches."""
    return RouteShape(route.name, route.host, route.path, route.methods, route.allow_ambiguous)


def _key_source(name: str, issuer: schema.Issuer, previous: Generation | None) -> KeySource:
    if previous is not None and previous.config.issuers.get(name) == issuer:
        return previous.keys[name]
    try:
        return build_key_source(name, issuer)
    except (OSError, ValueError) as exc:
        raise UnusableConfig(f"issuers.{name}: {exc}") from exc


def _transmitters(config: schema.Config, previous: Generation | None) -> dict[str, KeySource]:
    """The keys of transmitters that have their own; kept while the issuer's section is."""
    found = {}
    for name, issuer in config.issuers.items():
        kept = previous.transmitters.get(name) if previous and previous.config.issuers.get(name) == issuer else None
        keys = kept or build_transmitter_keys(name, issuer)
        if keys is not None:
            found[name] = keys
    return found


def _entry(
    config: schema.Config,
    around: Surroundings,
    pipeline: Pipeline,
    verifier: Verifier,
    keys: dict[str, KeySource],
    transmitters: dict[str, KeySource],
) -> Application:
    if around.intake is None:
        return pipeline
    inlets = build_inlets(config, keys, verifier, around.intake, transmitters)
    return Mount(inlets, pipeline, around.intake, around.peers, around.record) if inlets else pipeline


def _statuses(config: schema.Config, keys: dict[str, KeySource], previous: Generation | None) -> dict[str, StatusLists]:
    """The status lists of each issuer that publishes some; kept while its section and its keys are."""
    found = {}
    for name, issuer in config.issuers.items():
        if issuer.revocation.status_list is None:
            continue
        kept = previous.statuses.get(name) if previous is not None and previous.keys.get(name) is keys[name] else None
        found[name] = kept or StatusLists.of(name, issuer, keys[name])
    return found


def _upstream(name: str, upstream: schema.Upstream, previous: Generation | None) -> Upstream:
    lent = previous.upstreams.get(name) if previous is not None else None
    if lent is not None and lent.is_built_from(upstream):
        return lent
    try:
        return Upstream(name, upstream)
    except (OSError, ValueError) as exc:  # a CA or certificate file
        raise UnusableConfig(f"upstreams.{name}: {exc}") from exc


def _verifier(config: schema.Config, keys: dict[str, KeySource], previous: Generation | None) -> Verifier:
    if previous is not None and previous.config.issuers == config.issuers:
        return previous.verifier
    # Not the old one's cache: what it remembers was judged by the old rules.
    rules = [IssuerRules.of(name, issuer, keys[name]) for name, issuer in config.issuers.items()]
    return Verifier(rules, TokenCache())


def _route(
    route: schema.Route,
    config: schema.Config,
    identity: IdentityHeaders,
    upstreams: dict[str, Upstream],
    held: CredentialSources | None,
    watch: Watch | None,
    idempotency: Idempotency | None,
) -> Route:
    names = config.issuers if route.auth.issuers is None else route.auth.issuers
    settings = [route.credentials] if route.credentials else [config.issuers[name].credentials for name in names]
    sources = CredentialSources.of(settings)
    when_stale = route.denylist.when_stale or (config.denylist.when_stale if config.denylist else "allow")
    upstream = upstreams[route.upstream]
    return Route(
        name=route.name,
        checks_tokens=route.auth.mode != "none",
        sources=sources,
        dropped_queries=held.queries if held else frozenset(),
        issuers=frozenset(route.auth.issuers) if route.auth.issuers is not None else None,
        audience=frozenset(route.auth.audience) if route.auth.audience is not None else None,
        refuses_stale=when_stale == "refuse",
        asks_store=route.denylist.consistency == "strict",
        policy=Policy(route.auth),
        identity=identity,
        headers=RequestHeaders(
            stripped=identity.stripped,
            forward_token=route.forward_token,
            drop_cookies=held.cookies if held else (),
        ),
        upstream=upstream,
        body_limit=config.server.limits.body_bytes if route.body_bytes is None else route.body_bytes,
        head_timeout_s=route.timeouts.head or upstream.config.timeouts.head,
        idle_timeout_s=route.timeouts.idle or upstream.config.timeouts.idle,
        watch=watch,
        websocket=_websocket_rules(route.websocket, has_cookies=sources is not None and bool(sources.cookies)),
        idempotency=idempotency,
    )


def _idempotency(route: schema.Route, ledger: Ledger | None, outliving: set[asyncio.Task[None]]) -> Idempotency | None:
    settings = route.idempotency
    if settings.mode == "off":
        return None
    if ledger is None:
        raise UnusableConfig(f"route {route.name}: `idempotency` needs a store, which needs a restart")
    rules = Rules(
        route=route.name,
        is_required=settings.mode == "required",
        ttl_s=settings.ttl,
        max_body=settings.max_body,
        max_answer=settings.max_answer,
        wait_s=settings.wait,
        takes_over=settings.when_unknown == "forward",
    )
    return Idempotency(rules, ledger, outliving)


def _websocket_rules(websocket: schema.RouteWebsocket, *, has_cookies: bool) -> WebSocketRules:
    origins = websocket.origins
    return WebSocketRules(
        enabled=websocket.enabled,
        max_message=websocket.max_message,
        idle_s=websocket.idle,
        origins=None if origins is None else frozenset(origin.lower().encode() for origin in origins),
        has_cookies=has_cookies,
    )
