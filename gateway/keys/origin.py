"""Where a key set comes from, as far as its keeper needs to know, and the origin that is a file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MAX_DOCUMENT_BYTES = 2**20  # a hundred RSA keys with certificates are a fifth of it


class OriginFailed(Exception):
    """No document now; the text says why, without secrets, for log and health page."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JWK set as received, and for how long it may be used before it is loaded again."""

    octets: bytes
    lifetime_s: float | None  # seconds; None: the origin does not say


class Origin(Protocol):
    """A place to load a key set from; one load at a time."""

    async def load(self) -> Document:
        """The present document; OriginFailed if there is none. The caller sets the deadline."""


class FileOrigin:
    """A key set in a file. Read each second rather than watched: it is a few kilobytes, a rewrite within the clock's
    granularity is not missed, and the symbolic link that a ConfigMap swaps needs no special care."""

    LOOK_EVERY_S = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Document:
        """The file's content; reading happens in a thread, because a network file system may take its time."""
        try:
            octets = await asyncio.to_thread(self._read)
        except OSError as exc:
            raise OriginFailed(f"{self._path}: {exc.strerror or type(exc).__name__}") from exc
        if len(octets) > MAX_DOCUMENT_BYTES:
            raise OriginFailed(f"{self._path}: larger than 1 MiB")
        return Document(octets, self.LOOK_EVERY_S)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
