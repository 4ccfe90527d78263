"""The replica on disk: restored as it was, or reported and left alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.denylist.group import Known
from gateway.denylist.history import Coverage, History
from gateway.denylist.replica import Replica
from gateway.denylist.snapshot import Snapshot

pytestmark = pytest.mark.asyncio

NOW = 1_800_000_000.0
ENTRIES = [
    Known("token:main:a:b", "1", NOW + 60),
    Known("token:main:ü\udcff\n", "1", None),
    Known("subject:main:ada", "1700000000.125", NOW + 60),
    Known("issuer:other", "all", NOW + 60),
]


def open_snapshot(path: Path, prefix: str = "gateway:deny:", now: float = NOW, monotonic: float = 500.0) -> Snapshot:
    """A snapshot with a fresh replica, at a moment of both clocks."""
    replica = Replica(prefix, monotonic=lambda: monotonic)
    return Snapshot(path, replica, Coverage(), wall=lambda: now, monotonic=lambda: monotonic)


async def save(path: Path, count: int = 0) -> None:
    """Write a snapshot of `ENTRIES` and of `count` more."""
    snapshot = open_snapshot(path)
    for entry in ENTRIES:
        snapshot._replica.put(*entry)
    for number in range(count):
        snapshot._replica.put(f"session:main:s{number}", "1", NOW + 30)
    snapshot._replica.touch(490.0)
    snapshot._coverage.settle(range(100), History("run-1", "r"))
    snapshot._coverage.settle(range(100, 16384), History("run-2", "r"))
    assert await snapshot.save()


async def test_what_was_saved_is_restored(tmp_path: Path) -> None:
    """Entries with any bytes in their keys, the histories, and how stale the writer was, plus the time since."""
    path = tmp_path / "folder" / "snapshot"
    await save(path, count=5000)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["snapshot"]  # no temporary file is left
    again = open_snapshot(path, now=NOW + 7, monotonic=50.0)
    assert await again.restore()
    replica = again._replica
    known = [entry for slice_ in replica.everything() for entry in slice_]
    assert {entry for entry in known if not entry.key.startswith("session:")} == set(ENTRIES)
    assert len(replica) == 5004
    assert replica.loaded
    assert replica.status.mode == "restored"
    assert replica.staleness_s(50.0) == pytest.approx(17)
    assert again._coverage.to_json() == [[0, 99, "run-1", "r", ""], [100, 16383, "run-2", "r", ""]]


async def test_what_has_ended_meanwhile_is_left_out(tmp_path: Path) -> None:
    """Only the entry without an end is left after an hour."""
    await save(tmp_path / "snapshot")
    again = open_snapshot(tmp_path / "snapshot", now=NOW + 3600)
    assert await again.restore()
    assert len(again._replica) == 1


async def test_no_file_is_no_trouble(tmp_path: Path) -> None:
    """The first start of a gateway."""
    snapshot = open_snapshot(tmp_path / "snapshot")
    assert not await snapshot.restore()
    assert snapshot._replica.status.troubles == {}


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not a snapshot of this version"),
    "cut short": (lambda data: data[:-1], "checksum"),
    "cut to its head": (lambda data: data[:40], "checksum"),
    "longer": (lambda data: data + b"x", "checksum"),
    "one bit changed": (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "checksum"),
    "another version": (lambda data: data.replace(b"snapshot 1", b"snapshot 2", 1), "not a snapshot of this version"),
    "something else": (lambda data: b"\x00" * 5000, "not a snapshot of this version"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_reported_and_ignored(tmp_path: Path, damage: str) -> None:
    """Nothing of it is taken in, and the file is left for whoever wants to look at it."""
    path = tmp_path / "snapshot"
    await save(path)
    change, reason = DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    snapshot = open_snapshot(path)
    assert not await snapshot.restore()
    assert reason in snapshot._replica.status.troubles["snapshot"]
    assert len(snapshot._replica) == 0
    assert not snapshot._replica.loaded
    assert path.exists()


async def test_a_file_of_another_prefix_is_ignored(tmp_path: Path) -> None:
    """Its entries would be written back under the wrong keys."""
    await save(tmp_path / "snapshot")
    snapshot = open_snapshot(tmp_path / "snapshot", prefix="other:")
    assert not await snapshot.restore()
    assert "another prefix" in snapshot._replica.status.troubles["snapshot"]


async def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """And counted; the gateway goes on."""
    (tmp_path / "file").write_text("in the way")
    snapshot = open_snapshot(tmp_path / "file" / "snapshot")
    assert not await snapshot.save()
    assert snapshot._replica.status.counts["snapshot_failures"] == 1
    assert "cannot be written" in snapshot._replica.status.troubles["snapshot"]


async def test_a_failed_save_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file takes the place of the old one only when it is complete."""
    path = tmp_path / "snapshot"
    await save(path)
    before = path.read_bytes()
    snapshot = open_snapshot(path)
    snapshot._replica.put(*ENTRIES[0])

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    assert not await snapshot.save()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot"]
