"""The YAML file as a `Config`, or every problem of it at once.

    text ──document──▶ values with places ──schema──▶ models ──checks──▶ Config
              │                                │                  │
              └── YAML, variables ─────────────┴── keys, types ───┴── references ──▶ problems by line

Nothing stops at the first problem: sections that are valid by themselves are checked against each other even when
others are not. What merely follows from a problem that has been reported is left out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.checks import Finding, Parts, examine_parts
from gateway.config.complaints import findings_of
from gateway.config.document import Document
from gateway.config.document import Path as Place
from gateway.config.issuance import Issuance
from gateway.config.problem import ConfigError, Problem
from gateway.config.schema import (
    SECRET_KEYS,
    Admin,
    Config,
    Denylist,
    Idempotency,
    Identity,
    Issuer,
    Route,
    Server,
    Upstream,
)

__all__ = ["ConfigError", "Examination", "Problem", "examine", "load"]

_FILE_BYTES = 16 * 2**20
_SECRET_BYTES = 64 * 2**10
_log = logging.getLogger("gateway.config")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Examination:
    """What one reading of the file gives: `config` exactly if there are no problems. Both lists are sorted by line."""

    config: Config | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in the file at `path`; warnings go to the log `gateway.config`.

    Raises ConfigError with every problem. `environ` is where `${NAME}` looks.
    """
    found = examine(path, environ)
    if found.config is None:
        raise ConfigError(found.problems)
    for warning in found.warnings:
        _log.warning("%s", warning.brief)
    return found.config


def examine(path: Path, environ: Mapping[str, str] = os.environ) -> Examination:
    """Reads and checks the file at `path`; never raises for anything that is wrong with it."""
    try:
        text = _text(path)
    except OSError as exc:
        hint = "--config FILE names another file" if isinstance(exc, FileNotFoundError) else ""
        return Examination(None, (_unreadable(path, exc.strerror or "cannot be read", hint),), ())
    except ValueError as exc:
        return Examination(None, (_unreadable(path, str(exc)),), ())
    return _examine_text(path, text, environ)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(_FILE_BYTES + 1)
    if len(raw) > _FILE_BYTES:
        raise ValueError("larger than 16 MiB")
    try:
        # Every line ending is one `\n`, so that columns and lines are those an editor shows.
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ValueError(f"line {line} is not UTF-8") from exc


def _unreadable(path: Path, message: str, hint: str = "") -> Problem:
    return Problem(file=str(path), line=0, column=0, path="", message=message, hint=hint)


def _examine_text(path: Path, text: str, environ: Mapping[str, str]) -> Examination:
    document = Document(str(path), text, environ)
    base = path.absolute().parent
    if document.tree is None:
        return Examination(None, tuple(document.problems), ())
    _read_secret_files(document, document.tree, base)
    config, errors = _validated(Config, document.tree, base)
    found = list(document.problems)
    findings = [*(findings_of(errors, Config, document.tree) if errors else ())]
    findings += examine_parts(_parts(document, base) if config is None else _whole(config, document))
    found += [
        document.problem(finding.place, finding.message, finding.hint, on=finding.on, severity=finding.severity)
        for finding in _news(findings, document.faulty)
    ]
    ordered = sorted(dict.fromkeys(found), key=lambda problem: (problem.line, problem.column))
    problems = tuple(problem for problem in ordered if problem.severity == "error")
    warnings = tuple(problem for problem in ordered if problem.severity == "warning")
    return Examination(None if problems else config, problems, warnings)


def _news(findings: list[Finding], faulty: set[Place]) -> Iterator[Finding]:
    """Without what follows from problems of the YAML itself."""
    for finding in findings:
        if not any(finding.place[:depth] in faulty for depth in range(len(finding.place) + 1)):
            yield finding


def _validated(model: type[M], value: Any, base: Path) -> tuple[M | None, ValidationError | None]:
    try:
        return model.model_validate(value, context={"base": base}), None
    except ValidationError as exc:
        return None, exc


def _whole(config: Config, document: Document) -> Parts:
    return Parts(
        server=config.server,
        admin=config.admin,
        denylist=config.denylist,
        has_denylist=config.denylist is not None,
        idempotency=config.idempotency,
        identity=config.identity,
        issuer=config.issuer,
        issuers={name: config.issuers[name] for name in document.tree.get("issuers") or {}},
        upstreams=dict(config.upstreams),
        routes=config.routes,
        written_routes=document.tree["routes"],
        document=document,
    )


def _parts(document: Document, base: Path) -> Parts:
    """The sections one by one, so that one bad section does not hide what is wrong between the others."""
    tree = document.tree if isinstance(document.tree, dict) else {}

    def valid(model: type[M], value: Any) -> M | None:
        return _validated(model, value, base)[0]

    def named(section: str) -> dict[str, Any]:
        found = tree.get(section)
        return found if isinstance(found, dict) else {}

    routes = tree.get("routes")
    return Parts(
        server=valid(Server, tree.get("server", {})),
        admin=valid(Admin, tree.get("admin", {})),
        denylist=valid(Denylist, tree["denylist"]) if tree.get("denylist") is not None else None,
        has_denylist=tree.get("denylist") is not None,
        idempotency=valid(Idempotency, tree.get("idempotency", {})),
        identity=valid(Identity, tree.get("identity", {})),
        issuer=valid(Issuance, tree["issuer"]) if tree.get("issuer") is not None else None,
        issuers={name: valid(Issuer, value) for name, value in named("issuers").items()},
        upstreams={name: valid(Upstream, value) for name, value in named("upstreams").items()},
        routes=[valid(Route, value) for value in routes] if isinstance(routes, list) else [],
        written_routes=routes if isinstance(routes, list) else [],
        document=document,
    )


def _read_secret_files(document: Document, value: Any, base: Path, place: Place = ()) -> None:
    """Puts the content of the file in the place of each `{file: path}` under a key that holds a secret."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _read_secret_files(document, item, base, (*place, index))
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        here = (*place, key)
        if key in SECRET_KEYS and isinstance(item, dict):
            try:
                value[key] = _secret(item, base)
            except (OSError, ValueError) as exc:
                reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
                document.faulty.add(here)
                at = (*here, "file") if document.stands((*here, "file")) else here
                document.problems.append(document.problem(at, reason, "write {file: path} or ${NAME}"))
        else:
            _read_secret_files(document, item, base, here)


def _secret(reference: dict[str, Any], base: Path) -> bytes:
    if set(reference) != {"file"} or not isinstance(reference["file"], str):
        raise ValueError("a secret is text, or a mapping with the one key `file`")
    path = base / reference["file"]
    with path.open("rb") as file:
        content = file.read(_SECRET_BYTES + 1)
    if len(content) > _SECRET_BYTES:
        raise ValueError(f"{path} is larger than 64 KiB")
    content = content.removesuffix(b"\n").removesuffix(b"\r")  # the one that editors and `echo` add
    if not content:
        raise ValueError(f"{path} is empty")
    return content
