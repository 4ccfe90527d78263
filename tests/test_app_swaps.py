"""Swap after swap: which generation is in use, and when what a swap drops is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import gateway.app
from gateway.app import App, create_app
from gateway.config.load import load
from gateway.telemetry.runtime import Runtime
from tests.edge import RecordingUpstream, SeenRequest, answer_ok

pytestmark = pytest.mark.asyncio

CONFIG = """
telemetry: {{access_log: {{destination: "off"}}}}
upstreams:
  {upstream}: {{endpoints: ["{url}"]}}
routes:
  - {{name: {route}, path: "/**", upstream: {upstream}, auth: none}}
"""


class Conversation:
    """One request put to the application as a server would, and the body of its answer."""

    def __init__(self, app: App) -> None:
        self.body = b""
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "raw_path": b"/a",
            "path": "/a",
            "query_string": b"",
            "headers": [(b"host", b"a")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.body += message.get("body", b"")


async def until_seen(upstream: RecordingUpstream, count: int) -> None:
    """Wait for a number of requests to arrive."""
    async with asyncio.timeout(5):
        while len(upstream.seen) < count:
            await asyncio.sleep(0.005)  # the upstream only remembers, it does not tell


def numbers(app: App) -> dict[str, float]:
    """The application's own numbers without labels."""
    return {name: value for name, labels, value in app.samples() if not labels}


async def test_an_upstream_is_closed_after_the_last_request_of_every_generation_that_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carried over by one swap and dropped by the next, it still serves a request that is older than both."""
    monkeypatch.setattr(gateway.app, "CLOSE_S", 0.05)
    go_on = asyncio.Event()

    async def answer_later(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await answer_ok(seen, reader, writer)

    upstream = await RecordingUpstream.start(answer_later)
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.format(upstream="first", route="one", url=upstream.url))
    app = create_app(load(path), path, Runtime(tmp_path))
    async with app.lifespan():
        first = app.current
        old = Conversation(app)
        await until_seen(upstream, 1)
        path.write_text(CONFIG.format(upstream="first", route="two", url=upstream.url))
        await app.apply()
        assert app.current.upstreams == first.upstreams
        path.write_text(CONFIG.format(upstream="second", route="three", url=upstream.url))
        await app.apply()
        assert "first" not in app.current.upstreams
        await asyncio.sleep(0.2)  # four times what a dropped upstream is given
        assert not old.task.done()
        go_on.set()
        await asyncio.wait_for(old.task, 5)
        assert old.body == b"ok"
        async with asyncio.timeout(5):
            while upstream.open_connections:  # and then its connections are closed
                await asyncio.sleep(0.005)
    await upstream.close()


async def test_the_generation_in_use_is_numbered_and_dated(tmp_path: Path) -> None:
    """A swap moves both on; a file that is refused moves neither."""
    path = tmp_path / "gateway.yaml"
    text = CONFIG.format(upstream="first", route="one", url="http://127.0.0.1:1")
    path.write_text(text)
    app = create_app(load(path), path, Runtime(tmp_path))
    async with app.lifespan():
        start = numbers(app)
        assert start["gateway_config_generation"] == 1
        path.write_text(text.replace("name: one", "name: two"))
        await app.apply()
        swapped = numbers(app)
        assert swapped["gateway_config_generation"] == 2
        assert swapped["gateway_config_loaded_timestamp_seconds"] > start["gateway_config_loaded_timestamp_seconds"]
        path.write_text("routes: 1")
        await app.apply()
        assert numbers(app) == swapped
