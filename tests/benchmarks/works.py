"""The works: what every proxy is asked to do, in alternating rounds, and the figures that come of it.

A round measures one proxy for a second; then the next proxy has its turn, and the order moves on by one with every
round. So a machine that slows down for a while slows all of them down, and what two proxies did in the same round can
be compared (`Result.ratios`) however fast the machine was in others. All proxies of a work run at the same time, idle
until it is their turn. Before the first round each is let come to rest, then warmed up in a turn that does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tests.benchmarks import measure, peers, proving, site, store, tokens, upstream
from tests.benchmarks.load import Load, LoadFailed, Slice
from tests.benchmarks.peers import Peer
from tests.benchmarks.peers.peer import IDLE_CONNECTIONS, STREAMS
from tests.benchmarks.proving import Backing, Running
from tests.benchmarks.provision import Missing, Programs
from tests.benchmarks.site import Cores, Site, StartFailed
from tests.benchmarks.tokens import Algorithm

USUAL_DENYLIST = 10_000
DENYLISTS = (0, USUAL_DENYLIST, 1_000_000)
BULK_BYTES = 2**30
_RATE_CONNECTIONS = 64
# More than any proxy here can check in a second, so that no token comes twice and no round is cut short.
_COLD_TOKENS_PER_S = 24_000
_COLD_ROUNDS = 7  # signing takes longer than measuring
_BULK_ROUNDS = 5
_STREAM_ROUNDS = 2
_AT_REST_CPU_S = 0.05  # in a second; the gateway's own housekeeping takes a third of that
_AT_REST_WITHIN_S = 30.0
_SPARE_DESCRIPTORS = 200

T = TypeVar("T")
Figures = dict[str, float]
Measurement = Callable[[Running, int], Figures]
WarmUp = Callable[[Running], object]


@dataclass(frozen=True)
class Plan:
    """How much is measured, of whom, with what; `say` tells the person who waits."""

    programs: Programs
    cores: Cores
    peers: tuple[Peer, ...]
    rounds: int
    round_s: int
    say: Callable[[str], None]


@dataclass
class Result:
    """The figures of one work: for each proxy each figure once per round, and why a proxy has none."""

    key: str
    title: str
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, figures: Figures) -> None:
        """Append one round of one proxy."""
        for name, value in figures.items():
            self.rows.setdefault(row, {}).setdefault(name, []).append(value)

    def middle(self, row: str, figure: str) -> float:
        """The median over the rounds; NaN when there is none."""
        return measure.median(self._figures(row, figure))

    def ratios(self, row: str, against: str, figure: str) -> list[float]:
        """For each round that both took part in: the figure of `row` divided by that of `against`."""
        pairs = zip(self._figures(row, figure), self._figures(against, figure), strict=False)
        return [ours / theirs for ours, theirs in pairs if theirs]

    def _figures(self, row: str, figure: str) -> list[float]:
        return self.rows.get(row, {}).get(figure, [])


@dataclass(frozen=True)
class _Stage:
    """An open site with its load and what stands behind the proxies."""

    site: Site
    load: Load
    backing: Backing


def warm(plan: Plan, algorithm: Algorithm) -> Result:
    """2,000 tokens in turn: what a request costs when its token has been seen before."""
    result = Result(f"warm-{algorithm}", f"Warm {algorithm}: {tokens.WARM_TOKENS:,} tokens in turn")
    seen = Slice(tokens.token_file(algorithm, "warm", tokens.WARM_TOKENS), 0, tokens.WARM_TOKENS)
    with _fixed_stage(plan, algorithm) as stage:

        def ask(running: Running, turn: int) -> Figures:
            return _asked(stage.load, running, seen, plan.round_s)

        _alternate(plan, stage, plan.peers, result, ask, _asking(stage, seen))
    return result


def cold(plan: Plan, algorithm: Algorithm) -> Result:
    """Each request a token not seen before: what the check itself costs."""
    result = Result(f"cold-{algorithm}", f"Cold {algorithm}: every token seen once")
    plan = replace(plan, rounds=min(plan.rounds, _COLD_ROUNDS))
    per_round = _COLD_TOKENS_PER_S * plan.round_s
    plan.say(f"signing {per_round * plan.rounds:,} {algorithm} tokens unless they are there already")
    file = tokens.token_file(algorithm, "cold", per_round * plan.rounds)
    seen = Slice(tokens.token_file(algorithm, "warm", tokens.WARM_TOKENS), 0, tokens.WARM_TOKENS)
    checking = tuple(peer for peer in plan.peers if peer.verifies and peer is not peers.NAIVE)
    with _fixed_stage(plan, algorithm) as stage:

        def ask(running: Running, turn: int) -> Figures:
            return _asked(stage.load, running, Slice(file, turn * per_round, per_round, once=True), plan.round_s)

        _alternate(plan, stage, checking, result, ask, _asking(stage, seen))
    return result


def denylists(plan: Plan) -> Result:
    """Warm ES256 through gateways whose denylists hold nothing, 10,000 and 1,000,000 entries."""
    result = Result("denylist", "Warm ES256 with denylists of 0, 10,000 and 1,000,000 entries")
    if peers.GATEWAY not in plan.peers:
        return result
    seen = Slice(tokens.token_file("ES256", "warm", tokens.WARM_TOKENS), 0, tokens.WARM_TOKENS)
    with _fixed_stage(plan, "ES256") as stage:
        assert stage.backing.store is not None
        entrants = []
        for number, entries in enumerate(DENYLISTS):
            stage.backing.store.fill(number, entries)
            entrants.append((f"gateway-{entries}", peers.GATEWAY, replace(stage.backing, database=number)))

        def ask(running: Running, turn: int) -> Figures:
            memory = measure.resident_bytes(running.pid)
            return {**_asked(stage.load, running, seen, plan.round_s), "resident_bytes": memory}

        _take_turns(plan, stage, entrants, result, ask, _asking(stage, seen))
    return result


def fixed_rate(plan: Plan, per_s: float) -> Result:
    """Latency at a constant rate that leaves every proxy but the naive one time to breathe."""
    result = Result("rate", f"Latency at a fixed rate of {per_s:,.0f} requests/s (half of Envoy's maximum), warm ES256")
    file = tokens.token_file("ES256", "warm", tokens.WARM_TOKENS)
    fast_enough = tuple(peer for peer in _usual(plan) if peer is not peers.NAIVE)
    with _fixed_stage(plan, "ES256") as stage:

        def asked(running: Running, seconds: float) -> Figures:
            options = {"token_file": str(file), "per_s": per_s, "connections": _RATE_CONNECTIONS}
            return stage.load.client("rate", running.port, seconds, **options, seconds=seconds)

        _alternate(
            *(plan, stage, fast_enough, result),
            lambda running, _: asked(running, plan.round_s + 1.0),
            lambda running: asked(running, 1.0),
        )
    return result


def bulk(plan: Plan) -> Result:
    """One body of 1 GiB down and one up, over one connection."""
    result = Result("bulk", "1 GiB down and up")
    token = tokens.first_token(tokens.token_file("ES256", "warm", tokens.WARM_TOKENS))
    with _origin_stage(plan) as stage:

        def move(running: Running, size: int) -> Figures:
            figures: Figures = {}
            for direction in ("download", "upload"):
                before = measure.cpu_s(running.pid)
                answer = stage.load.client(direction, running.port, 60.0, token=token, size=size)
                figures[f"{direction}_mb_s"] = answer["bytes_per_s"] / 1e6
                figures[f"{direction}_cpu_s"] = measure.cpu_s(running.pid) - before
            return figures

        _alternate(
            *(replace(plan, rounds=min(plan.rounds, _BULK_ROUNDS)), stage, _usual(plan), result),
            lambda running, _: move(running, BULK_BYTES),
            lambda running: move(running, BULK_BYTES // 16),
        )
    return result


def idle_connections(plan: Plan) -> Result:
    """10,000 connections that had one answer each: what the proxy's processes hold for each, without the kernel."""
    count = min(IDLE_CONNECTIONS, site.raise_file_limit() - _SPARE_DESCRIPTORS)
    result = Result("idle", f"{count:,} idle keep-alive connections")
    token = tokens.first_token(tokens.token_file("ES256", "warm", tokens.WARM_TOKENS))
    with _fixed_stage(plan, "ES256") as stage:

        def hold(running: Running, turn: int) -> Figures:
            return stage.load.client("idle", running.port, 120.0, token=token, pid=running.pid, connections=count)

        # Memory once used is rarely given back: only the first turn of a process means anything.
        _alternate(replace(plan, rounds=1), stage, _usual(plan), result, hold, lambda _: None)
    return result


def event_streams(plan: Plan) -> Result:
    """1,000 event streams with an event a second each: CPU per event and the delay added to it."""
    result = Result("streams", f"{STREAMS:,} event streams, one event a second each")
    token = tokens.first_token(tokens.token_file("ES256", "warm", tokens.WARM_TOKENS))
    with _origin_stage(plan) as stage:

        def listen(running: Running, seconds: int) -> Figures:
            options = {"token": token, "pid": running.pid, "streams": STREAMS, "seconds": seconds}
            return stage.load.client("events", running.port, seconds + 90.0, **options)

        _alternate(
            *(replace(plan, rounds=min(plan.rounds, _STREAM_ROUNDS)), stage, _usual(plan), result),
            lambda running, _: listen(running, plan.round_s + 3),
            lambda running: listen(running, 1),
        )
    return result


def _usual(plan: Plan) -> tuple[Peer, ...]:
    """Without the interpreted gateway, which is of interest where Python's own speed decides."""
    return tuple(peer for peer in plan.peers if peer is not peers.INTERPRETED)


def _asking(stage: _Stage, seen: Slice) -> WarmUp:
    """Every token once, caches and connections filled."""
    return lambda running: stage.load.ask(running.port, seen, for_s=1)


def _asked(load: Load, running: Running, slice_: Slice, for_s: int) -> Figures:
    """One round of wrk: what it saw, what it cost the proxy, and how much of the proxy's core others took meanwhile."""
    before_s, busy_before_s = measure.cpu_s(running.pid), measure.busy_s(load.cores.proxy)
    answered = load.ask(running.port, slice_, for_s)
    cpu_s = measure.cpu_s(running.pid) - before_s
    others_s = measure.busy_s(load.cores.proxy) - busy_before_s - cpu_s
    return {
        "cpu_us": cpu_s / answered.requests * 1e6,
        "rps": answered.requests / answered.duration_s,
        "p50_us": answered.p50_us,
        "p99_us": answered.p99_us,
        "others_percent": max(0.0, others_s / for_s * 100),
    }


@contextmanager
def _fixed_stage(plan: Plan, algorithm: Algorithm) -> Iterator[_Stage]:
    with site.open_site(plan.cores) as place:
        _, port = upstream.start_fixed(place, plan.programs)
        backing = Backing(plan.programs, algorithm, port, _store(plan, place))
        yield _Stage(place, Load(plan.programs, plan.cores), backing)


@contextmanager
def _origin_stage(plan: Plan) -> Iterator[_Stage]:
    with site.open_site(plan.cores) as place:
        _, port = upstream.start_origin(place)
        backing = Backing(plan.programs, "ES256", port, _store(plan, place), proves_identity=False)
        yield _Stage(place, Load(plan.programs, plan.cores), backing)


def _store(plan: Plan, place: Site) -> store.Store | None:
    """Redis with the usual denylist, when somebody here uses one."""
    if not any(peer.uses_denylist for peer in plan.peers):
        return None
    try:
        started = store.start(place, plan.programs)
    except Missing:
        return None
    started.fill(0, USUAL_DENYLIST)
    return started


def _alternate(
    plan: Plan, stage: _Stage, entrants: Sequence[Peer], result: Result, ask: Measurement, warm_up: WarmUp
) -> None:
    _take_turns(plan, stage, [(peer.name, peer, stage.backing) for peer in entrants], result, ask, warm_up)


def _take_turns(
    plan: Plan,
    stage: _Stage,
    entrants: Sequence[tuple[str, Peer, Backing]],
    result: Result,
    ask: Measurement,
    warm_up: WarmUp,
) -> None:
    """Start everybody, then measure one after the other, the order moving on by one with every round."""
    running: list[tuple[str, Running]] = []

    def leave_out(row: str, reason: Exception) -> None:
        result.skipped[row] = str(reason)
        plan.say(f"{result.key}: {row} is left out: {reason}")

    for row, peer, backing in entrants:
        try:
            running.append((row, proving.start(stage.site, peer, backing, label=row.removeprefix(peer.name))))
        except (Missing, StartFailed) as absent:
            leave_out(row, absent)
    _wait_until_at_rest([proxy for _, proxy in running])
    for turn in range(-1, plan.rounds):
        for row, proxy in in_turn(running, turn):
            if row in result.skipped:
                continue
            try:
                if turn < 0:
                    warm_up(proxy)
                    continue
                figures = ask(proxy, turn)
            except LoadFailed as failed:
                leave_out(row, failed)
                continue
            result.add(row, figures)
            shown = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())
            plan.say(f"{result.key} round {turn + 1} {row}: {shown}")


def in_turn(entrants: Sequence[T], turn: int) -> Sequence[T]:
    """The order of one round: that of the round before, moved on by one."""
    shift = turn % max(1, len(entrants))
    return [*entrants[shift:], *entrants[:shift]]


def _wait_until_at_rest(running: Sequence[Running]) -> None:
    """Return when no proxy computes any more: what it does after its start (loading a denylist) is no request's cost.

    After `_AT_REST_WITHIN_S` the run goes on all the same: work that never ends belongs to the measurement.
    """
    deadline = time.monotonic() + _AT_REST_WITHIN_S
    while time.monotonic() < deadline:
        before = [measure.cpu_s(proxy.pid) for proxy in running]
        time.sleep(1.0)
        spent = [measure.cpu_s(proxy.pid) - cpu_s for proxy, cpu_s in zip(running, before, strict=True)]
        if all(cpu_s <= _AT_REST_CPU_S for cpu_s in spent):
            return
