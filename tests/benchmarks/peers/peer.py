"""What a benchmark knows of a proxy: its name, its configuration for a setting, and what it checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.provision import Programs
from tests.benchmarks.tokens import KeyFiles

IDLE_CONNECTIONS = 10_000
STREAMS = 1_000

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Setting:
    """Where a proxy runs: its own directory, its port, the upstream's port, the key, and the
    denylist's address for those that use one."""

    programs: Programs
    directory: Path
    port: int
    admin_port: int
    upstream_port: int
    keys: KeyFiles
    denylist_store: str | None = None

    def write(self, name: str, text: str) -> Path:
        """Write one configuration file into the proxy's directory."""
        path = self.directory / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Peer:
    """A proxy: `prepare` writes its configuration and gives its command; it may raise `provision.Missing`."""

    name: str
    title: str
    checks: str
    prepare: Callable[[Setting], Command]
    verifies: bool = True
    uses_denylist: bool = False
