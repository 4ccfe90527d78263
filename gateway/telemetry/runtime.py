"""What the processes of one gateway share: a directory, a worker's number in it, and a key for digests.

Made once by the process that was started, handed to every worker, gone when the gateway ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.telemetry.exchange import Exchange
from gateway.telemetry.sample import Sample, Sampled


def _ignore(_: Exchange) -> None:
    """Stands in until somebody wants the record."""


@dataclass
class Runtime:
    """One worker's place among its siblings.

    `digest_key` is random for each start of the gateway and the same in all its workers: digests of subjects in the log
    can be matched with each other within one run, and not with anything outside it.
    """

    directory: Path  # writable by this user only; workers leave their numbers here for each other
    worker: int = 0
    digest_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    record: Callable[[Exchange], None] = _ignore  # set by the application; gets what the server itself refused
    sources: list[Sampled] = field(default_factory=list)  # what the server counts

    def samples(self) -> Iterable[Sample]:
        """The numbers of everything below the application in this process."""
        for source in self.sources:
            yield from source.samples()
