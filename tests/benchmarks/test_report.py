"""What a run writes can be read: a table for people, JSON and an SVG for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import chart, report
from tests.benchmarks.counting import Counted
from tests.benchmarks.report import Run
from tests.benchmarks.targets import judge
from tests.benchmarks.works import Result


@pytest.fixture
def run() -> Run:
    """A run with two works, in which Envoy is missing from the second."""
    warm = Result("warm-ES256", "Warm ES256")
    warm.add("envoy", {"cpu_us": 130.0, "rps": 7_000.0, "p50_us": 4_000.0, "p99_us": 9_000.0})
    warm.add("gateway", {"cpu_us": 52.0, "rps": 17_500.0, "p50_us": 1_500.0, "p99_us": 3_000.0})
    warm.add("naive", {"cpu_us": 1_300.0, "rps": 700.0, "p50_us": 40_000.0, "p99_us": 90_000.0})
    denylist = Result("denylist", "Denylists")
    denylist.add("gateway-1000000", {"cpu_us": 53.0, "resident_bytes": 2.0**27})
    cold = Result("cold-ES256", "Cold ES256")
    cold.skipped["envoy"] = "envoy is <not> installed"
    results = {result.key: result for result in (warm, denylist, cold)}
    return Run(
        started_at=datetime(2026, 11, 22, tzinfo=UTC),
        rounds=1,
        round_s=1,
        cores=2,
        versions={"envoy": "1.40.0"},
        results=results,
        verdicts=judge(results),
        counted=Counted(4_000.0, 250.0, (("gateway.pipeline", 333.0),)),
        steps={"match": 1e-6},
    )


def test_markdown(run: Run) -> None:
    """The gateway stands first; a target that is met, missed or not measured says so; an absent peer has its reason."""
    text = report.as_markdown(run)
    assert text.index("| gateway | 52.0 |") < text.index("| Envoy jwt_authn | 130.0 |")
    assert "| Envoy jwt_authn | ≤ 0.45 | 0.40 | met | 0.40 to 0.40 | 52.0 to 130.0 |" in text
    assert "| Envoy jwt_authn, token cache | ≤ 0.95 | n/a | not measured | n/a | n/a |" in text
    assert "the median of these ratios is what\n  counts" in text
    assert "Envoy jwt_authn was left out: envoy is <not> installed" in text
    assert "| gateway, 1,000,000 entries | 53.0 | 128.0 |" in text


def test_json(run: Run) -> None:
    """Every figure is there once per round, and nothing in it is not a number."""
    document = json.loads(report.as_json(run), parse_constant=pytest.fail)
    assert document["works"]["warm-ES256"]["rounds"]["gateway"]["cpu_us"] == [52.0]
    assert {target["met"] for target in document["targets"]} == {True, None}


def test_chart(run: Run) -> None:
    """The chart is XML, its bars are as long as the figures, and the one that does not fit is cut and says so."""
    root = ElementTree.fromstring(chart.draw(run.results))
    names = {"svg": "http://www.w3.org/2000/svg"}
    gateway, envoy, naive = (float(bar.get("width", "0")) for bar in root.findall("svg:rect", names))
    assert gateway / envoy == pytest.approx(0.4, abs=0.01)
    assert naive == pytest.approx(envoy)
    assert "1,300 (bar cut)" in {text.text for text in root.findall("svg:text", names)}


def test_write(run: Run, tmp_path: Path) -> None:
    """Three files, in a directory that need not exist."""
    written = report.write(run, tmp_path / "new", chart.draw(run.results))
    assert [path.name for path in written] == ["results.md", "results.json", "results.svg"]
    assert all(path.stat().st_size for path in written)
