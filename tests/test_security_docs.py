"""The threat model is held to what it says: each threat has a defence and tests, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

_ROOT = Path(__file__).parents[1]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_ATTACKERS = {
    "An anonymous client",
    "A signed-in user",
    "Whoever has stolen a token",
    "A malicious or broken upstream",
    "Somebody on the network",
    "Another user of the machine",
    "Whoever can read Redis, the store, the log or the disk",
    "A malicious web page",
    "A malicious OAuth client, or somebody who plays one",
}


class Threat(NamedTuple):
    """A row of the model."""

    attacker: str
    what: str
    defence: str
    tests: list[tuple[str, str]]
    rest: str  # of the column of tests

    def __str__(self) -> str:
        return f"{self.attacker}: {self.what}"


def _threats() -> Iterator[Threat]:
    text = (_ROOT / "docs/security.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        attacker, _, body = section.partition("\n")
        if "| Threat | What defends | Tests |" not in body:
            continue
        rows = [line for line in body.splitlines() if line.startswith("|")][2:]
        for row in rows:
            what, defence, tests = (cell.strip() for cell in row.strip().strip("|").split("|"))
            yield Threat(attacker, what, defence, _TEST.findall(tests), _TEST.sub("", tests).strip())


_THREATS = list(_threats())


@cache
def _tests_of(path: str) -> frozenset[str]:
    """The names of the tests that pytest would collect in a file."""
    tree = ast.parse((_ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_attacker_is_there() -> None:
    """A section without rows would pass for a model."""
    assert {threat.attacker for threat in _THREATS} == _ATTACKERS
    assert len(_THREATS) > 70


@pytest.mark.parametrize("threat", _THREATS, ids=str)
def test_every_threat_has_a_defence_and_a_test(threat: Threat) -> None:
    """In a form that can be checked."""
    assert threat.what
    assert threat.defence
    assert threat.tests
    assert threat.rest == "", "this is not the name of a test"


@pytest.mark.parametrize("threat", _THREATS, ids=str)
def test_every_test_that_is_named_exists(threat: Threat) -> None:
    """Renaming a test means renaming it in the model too."""
    missing = [
        f"{path}::{name}" for path, name in threat.tests if not (_ROOT / path).is_file() or name not in _tests_of(path)
    ]
    assert missing == []


def test_the_way_to_report_leads_to_the_model_and_back() -> None:
    """Whoever finds one of the two finds the other."""
    assert "docs/security.md" in (_ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "../SECURITY.md" in (_ROOT / "docs/security.md").read_text(encoding="utf-8")
