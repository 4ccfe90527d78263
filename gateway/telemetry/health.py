"""Whether this gateway should receive traffic, and what to say about it.

*Live* means that the loop answers at all. *Ready* means: not draining, and every dependency has worked once. One
that worked and fails now is *degraded*, and the gateway stays ready: each has a stated behaviour under failure (last
good keys, the replica, the declared policy for staleness), and taking every gateway out of service at once helps
nobody.

    waiting ──first success──▶ ok ◀──▶ degraded
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from gateway.telemetry.sample import Sample

Probe = Callable[[], tuple[bool, str]]
State = Literal["waiting", "ok", "degraded"]


class Dependency(NamedTuple):
    """What one dependency says of itself; `text` is a public sentence."""

    state: State
    text: str


class Readiness:
    """Collects the dependencies' own words. Owned by the application, asked by the admin listener."""

    def __init__(self, probes: Callable[[], Mapping[str, Probe]]) -> None:
        """`probes` gives the dependencies at the moment of asking: name → probe, which gives (works, sentence)."""
        self._probes = probes
        self._worked: set[str] = set()
        self._draining = False
        self._started = False  # everything has worked once

    def begin_drain(self) -> None:
        """Be unready from now on."""
        self._draining = True

    def dependencies(self) -> dict[str, Dependency]:
        """The state of each, by name."""
        found: dict[str, Dependency] = {}
        for name, probe in self._probes().items():
            works, text = probe()
            if works:
                self._worked.add(name)
            state: State = "ok" if works else "degraded" if name in self._worked else "waiting"
            found[name] = Dependency(state, text)
        self._worked &= found.keys()  # an issuer that comes back in a later configuration has to prove itself again
        return found

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether to send traffic here, and the document that says why."""
        found = self.dependencies()
        self._started = self._started or all(dependency.state != "waiting" for dependency in found.values())
        ready = self._started and not self._draining
        status = "draining" if self._draining else "ready" if ready else "starting"
        return ready, {"status": status, "dependencies": {name: item._asdict() for name, item in found.items()}}

    def samples(self) -> Iterator[Sample]:
        """Ready or not, as a number."""
        yield Sample("gateway_ready", {}, float(self.report()[0]))
