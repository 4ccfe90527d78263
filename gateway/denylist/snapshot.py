"""The replica on disk, so that a gateway that starts while its store is down still denies what it knew.

    magic line │ header: one line of JSON │ records │ BLAKE2b over all of that

A record is the end of the entry (epoch seconds as a double; 0: never), the lengths of key and value, and both. The
file is written beside its place and moved there, so a reader sees the old or the new one; one that is cut short,
altered or of another version or prefix is reported and ignored. All workers of a machine share the file: each knows
everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Self

from gateway.config.schema import Denylist
from gateway.denylist.group import Known
from gateway.denylist.history import Coverage
from gateway.denylist.replica import Replica

_MAGIC: Final = b"gateway denylist snapshot 1\n"
_RECORD: Final = struct.Struct("<dIH")
_DIGEST_BYTES: Final = 32
_CHUNK: Final = 1 << 20
_LONGEST_HEADER: Final = 1 << 22
_INTERVAL_S: Final = 5.0
_REST: Final = 20  # a save that took a second is followed by at least twenty without one
_log = logging.getLogger("gateway.denylist")


class SnapshotDamaged(Exception):
    """The file cannot be used; the text says why."""


class Snapshot:
    """The snapshot file of one replica. What cannot be read or written is reported; nothing raises for it."""

    def __init__(
        self,
        path: Path,
        replica: Replica,
        coverage: Coverage,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._replica = replica
        self._coverage = coverage
        self._wall = wall
        self._monotonic = monotonic
        self._saved_version = -1

    @classmethod
    def of(
        cls,
        config: Denylist,
        replica: Replica,
        coverage: Coverage,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> Self | None:
        """The one that the configuration names; None if it names none."""
        if config.snapshot is None:
            return None
        return cls(config.snapshot, replica, coverage, wall=wall, monotonic=monotonic)

    async def restore(self) -> bool:
        """Take in the file's entries that have not ended; False if there is no usable file.

        The replica then counts as loaded, and as stale as the gateway that wrote the file was, plus the time since.
        """
        try:
            file = await asyncio.to_thread(self._path.open, "rb")
        except FileNotFoundError:
            return False
        except OSError as fault:
            self._report(f"the snapshot cannot be read ({fault.strerror})")
            return False
        with file:
            try:
                await self._take_in(file)
            except (SnapshotDamaged, OSError) as fault:
                self._report(f"the snapshot is ignored: {fault}")
                return False
        self._saved_version = self._replica.version
        _log.info("denylist: %d entries restored from the snapshot", len(self._replica))
        return True

    async def run(self) -> None:
        """Save every few seconds if anything changed, and once more when cancelled."""
        wait = _INTERVAL_S / 5
        try:
            while True:
                await asyncio.sleep(wait)
                started = self._monotonic()
                if self._is_due():
                    await self.save()
                wait = max(_INTERVAL_S, _REST * (self._monotonic() - started))
        finally:
            if self._replica.version != self._saved_version and self._replica.loaded:
                await self.save()

    async def save(self) -> bool:
        """Write the file; False, reported and counted, if that fails."""
        version = self._replica.version
        try:
            await self._write()
        except OSError as fault:
            self._replica.status.count("snapshot_failures")
            self._report(f"the snapshot cannot be written ({fault.strerror})")
            return False
        self._saved_version = version
        self._replica.status.count("snapshots_written")
        self._replica.status.report("snapshot", None)
        return True

    def _is_due(self) -> bool:
        if self._replica.version == self._saved_version or not self._replica.loaded:
            return False
        try:
            age = self._wall() - self._path.stat().st_mtime
        except OSError:
            return True
        return not 0 <= age < _INTERVAL_S / 2  # another worker has just written it

    def _report(self, sentence: str) -> None:
        if self._replica.status.report("snapshot", sentence):
            _log.warning("denylist: %s", sentence)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _take_in(self, file: IO[bytes]) -> None:
        size = await asyncio.to_thread(_verify, file)
        header = _read_header(file)
        if header.get("prefix") != self._replica.prefix:
            raise SnapshotDamaged("it belongs to another prefix")
        end = size - _DIGEST_BYTES
        now = self._wall()
        mark = self._replica.next_mark()
        for records in _records(file, end):
            for known in records:
                if known.expires_at is None or known.expires_at > now:
                    self._replica.put(known.key, known.value, known.expires_at, mark)
            await asyncio.sleep(0)
        self._coverage.restore(header["coverage"])
        self._replica.loaded = True
        self._replica.status.mode = "restored"
        if (contact := header.get("contact")) is not None and contact <= now:
            self._replica.touch(self._monotonic() - (now - contact))

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        await asyncio.to_thread(self._path.parent.mkdir, parents=True, exist_ok=True)
        descriptor, name = await asyncio.to_thread(
            tempfile.mkstemp, prefix=f".{self._path.name}.", dir=self._path.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                await self._write_to(file)
            await asyncio.to_thread(os.replace, name, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    async def _write_to(self, file: IO[bytes]) -> None:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

        def write(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        staleness = self._replica.staleness_s(self._monotonic())
        header = {
            "prefix": self._replica.prefix,
            "contact": None if staleness == float("inf") else self._wall() - staleness,
            "coverage": self._coverage.to_json(),
        }
        await asyncio.to_thread(write, _MAGIC + json.dumps(header).encode() + b"\n")
        for entries in self._replica.everything():
            # In slices: a turn of the loop costs a millisecond or two, and the file costs none.
            await asyncio.to_thread(write, b"".join(map(_record, entries)))
        await asyncio.to_thread(_finish, file, digest.digest())


def _record(known: Known) -> bytes:
    key = known.key.encode("utf-8", "surrogateescape")
    value = known.value.encode("ascii")
    return _RECORD.pack(known.expires_at or 0.0, len(key), len(value)) + key + value


def _finish(file: IO[bytes], digest: bytes) -> None:
    file.write(digest)
    file.flush()
    os.fsync(file.fileno())


def _verify(file: IO[bytes]) -> int:
    """The file's size, read to its end once; raises `SnapshotDamaged` unless its digest is right."""
    size = os.fstat(file.fileno()).st_size
    if file.read(len(_MAGIC)) != _MAGIC:
        raise SnapshotDamaged("it is not a snapshot of this version")
    digest = hashlib.blake2b(_MAGIC, digest_size=_DIGEST_BYTES)
    left = size - len(_MAGIC) - _DIGEST_BYTES
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    if left != 0 or file.read(_DIGEST_BYTES + 1) != digest.digest():
        raise SnapshotDamaged("its checksum is wrong")
    file.seek(len(_MAGIC))
    return size


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(file.readline(_LONGEST_HEADER))
    except ValueError as error:
        raise SnapshotDamaged("its header cannot be read") from error
    if not isinstance(header, dict) or not isinstance(header.get("coverage"), list):
        raise SnapshotDamaged("its header cannot be read")
    return header


def _records(file: IO[bytes], end: int) -> Iterator[list[Known]]:
    rest = b""
    while (left := end - file.tell()) > 0:
        rest += file.read(min(_CHUNK // 16, left))
        records, used = _parse(rest)
        rest = rest[used:]
        yield records
    if rest:
        raise SnapshotDamaged("its last record is cut short")


def _parse(buffer: bytes) -> tuple[list[Known], int]:
    records: list[Known] = []
    offset = 0
    while offset + _RECORD.size <= len(buffer):
        expires_at, key_bytes, value_bytes = _RECORD.unpack_from(buffer, offset)
        start = offset + _RECORD.size
        end = start + key_bytes + value_bytes
        if end > len(buffer):
            break
        key = buffer[start : start + key_bytes].decode("utf-8", "surrogateescape")
        value = buffer[start + key_bytes : end].decode("ascii", "replace")
        records.append(Known(key, value, expires_at or None))
        offset = end
    return records, offset
