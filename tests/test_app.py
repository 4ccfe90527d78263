"""The composition root: what runs beside requests, and what a changed file does."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.app import App, create_app
from gateway.config.load import load
from gateway.telemetry.runtime import Runtime
from gateway.upstream.endpoints import Upstream

pytestmark = pytest.mark.asyncio

TEXT = """\
telemetry: {access_log: {destination: "off"}}
denylist: {store: "sqlite:///FOLDER/denylist.db"}
issuers:
  main: {issuer: https://i.example, secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, audience: [api], algorithms: [HS256]}
upstreams:
  app: {endpoints: [http://127.0.0.1:9001]}
routes:
  - {name: one, path: /one, upstream: app}
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """A configuration with an embedded denylist, so that nothing else has to run."""
    path = tmp_path / "gateway.yaml"
    path.write_text(TEXT.replace("FOLDER", str(tmp_path)))
    return path


@pytest.fixture
def app(config_path: Path, tmp_path: Path) -> App:
    """An application that is not running yet."""
    (tmp_path / "runtime").mkdir()
    return create_app(load(config_path), config_path, Runtime(tmp_path / "runtime"))


def numbers(app: App) -> dict[str, float]:
    """What the application counts, by metric and label values."""
    return {".".join((name, *labels.values())): value for name, labels, value in app.samples()}


async def test_it_is_ready_once_its_dependencies_have_worked_and_not_while_it_drains(app: App) -> None:
    """The denylist is loaded before the first request; draining is announced at once."""
    assert not app.readiness.report()[0]
    async with app.lifespan():
        assert app.readiness.report()[0]
        app.begin_drain()
        assert app.readiness.report() == (False, {**app.readiness.report()[1], "status": "draining"})


async def test_a_changed_file_becomes_the_next_generation(app: App, config_path: Path) -> None:
    """The swap is one assignment; what did not change is carried over."""
    async with app.lifespan():
        first = app.current
        config_path.write_text(config_path.read_text().replace("path: /one", "path: /two"))
        await app.apply()
        assert app.current is not first
        assert app.current.config.routes[0].path == "/two"
        assert app.current.upstreams["app"] is first.upstreams["app"]
        assert numbers(app)["gateway_config_reloads_total.ok"] == 1


@pytest.mark.parametrize("text", ["routes: [", "", "routes: []\n", TEXT.replace("upstream: app", "upstream: apq")])
async def test_a_file_that_cannot_be_used_changes_nothing_and_says_why(
    app: App, config_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway goes on as before; the log has the line, the metric the count."""
    async with app.lifespan():
        first = app.current
        config_path.write_text(text)
        await app.apply()
        assert app.current is first
        assert numbers(app)["gateway_config_reloads_total.refused"] == 1
        assert "gateway.yaml:" in caplog.text


async def test_the_static_half_waits_for_a_restart(
    app: App, config_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed limit is not half in force: it is named, and the old one counts."""
    async with app.lifespan():
        config_path.write_text("server: {limits: {body_bytes: 1KiB}}\n" + config_path.read_text())
        await app.apply()
        assert "changes to server need a restart" in caplog.text
        assert app.current.pipeline.routes.match("GET", b"h", b"/one").body_limit == 10 * 2**20


async def test_a_leaving_upstream_is_closed_after_the_last_request_that_may_use_it(app: App, config_path: Path) -> None:
    """The retired generation keeps its connections while it has requests in flight."""
    async with app.lifespan():
        first = app.current
        first.in_flight += 1
        closed = asyncio.Event()

        class Noted(Upstream):
            async def close(self, grace_s: float) -> None:
                closed.set()
                await super().close(grace_s)

        first.upstreams["app"] = Noted("app", first.config.upstreams["app"])
        config_path.write_text(config_path.read_text().replace("127.0.0.1:9001", "127.0.0.1:9002"))
        await app.apply()
        await asyncio.sleep(0)
        assert not closed.is_set()
        first.leave()
        await asyncio.wait_for(closed.wait(), 5)


async def test_background_work_that_fails_is_started_again(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in a task beside the requests is logged and counted; it never ends the gateway."""
    monkeypatch.setattr("gateway.app.RESTART_S", 0.0)
    tries = asyncio.Queue[int]()

    class Fragile:
        async def run(self) -> None:
            tries.put_nowait(1)
            if tries.qsize() < 3:
                raise ZeroDivisionError
            await asyncio.Event().wait()

    caplog.set_level(logging.CRITICAL)
    async with app.lifespan():
        app.start(Fragile())
        async with asyncio.timeout(5):
            while tries.qsize() < 3:
                await asyncio.sleep(0)
        assert numbers(app)["gateway_background_faults_total"] == 2
