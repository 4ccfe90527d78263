"""What needs two places of the file at once: references, ties, files that must exist, settings that defeat each other.

Each check reads `Parts`, which also exists when some sections are wrong: what could be read is checked, so that one run
finds every problem. A finding is an *error* if the gateway could not do what the file says, and a *warning* if it could
but the operator probably does not want it. A module looks at one section, with what that section leans on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.config.checks.denylist import examine_denylist
from gateway.config.checks.exposure import examine_exposure
from gateway.config.checks.files import examine_files
from gateway.config.checks.finding import Finding, Parts, suggestion
from gateway.config.checks.idempotency import examine_idempotency
from gateway.config.checks.issuance import examine_issuance
from gateway.config.checks.issuers import examine_issuers
from gateway.config.checks.routes import examine_routes
from gateway.config.checks.upstreams import examine_upstreams

__all__ = ["Finding", "Parts", "examine_parts", "suggestion"]

_CHECKS: tuple[Callable[[Parts], Iterator[Finding]], ...] = (
    examine_routes,
    examine_issuers,
    examine_issuance,
    examine_upstreams,
    examine_exposure,
    examine_denylist,
    examine_idempotency,
    examine_files,
)


def examine_parts(parts: Parts) -> Iterator[Finding]:
    """Everything that every check finds, in no particular order."""
    for check in _CHECKS:
        yield from check(parts)
