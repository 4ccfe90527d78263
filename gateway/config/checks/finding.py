"""What the checks read and what they find."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway.config.document import Document
from gateway.config.document import Path as Place
from gateway.config.issuance import Issuance
from gateway.config.schema import Admin, Denylist, Idempotency, Identity, Issuer, Route, Server, Upstream
from gateway.config.values import is_loopback_host


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections that are valid by themselves; None where the file's own are not."""

    server: Server | None
    admin: Admin | None
    denylist: Denylist | None
    has_denylist: bool
    idempotency: Idempotency | None
    identity: Identity | None
    issuer: Issuance | None
    issuers: dict[str, Issuer | None]  # without the built-in one
    upstreams: dict[str, Upstream | None]
    routes: Sequence[Route | None]
    written_routes: Sequence[Any]  # as they stand in the file, valid or not
    document: Document


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, by its place in the tree."""

    place: Place
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"
    on: Literal["value", "key"] = "value"


def suggestion(given: str, allowed: Iterable[str]) -> str:
    """`did you mean …?` if something close is allowed, else what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"there is {', '.join(f'`{name}`' for name in names)}" if names else ""


def mappings(items: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The items that are mappings, with their index."""
    return ((index, item) for index, item in enumerate(items) if isinstance(item, dict))


def is_clear_text(url: str) -> bool:
    """Whether what is fetched from `url` can be read and replaced by whoever is on the way."""
    parsed = urlsplit(url)
    return parsed.scheme == "http" and not is_loopback_host(parsed.hostname or "")


def written_secret(place: Place, parts: Parts) -> Iterator[Finding]:
    """A secret at `place` that stands in the file itself."""
    if place in parts.document.literal:
        message = "a secret written into the file is read by everyone who reads the file"
        yield Finding(place, message, "write ${NAME} or {file: path}", severity="warning")


def missing_folder(place: Place, file: Path) -> Iterator[Finding]:
    """A file at `place` that could not be made, because its folder is not there; on the serving machine it may be."""
    if not file.parent.is_dir():
        yield Finding(place, f"the folder {file.parent} does not exist here", severity="warning")


def folder_of_sqlite(place: Place, store: str) -> Iterator[Finding]:
    """An embedded store at `place` whose folder is not there."""
    path = store.removeprefix("sqlite://")
    if path != store:
        yield from missing_folder(place, Path(path))
