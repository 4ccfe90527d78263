"""The watch: every way of replacing the file is noticed, nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.config.watch import ConfigWatch


class Changes:
    """What the watch reported: the file's text at each report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[str] = []
        self.reported = asyncio.Event()
        self.failure: Exception | None = None

    async def note(self) -> None:
        """Called by the watch."""
        self.seen.append(self.path.read_text())
        self.reported.set()
        if self.failure is not None:
            raise self.failure

    async def next(self) -> str:
        """The next report."""
        async with asyncio.timeout(10):
            await self.reported.wait()
        self.reported.clear()
        return self.seen[-1]


@contextlib.asynccontextmanager
async def watching(path: Path, interval_s: float = 0.01) -> AsyncIterator[tuple[ConfigWatch, Changes]]:
    """A running watch on `path`."""
    changes = Changes(path)
    watch = ConfigWatch(path, changes.note, interval_s=interval_s, settle_s=0.001)
    task = asyncio.create_task(watch.run())
    try:
        yield watch, changes
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.asyncio
async def test_an_edit_in_place_is_reported_once(tmp_path: Path) -> None:
    """New content is a change; saving the same content, or touching the file, is none."""
    path = tmp_path / "gateway.yaml"
    path.write_text("a")
    async with watching(path) as (_, changes):
        path.write_text("a")
        os.utime(path, (1, 1))
        path.write_text("b")
        assert await changes.next() == "b"
        path.write_text("c")
        assert await changes.next() == "c"
    assert changes.seen == ["b", "c"]


@pytest.mark.asyncio
async def test_a_rename_over_the_file_is_reported(tmp_path: Path) -> None:
    """Editors write beside the file and rename, also while it is missing for a moment."""
    path = tmp_path / "gateway.yaml"
    path.write_text("a")
    async with watching(path) as (_, changes):
        (tmp_path / "new").write_text("b")
        os.replace(tmp_path / "new", path)
        assert await changes.next() == "b"


@pytest.mark.asyncio
async def test_a_swapped_symlink_is_reported(tmp_path: Path) -> None:
    """A ConfigMap is a link to a link to a folder; only the inner link changes, and all times may be old."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(name)
        os.utime(tmp_path / name / "gateway.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "gateway.yaml").symlink_to("..data/gateway.yaml")
    async with watching(tmp_path / "gateway.yaml") as (_, changes):
        (tmp_path / "..new").symlink_to("two")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        assert await changes.next() == "two"


@pytest.mark.asyncio
async def test_a_poke_reports_at_once_even_without_a_change(tmp_path: Path) -> None:
    """SIGHUP loads again whatever the file refers to."""
    path = tmp_path / "gateway.yaml"
    path.write_text("a")
    async with watching(path, interval_s=3600) as (watch, changes):
        watch.poke()
        assert await changes.next() == "a"


@pytest.mark.asyncio
async def test_a_change_that_cannot_be_applied_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged, and the next change is reported."""
    path = tmp_path / "gateway.yaml"
    path.write_text("a")
    async with watching(path) as (_, changes):
        changes.failure = RuntimeError("cannot apply")
        path.write_text("b")
        assert await changes.next() == "b"
        changes.failure = None
        path.write_text("c")
        assert await changes.next() == "c"
    assert "cannot apply" in caplog.text


@pytest.mark.asyncio
async def test_a_change_between_the_first_load_and_the_first_look_is_not_missed(tmp_path: Path) -> None:
    """What counts is the content when the watch was made, not when it began to run."""
    path = tmp_path / "gateway.yaml"
    path.write_text("a")
    changes = Changes(path)
    watch = ConfigWatch(path, changes.note, interval_s=0.01, settle_s=0.001)
    path.write_text("b")
    task = asyncio.create_task(watch.run())
    assert await changes.next() == "b"
    task.cancel()
