"""`gateway users` and `gateway keys`, as an operator types them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gateway.cli import main

_FILE = """\
denylist: {store: "sqlite://denylist.db"}
issuer:
  url: https://api.example/auth
  store: sqlite://issuer.db
  passwords: {time_cost: 1, memory: 64KiB}
  signing: {encryption_key: "${KEY}"}
upstreams: {app: {endpoints: ["http://127.0.0.1:9001"]}}
routes:
  - {name: api, path: /api/**, upstream: app}
"""


class Operator:
    """Types commands."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "gateway.yaml"
        self.file.write_text(_FILE)
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("KEY", "k" * 32)

    def types(self, line: str, typed: str = "") -> tuple[int, str, str]:
        """Exit status, standard output and standard error of one command."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        words = line.split()
        status = main([words[0], "--config", str(self.file), *words[1:]])
        out, err = self._capsys.readouterr()
        return status, out.strip(), err.strip()


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator with a configuration."""
    return Operator(tmp_path, monkeypatch, capsys)


def test_an_account_from_its_first_to_its_last_day(operator: Operator) -> None:
    """Add, list, roles, claims, password, disable, export, delete: each says what it has done."""
    status, said, _ = operator.types("users add Alice admin ops --email a@example.org", "a good password\n")
    assert (status, said[:13]) == (0, "added: alice ")
    status, said, shown = operator.types("users add bob@example.org --generate-password")
    assert (status, said.startswith("added: bob@example.org"), shown.startswith("password: ")) == (0, True, True)
    rows = [json.loads(line) for line in operator.types("users list")[1].splitlines()]
    assert {(row["username"], row["email"]) for row in rows} == {("alice", "a@example.org"), (None, "bob@example.org")}
    assert operator.types("users roles alice dev")[1] == "roles of alice: dev"
    assert operator.types('users claim alice tenant {"id":7}')[1] == 'tenant of alice: {"id": 7}'
    assert operator.types("users claim alice plan gold")[1] == 'plan of alice: "gold"'
    assert operator.types("users claim alice plan")[1] == "plan of alice: removed"
    assert operator.types("users password alice", "another password\n")[0] == 0
    assert operator.types("users disable alice")[1] == "disabled, sessions ended: alice"
    assert operator.types("users enable alice")[1] == "enabled: alice"
    assert operator.types("users logout alice")[1] == "sessions ended: 0"
    exported = json.loads(operator.types("users export a@example.org")[1])
    assert (exported["username"], exported["roles"], exported["claims"]) == ("alice", ["dev"], {"tenant": {"id": 7}})
    assert operator.types("users delete alice")[1] == "deleted: alice"
    assert len(operator.types("users list")[1].splitlines()) == 1


def test_what_cannot_be_done_says_why(operator: Operator) -> None:
    """Weak passwords, unknown and taken names: status 1; bad usage: status 2."""
    assert operator.types("users add alice", "short\n")[::2] == (1, "gateway users: It has fewer than 8 characters.")
    assert operator.types("users delete nobody")[::2] == (1, "gateway users: There is no such resource.")
    operator.types("users add alice", "a good password\n")
    assert operator.types("users add ALICE", "a good password\n")[::2] == (1, "gateway users: The name is taken.")
    assert operator.types("users add")[::2] == (2, "gateway users: `users add` needs a NAME")
    assert operator.types("users claim alice sub x")[::2] == (2, "gateway users: `sub` is not a free claim")


def test_keys_are_listed_and_rotated(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key is announced, or used at once; nothing private is shown; another encryption key opens nothing."""
    [first] = [json.loads(line) for line in operator.types("keys list")[1].splitlines()]
    assert (first["state"], first["algorithm"]) == ("signs", "ES256")
    assert operator.types("keys rotate")[1].startswith("made: ")
    assert operator.types("keys rotate --now")[1].endswith("it signs at once")
    states = [json.loads(line)["state"] for line in operator.types("keys list")[1].splitlines()]
    assert states == ["verifies", "signs", "announced"]
    assert "private" not in operator.types("keys list")[1]
    monkeypatch.setenv("KEY", "x" * 32)
    status, _, said = operator.types("keys list")
    assert status == 1
    assert "encryption_key" in said


def test_there_must_be_an_issuer(operator: Operator) -> None:
    """A configuration without the section has no accounts and no keys."""
    lines = _FILE.splitlines(keepends=True)
    operator.file.write_text("".join([lines[0], *lines[6:]]).replace("/api/**, ", "/api/**, auth: none, "))
    assert operator.types("users list")[::2] == (2, "gateway users: the configuration has no `issuer`")
