"""YAML files for tests: a whole valid one, and the short way to what is wrong with a changed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.config.load import Examination, examine

VALID = """\
server:
  listen: 127.0.0.1:8080
denylist:
  store: redis://127.0.0.1:6379/0
issuers:
  main:
    issuer: https://issuer.example
    audience: [api]
    algorithms: [RS256]
identity:
  headers:
    x-user-id: sub
upstreams:
  orders:
    endpoints: [http://127.0.0.1:9001]
routes:
  - name: api
    path: /api/**
    upstream: orders
"""


def examined(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Examination:
    """What a file `gateway.yaml` with this text gives."""
    path = folder / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    return examine(path, environ or {})


def complaints(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Its problems as `line:column path: message`, with the hint behind ` = ` where there is one."""
    found = examined(folder, text, environ)
    return [
        f"{problem.line}:{problem.column} {problem.path}: {problem.message}"
        + (f" = {problem.hint}" if problem.hint else "")
        for problem in found.problems
    ]
