"""Numbers: counted, bounded in their labels, added up over workers, rendered for Prometheus."""

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import gateway
from gateway.denylist.status import COUNTERS
from gateway.telemetry.catalogue import CATALOGUE, family_of
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.metrics import DURATIONS_S, RequestMetrics, Scrape, merge, number, render
from gateway.telemetry.runtime import Runtime
from gateway.telemetry.sample import Histogram, Sample


def _exchange(**facts: Any) -> Exchange:
    known: dict[str, Any] = {
        "started": 0.0,
        "method": "GET",
        "host": "",
        "path": "/",
        "client": "",
        "duration_s": 0.002,
    }
    return Exchange(**(known | facts))


def _parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Source:
    """Gives the samples it was made with."""

    def __init__(self, *samples: Sample) -> None:
        self.given = samples

    def samples(self) -> Iterator[Sample]:
        yield from self.given


def _names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("gateway_"):
            yield node.value


def test_every_metric_that_is_used_is_in_the_catalogue() -> None:
    """A name in the code that the catalogue does not know would fail at the first scrape."""
    package = Path(gateway.__file__).parent
    for path in package.rglob("*.py"):
        for name in _names_in(path):
            if name not in ("gateway_", "gateway_denylist_") and " " not in name:
                assert family_of(name), f"{name} in {path}"


def test_counters_end_in_total_and_others_do_not() -> None:
    """The exposition adds the suffix, so a name that lacks it would be shown under another one."""
    for name, metric in CATALOGUE.items():
        assert name.startswith("gateway_")
        assert name.endswith("_total") == (metric.type == "counter"), name


def test_requests_are_counted_by_route_method_status_and_code() -> None:
    """And an unknown method is OTHER: a client cannot make up label values."""
    metrics = RequestMetrics()
    for _ in range(3):
        metrics.record(_exchange(route="api", status=200, bytes_in=2, bytes_out=5, head_s=0.001, token_cached=True))
    metrics.record(_exchange(route="api", status=401, code="token_expired"))
    metrics.record(_exchange(method="PROPFIND", status=404, code="no_route"))
    shown = _parsed(render(number(metrics.samples())))

    def count(**labels: str) -> float:
        return shown["gateway_requests_total", tuple(sorted(labels.items()))]

    assert count(route="api", method="GET", status="200", code="") == 3
    assert count(route="api", method="GET", status="401", code="token_expired") == 1
    assert count(route="", method="OTHER", status="404", code="no_route") == 1
    api = (("route", "api"),)
    assert shown["gateway_request_duration_seconds_count", api] == 4
    assert shown["gateway_request_duration_seconds_bucket", (("le", "0.0025"), *api)] == 4
    assert shown["gateway_upstream_head_seconds_count", api] == 3
    assert shown["gateway_request_body_bytes_total", api] == 6
    assert shown["gateway_response_body_bytes_total", api] == 15
    assert shown["gateway_tokens_remembered_total", ()] == 3


def test_workers_are_merged_by_the_metrics_rule() -> None:
    """Counters and histograms add up; of a staleness the worst counts, of a loaded flag the weakest."""
    histogram = Histogram((0.1,))
    histogram.observe(0.05)
    views = [
        number(
            [
                Sample("gateway_server_requests_total", {"listener": "edge"}, count),
                Sample("gateway_denylist_staleness_seconds", {}, staleness),
                Sample("gateway_denylist_loaded", {}, loaded),
                *histogram.samples("gateway_loop_stall_seconds", {}),
            ]
        )
        for count, staleness, loaded in ((3, 0.5, 1), (4, 7.5, 0))
    ]
    merged = merge(views)
    assert merged["gateway_server_requests_total", (("listener", "edge"),)] == 7
    assert merged["gateway_denylist_staleness_seconds", ()] == 7.5
    assert merged["gateway_denylist_loaded", ()] == 0
    assert merged["gateway_loop_stall_seconds_bucket", (("le", "0.1"),)] == 2


def test_help_and_type_are_shown() -> None:
    """Each family carries its line of help, and its type as Prometheus names it."""
    text = render(number([Sample("gateway_server_requests_total", {"listener": "edge"}, 1)])).decode()
    assert "# TYPE gateway_server_requests_total counter" in text
    assert "# HELP gateway_server_requests_total Requests handed" in text


async def _scrape(directory: Path, worker: int, *samples: Sample) -> Scrape:
    scrape = Scrape(Runtime(directory, worker), lambda: [Source(*samples)])
    task = asyncio.create_task(scrape.run())
    path = directory / f"worker-{worker}.json"
    before = path.stat().st_mtime_ns if path.exists() else 0
    async with asyncio.timeout(10):
        while not path.exists() or path.stat().st_mtime_ns == before:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return scrape


_KEY = ("gateway_token_cache_hits_total", ())


@pytest.mark.asyncio
async def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    """The others' numbers come from the shared directory, the own ones are live."""
    first = await _scrape(tmp_path, 0, Sample("gateway_token_cache_hits_total", {}, 3))
    second = await _scrape(tmp_path, 1, Sample("gateway_token_cache_hits_total", {}, 4))
    for scrape in (first, second):
        shown = _parsed(await scrape.exposition())
        assert shown[_KEY] == 7
        assert shown["gateway_workers", ()] == 2


@pytest.mark.asyncio
async def test_a_replaced_worker_goes_on_counting_where_it_was(tmp_path: Path) -> None:
    """Counters are inherited from the file of the worker before, gauges are not."""
    hits, entries = Sample("gateway_token_cache_hits_total", {}, 3), Sample("gateway_token_cache_entries", {}, 3)
    await _scrape(tmp_path, 0, hits, entries)
    await _scrape(tmp_path, 0, hits, entries)
    shown = _parsed(await (await _scrape(tmp_path, 0, hits, entries)).exposition())
    assert shown[_KEY] == 9
    assert shown["gateway_token_cache_entries", ()] == 3


@pytest.mark.asyncio
async def test_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    """What cannot be read does not fail the scrape."""
    (tmp_path / "worker-1.json").write_text('["gateway_token_cache_hits_total", [], 4]\n[tru')
    scrape = await _scrape(tmp_path, 0, Sample("gateway_token_cache_hits_total", {}, 3))
    assert _parsed(await scrape.exposition())[_KEY] == 3


@pytest.mark.asyncio
async def test_a_directory_that_is_gone_does_not_end_the_gateway(tmp_path: Path) -> None:
    """Sharing fails, the own numbers are still shown."""
    directory = tmp_path / "run"
    directory.mkdir()
    scrape = await _scrape(directory, 0, Sample("gateway_token_cache_hits_total", {}, 3))
    (directory / "worker-0.json").unlink()
    directory.rmdir()
    assert _parsed(await scrape.exposition())[_KEY] == 3


def test_every_metric_of_the_catalogue_is_used() -> None:
    """A family that nothing counts would promise what no scrape shows."""
    package = Path(gateway.__file__).parent
    used = {name for path in package.rglob("*.py") if path.name != "catalogue.py" for name in _names_in(path)}
    made = {f"gateway_denylist_{counter}_total" for counter in COUNTERS}
    assert CATALOGUE.keys() <= used | made


def test_a_websocket_is_counted_without_a_duration() -> None:
    """How long its user stayed says nothing about requests; everything else of it counts."""
    metrics = RequestMetrics()
    metrics.record(_exchange(route="chat", status=101, duration_s=3600.0, bytes_in=5))
    metrics.record(_exchange(route="chat", status=200))
    found = _parsed(render(number(metrics.samples())))
    assert found["gateway_request_duration_seconds_count", (("route", "chat"),)] == 1
    assert found["gateway_request_body_bytes_total", (("route", "chat"),)] == 5
    labels = (("code", ""), ("method", "GET"), ("route", "chat"), ("status", "101"))
    assert found["gateway_requests_total", labels] == 1


@given(st.lists(st.floats(0, 60) | st.sampled_from(DURATIONS_S)))
def test_a_bound_holds_what_is_not_above_it(observed: list[float]) -> None:
    """Each bucket counts the observations up to its bound, the bound included; the last one counts all."""
    histogram = Histogram(DURATIONS_S)
    for seconds in observed:
        histogram.observe(seconds)
    shown = {sample.labels.get("le", sample.name): sample.value for sample in histogram.samples("h", {})}
    for bound in DURATIONS_S:
        assert shown[repr(bound)] == sum(seconds <= bound for seconds in observed)
    assert shown["+Inf"] == shown["h_count"] == len(observed)


def test_unknown_methods_share_one_label() -> None:
    """However many a stranger makes up, they are one number."""
    metrics = RequestMetrics()
    for method in ("BREW", "brew", "get", ""):
        metrics.record(_exchange(method=method, status=404))
    counted = [sample for sample in metrics.samples() if sample.name == "gateway_requests_total"]
    assert [(sample.labels["method"], sample.value) for sample in counted] == [("OTHER", 4)]
