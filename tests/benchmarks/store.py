"""A real Redis for the run, holding denylists of the sizes that are measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import redis

from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Process, Site, free_port, wait_until_listening

PREFIX = "gateway:deny:"
_FILL = """
for number = 1, tonumber(ARGV[1]) do
  redis.call('SET', ARGV[2] .. string.sub(redis.sha1hex(ARGV[3] .. number), 1, 22), '1', 'EX', 86400)
end
"""
_ENTRIES_PER_CALL = 20_000


@dataclass(frozen=True)
class Store:
    """The running Redis."""

    process: Process
    port: int

    def fill(self, database: int, entries: int) -> None:
        """Put `entries` denied tokens, none of them among the load's, into one database."""
        with self._client(database) as client:
            client.flushdb()
            for first in range(0, entries, _ENTRIES_PER_CALL):
                count = min(_ENTRIES_PER_CALL, entries - first)
                client.eval(_FILL, 0, str(count), f"{PREFIX}token:main:", f"{first}-")
            held = client.dbsize()
        if held != entries:
            raise RuntimeError(f"the denylist should hold {entries} entries, holds {held}")

    def deny(self, database: int, token_id: str) -> None:
        """Deny one token by its `jti`."""
        with self._client(database) as client:
            client.set(f"{PREFIX}token:main:{token_id}", "1", ex=600)

    def allow(self, database: int, token_id: str) -> None:
        """Take that back."""
        with self._client(database) as client:
            client.delete(f"{PREFIX}token:main:{token_id}")

    def _client(self, database: int) -> redis.Redis:
        return redis.Redis(port=self.port, db=database, socket_timeout=30)


def start(site: Site, programs: Programs) -> Store:
    """Redis on the load's cores, without persistence."""
    port = free_port()
    command: list[str | Path] = [
        *(
            programs.path("redis-server"),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ),
        *("--dir", site.directory),
    ]
    process = site.start("redis", command, site.cores.load)
    wait_until_listening(port, process)
    return Store(process, port)
