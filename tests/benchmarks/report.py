"""Show a run: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import load, measure, peers, tokens
from tests.benchmarks.counting import Counted
from tests.benchmarks.targets import Verdict
from tests.benchmarks.works import USUAL_DENYLIST, Result

_TITLES = {peer.name: peer.title for peer in peers.ALL}
_NONE = "n/a"
# Figure → heading, divisor, decimals.
_COLUMNS = {
    "cpu_us": ("CPU µs", 1.0, 1),
    "rps": ("requests/s", 1.0, 0),
    "p50_us": ("p50 ms", 1e3, 2),
    "p99_us": ("p99 ms", 1e3, 2),
    "download_mb_s": ("down MB/s", 1.0, 0),
    "download_cpu_s": ("down CPU s", 1.0, 2),
    "upload_mb_s": ("up MB/s", 1.0, 0),
    "upload_cpu_s": ("up CPU s", 1.0, 2),
    "bytes_per_connection": ("KiB per connection", 1024.0, 1),
    "resident_bytes": ("resident MiB", 2.0**20, 1),
}

_PREAMBLE = """\
{started} UTC on {machine}. Each proxy has one core to itself in its turn; load, upstream and Redis have the rest.
Figures are medians of {rounds} rounds of {round_s} s (at most 7 for cold tokens, 5 for gigabytes, 2 for streams, 1 for
idle connections), in which the proxies take turns, after a first turn each that does not count.

- **A ratio** is taken within each round, of two figures measured seconds apart, and the median of these ratios is what
  counts: a machine's speed drifts, and the same drift is in both figures. So a ratio is not exactly that of the two
  medians beside it. *Middle half* is where half of the rounds' ratios lie.
- **CPU** is what Linux accounts to the proxy's process tree, user and system, divided by the requests answered.
- **Requests** come from wrk over {connections} keep-alive connections, one `GET {target}` after another, each with the
  next token of about 700 bytes; p50 and p99 there are those of a saturated proxy.
- **Latency at a fixed rate** comes from an open-loop client of our own (wrk has no fixed rate, h2load no way to change
  the token) and counts from the moment a request was due.
- **Disturbance**: at the median other processes kept the proxies' core busy for {others} of a round. A few percent are
  the kernel's; more means that the machine was shared, and that requests/s and latency are worse than they need be.
- **The denylist** holds {entries:,} entries in Redis unless the work says otherwise.
- **Before it is measured** each proxy shows that it forwards the identity of a good token and refuses a forged, an
  expired, a foreign and a misdirected one; the gateway a revoked one too."""


@dataclass(frozen=True)
class Run:
    """Everything that one run found out."""

    started_at: datetime
    rounds: int
    round_s: int
    cores: int
    versions: Mapping[str, str]
    results: Mapping[str, Result]
    verdicts: Sequence[Verdict]
    counted: Counted | None = None
    steps: Mapping[str, float] = field(default_factory=dict)  # median seconds


def machine(cores: int) -> dict[str, str]:
    """What the figures were measured on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(cores),
        "kernel": platform.release(),
    }


def as_markdown(run: Run) -> str:
    """The whole run as one Markdown document."""
    parts = [
        "# Benchmark: the gateway beside its peers",
        _preamble(run),
        *([_targets(run.verdicts)] if run.verdicts else []),
        *(_work(result) for result in run.results.values()),
        *([_steps(run.steps)] if run.steps else []),
        *([_counts(run.counted)] if run.counted else []),
        _peers(run),
        _versions(run.versions),
    ]
    return "\n\n".join(parts) + "\n"


def as_json(run: Run) -> str:
    """The whole run with every round's figures."""
    document = {
        "started_at": run.started_at.isoformat(timespec="seconds"),
        "rounds": run.rounds,
        "round_s": run.round_s,
        "machine": machine(run.cores),
        "versions": dict(run.versions),
        "checks": {peer.name: peer.checks for peer in peers.ALL},
        "works": {
            result.key: {
                "title": result.title,
                "median": {row: {name: result.middle(row, name) for name in rows} for row, rows in result.rows.items()},
                "rounds": result.rows,
                "skipped": result.skipped,
            }
            for result in run.results.values()
        },
        "steps_us": {step: median_s * 1e6 for step, median_s in run.steps.items()},
        "counts_per_request": (
            {"instructions": run.counted.instructions, "calls": run.counted.calls} if run.counted else None
        ),
        "targets": [
            {
                "title": verdict.target.title,
                "against": verdict.target.against,
                "limit": verdict.target.limit,
                "higher_is_better": verdict.target.higher_is_better,
                "ratio": verdict.ratio if verdict.is_measured else None,
                "middle_half": verdict.spread if verdict.is_measured else None,
                "medians": (verdict.ours, verdict.theirs) if verdict.is_measured else None,
                "met": verdict.is_met if verdict.is_measured else None,
            }
            for verdict in run.verdicts
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def write(run: Run, directory: Path, chart: str) -> list[Path]:
    """Write `results.md`, `results.json` and `results.svg` into a directory; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {"results.md": as_markdown(run), "results.json": as_json(run), "results.svg": chart}
    for name, text in files.items():
        (directory / name).write_text(text)
    return [directory / name for name in files]


def _preamble(run: Run) -> str:
    return _PREAMBLE.format(
        started=f"{run.started_at:%Y-%m-%d %H:%M}",
        machine="{cpu}, {cores} cores, Linux {kernel}".format(**machine(run.cores)),
        rounds=run.rounds,
        round_s=run.round_s,
        connections=load.CONNECTIONS,
        target=load.TARGET,
        entries=USUAL_DENYLIST,
        others=_others(run),
    )


def _others(run: Run) -> str:
    shares = [
        share
        for result in run.results.values()
        for figures in result.rows.values()
        for share in figures.get("others_percent", [])
    ]
    return f"{measure.median(shares):.0f} %" if shares else _NONE


def _targets(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        sign = "≥" if verdict.target.higher_is_better else "≤"
        outcome = ("met" if verdict.is_met else "**missed**") if verdict.is_measured else "not measured"
        ratio = f"{verdict.ratio:.2f}" if verdict.is_measured else _NONE
        against = _TITLES.get(verdict.target.against, "itself")
        spread, medians = (_NONE, _NONE)
        if verdict.is_measured:
            spread = "{:.2f} to {:.2f}".format(*verdict.spread)
            medians = " to ".join(_shown(verdict.target.figure, value) for value in (verdict.ours, verdict.theirs))
        rows.append(
            [verdict.target.title, against, f"{sign} {verdict.target.limit:.2f}", ratio, outcome, spread, medians]
        )
    head = ["Work", "Ratio to", "Target", "Measured", "", "Middle half", "Medians"]
    return "## Targets\n\n" + _table(head, rows)


def _work(result: Result) -> str:
    text = f"## {result.title}"
    figures = [name for name in _COLUMNS if any(name in row for row in result.rows.values())]
    if figures:
        rows = [[_row_title(row), *(_cell(result, row, name) for name in figures)] for row in _ordered(result)]
        text += "\n\n" + _table(["", *(_heading(result, name) for name in figures)], rows)
    for row, reason in result.skipped.items():
        text += f"\n\n{_row_title(row)} was left out: {reason}"
    return text


def _ordered(result: Result) -> list[str]:
    """The gateway first, then the peers in the order of `peers.ALL`, whatever the order of the first round."""
    order = list(_TITLES)
    return sorted(result.rows, key=lambda row: order.index(row) if row in order else -1)


def _heading(result: Result, figure: str) -> str:
    if figure == "cpu_us":
        return "CPU µs per event" if result.key == "streams" else "CPU µs per request"
    return _COLUMNS[figure][0]


def _cell(result: Result, row: str, figure: str) -> str:
    return _shown(figure, result.middle(row, figure))


def _shown(figure: str, value: float) -> str:
    _, divisor, decimals = _COLUMNS[figure]
    return _NONE if math.isnan(value) else f"{value / divisor:,.{decimals}f}"


def _row_title(row: str) -> str:
    if row in _TITLES:
        return _TITLES[row]
    name, _, entries = row.rpartition("-")
    return f"{_TITLES.get(name, name)}, {int(entries):,} entries"


def _steps(steps: Mapping[str, float]) -> str:
    rows = [[f"`{step}`", f"{median_s * 1e6:.2f}"] for step, median_s in steps.items()]
    note = "Medians of `tests/benchmarks/bench_steps.py`, each step alone and in one process."
    return f"## Each step by itself\n\n{note}\n\n" + _table(["Step", "µs"], rows)


def _counts(counted: Counted) -> str:
    rows = [
        [
            name,
            f"{now:,.1f}",
            _NONE if before is None else f"{before:,.1f}",
            _NONE if before is None else f"{now / before:.3f}",
        ]
        for name, now, before in counted.compared()
    ]
    text = "## Counts per request\n\n" + _table(["Of one warm request", "now", "baseline", "ratio"], rows)
    modules = [[f"`{module}`", f"{count:,.1f}"] for module, count in counted.by_module]
    return f"{text}\n\n" + _table(["Bytecode instructions in", "per request"], modules)


def _peers(run: Run) -> str:
    took_part = {row for result in run.results.values() for row in result.rows}
    rows = [[peer.title, peer.checks] for peer in peers.ALL if any(row.startswith(peer.name) for row in took_part)]
    note = f"Issuer `{tokens.ISSUER}`, audience `{tokens.AUDIENCE}`, keys from a local file, one worker each."
    return f"## What each was configured to check\n\n{note}\n\n" + _table(["", "Checks and forwards"], rows)


def _versions(versions: Mapping[str, str]) -> str:
    return "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numeric = [False, *(any(row[column][:1].isdigit() for row in rows) for column in range(1, len(head)))]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)
