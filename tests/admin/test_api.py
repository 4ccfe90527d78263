"""The admin listener's answers."""

from pathlib import Path

from starlette.testclient import TestClient

from gateway.admin import create_admin
from gateway.telemetry.health import Readiness
from gateway.telemetry.metrics import RequestMetrics, Scrape
from gateway.telemetry.runtime import Runtime


def test_health_and_metrics(tmp_path: Path) -> None:
    """Live whenever it answers, ready as the dependencies say, metrics in Prometheus' format; nothing is cached."""
    works = False
    readiness = Readiness(lambda: {"denylist": lambda: (works, "not loaded yet")})
    scrape = Scrape(Runtime(tmp_path), lambda: [RequestMetrics(), readiness])
    client = TestClient(create_admin(readiness, scrape))

    assert client.get("/health/live").json() == {"status": "live"}

    waiting = client.get("/health/ready")
    assert waiting.status_code == 503
    assert waiting.json()["dependencies"] == {"denylist": {"state": "waiting", "text": "not loaded yet"}}
    works = True
    assert client.get("/health/ready").status_code == 200
    readiness.begin_drain()
    assert client.get("/health/ready").status_code == 503

    metrics = client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert metrics.headers["cache-control"] == "no-store"
    assert "gateway_ready 0.0" in metrics.text

    assert client.head("/health/live").status_code == 200
    assert client.post("/health/live").status_code == 405
    assert client.get("/nothing").status_code == 404
