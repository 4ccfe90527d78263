"""``python -m tests.benchmarks``: measure, print the table, and write it down."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import chart, counting, peers, report, site, works
from tests.benchmarks.counting import Counted
from tests.benchmarks.provision import Missing, Programs
from tests.benchmarks.steps import StepsFailed, time_steps
from tests.benchmarks.targets import judge
from tests.benchmarks.works import Plan, Result

_DOCS = Path(__file__).parents[2] / "docs" / "benchmarks"
# In the order in which they are done; `rate` needs the figures of `warm-ES256`.
_WORKS: dict[str, Callable[[Plan, dict[str, Result]], Result]] = {
    "warm-ES256": lambda plan, _: works.warm(plan, "ES256"),
    "warm-RS256": lambda plan, _: works.warm(plan, "RS256"),
    "cold-ES256": lambda plan, _: works.cold(plan, "ES256"),
    "cold-RS256": lambda plan, _: works.cold(plan, "RS256"),
    "denylist": lambda plan, _: works.denylists(plan),
    "rate": lambda plan, done: works.fixed_rate(plan, _half_of_envoy(done)),
    "bulk": lambda plan, _: works.bulk(plan),
    "idle": lambda plan, _: works.idle_connections(plan),
    "streams": lambda plan, _: works.event_streams(plan),
}
_STEPS, _COUNTS = "steps", "counts"


def main(arguments: list[str]) -> int:
    """Run what was asked for; 0 when all was measured, 1 when figures are missing or the gateway's counts grew."""
    options = _parser().parse_args(arguments)
    # A `timeout` in front ends the run as Ctrl-C does: every `with` is left, every process stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started_at, started = report.now(), time.monotonic()
    names = options.works or (["warm-ES256", _COUNTS] if options.quick else [*_WORKS, _STEPS, _COUNTS])
    rounds, round_s = options.rounds or (3 if options.quick else 11), options.seconds or 1
    cores = site.divide_cores()
    site.raise_file_limit()
    os.sched_setaffinity(0, cores.load)
    programs = Programs()
    # A peer without its program is left out by the first work, with the reason, and the others go on.
    chosen = tuple(peer for peer in peers.ALL if not options.peers or peer.name in options.peers)
    plan = Plan(programs, cores, chosen, rounds, round_s, say=_say)
    results: dict[str, Result] = {}
    for name in names:
        if name in _WORKS:
            results[name] = _WORKS[name](plan, results)
    counted = _counts(plan, options.store_baseline) if _COUNTS in names and peers.GATEWAY in chosen else None
    wants_steps = _STEPS in names and peers.GATEWAY in chosen
    steps = _steps(plan) if wants_steps else {}
    core_count, versions = len(cores.proxy | cores.load), programs.versions()
    run = report.Run(started_at, rounds, round_s, core_count, versions, results, judge(results), counted, steps)
    print(report.as_markdown(run))
    output = options.output or (None if options.quick or options.works or options.peers else _DOCS)
    if output:
        for path in report.write(run, output, chart.draw(results)):
            _say(f"wrote {path}")
    _say(f"done in {time.monotonic() - started:.0f} s")
    return 1 if _has_failed(run) or (wants_steps and not steps) else 0


def _half_of_envoy(done: dict[str, Result]) -> float:
    """Half of what Envoy answers at the most; without Envoy half of the gateway's own maximum."""
    warm = done.get("warm-ES256")
    for name in ("envoy", "gateway"):
        if warm is not None and name in warm.rows:
            return warm.middle(name, "rps") / 2
    raise SystemExit("the work `rate` needs `warm-ES256` before it, for the rate")


def _steps(plan: Plan) -> dict[str, float]:
    try:
        return time_steps(plan.cores)
    except StepsFailed as failed:
        plan.say(f"no figures for the steps: {failed}")
        return {}


def _counts(plan: Plan, store: bool) -> Counted | None:
    try:
        counted = counting.count(plan.programs, plan.cores)
    except (Missing, site.StartFailed) as failed:
        plan.say(f"no counts: {failed}")
        return None
    if store:
        counted.store()
    return counted


def _has_failed(run: report.Run) -> bool:
    without = [key for key, result in run.results.items() if any(row.startswith("gateway") for row in result.skipped)]
    for key in without:
        _say(f"{key}: the gateway has no figures")
    has_regressed = run.counted is not None and run.counted.has_regressed()
    if has_regressed:
        _say(f"a request executes over {counting.TOLERANCE - 1:.0%} more than the baseline; see the counts above")
    return bool(without) or has_regressed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="The gateway beside its peers.")
    parser.add_argument("--quick", action="store_true", help="warm ES256 and the counts only; under a minute")
    parser.add_argument(
        "--works", nargs="+", choices=[*_WORKS, _STEPS, _COUNTS], help="only these; nothing is written to docs"
    )
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in peers.ALL], help="only these")
    parser.add_argument("--rounds", type=int, help="rounds of each work (11; quick: 3)")
    parser.add_argument("--seconds", type=int, help="length of a round (1); wrk takes whole seconds")
    parser.add_argument("--output", type=Path, help="where to write table, JSON and chart")
    parser.add_argument(
        "--store-baseline", action="store_true", help="keep the counts for later runs to be compared to"
    )
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
