"""The settings of idempotency: their short forms, where the store is, and routes that cannot have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.listing import listing
from gateway.config.load import Examination, examine
from gateway.idempotency.redis_store import RedisStore
from gateway.idempotency.sqlite_store import SqliteStore
from gateway.idempotency.store import open_store

_FILE = """\
{sections}
issuers:
  main: {{issuer: https://issuer.example, audience: [api], algorithms: [RS256]}}
upstreams: {{app: {{endpoints: ["http://127.0.0.1:9001"]}}}}
routes:
  - {{name: api, path: /api/**, upstream: app, auth: {auth}, idempotency: {idempotency}}}
"""
_DENYLIST = "denylist: {store: 'redis://127.0.0.1:6379/0'}"


def read(folder: Path, idempotency: str, *, auth: str = "required", sections: str = _DENYLIST) -> Examination:
    """The examination of a file with one route."""
    file = folder / "gateway.yaml"
    file.write_text(_FILE.format(sections=sections, auth=auth, idempotency=idempotency))
    return examine(file, {})


def errors(found: Examination) -> list[str]:
    """Path and message of each error."""
    return [f"{problem.path}: {problem.message}" for problem in found.problems if problem.severity == "error"]


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("optional", "optional"),
        ("required", "required"),
        ("'off'", "off"),
        ("false", "off"),
        ("true", "optional"),
        ("{ttl: 1h}", "optional"),
        ("{mode: required, wait: 0s}", "required"),
    ],
)
def test_a_word_is_the_mode(tmp_path: Path, written: str, mode: str) -> None:
    """And a mapping without one means that it is wanted; the listing shows it."""
    config = read(tmp_path, written).config
    assert config is not None
    assert config.routes[0].idempotency.mode == mode
    assert listing(config)[0].get("idempotency", "off") == mode


@pytest.mark.parametrize("auth", ["none", "optional"])
def test_without_a_caller_there_is_nobody_to_answer(tmp_path: Path, auth: str) -> None:
    """An answer that is kept belongs to whoever asked."""
    found = read(tmp_path, "optional", auth=auth)
    assert errors(found) == [
        f"routes[0].idempotency: with `auth: {auth}` there is nobody to whom a kept answer would belong"
    ]
    assert found.problems[0].hint == "write `auth: required`"
    assert errors(read(tmp_path, "false", auth=auth)) == []


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("sometimes", "routes[0].idempotency: must be `off`, `optional` or `required`"),
        ("{ttl: 0s}", "routes[0].idempotency.ttl: must be greater than or equal to 1"),
        ("{max_answer: 1GiB}", "routes[0].idempotency.max_answer: must be less than or equal to"),
        ("{when_unknown: retry}", "routes[0].idempotency.when_unknown: must be `forward` or `refuse`"),
        ("{lease: 1s}", "routes[0].idempotency.lease: unknown key `lease`"),
    ],
)
def test_what_cannot_be(tmp_path: Path, written: str, complaint: str) -> None:
    """Each with its place."""
    found = errors(read(tmp_path, written))
    assert len(found) == 1
    assert found[0].startswith(complaint), found


def test_answers_need_a_place(tmp_path: Path) -> None:
    """The denylist's, or one of their own."""
    none = "server: {listen: 127.0.0.1:8080}"
    assert errors(read(tmp_path, "true", sections=none)) == ["routes[0].idempotency: there is no place to keep answers"]
    assert errors(read(tmp_path, "true", sections="idempotency: {store: 'sqlite://answers.db'}")) == []
    wrong = errors(read(tmp_path, "true", sections="idempotency: {store: 'redis+sentinel://a'}"))
    assert wrong == ["idempotency.store: write redis+sentinel://host:port,host:port/name or …/name/db"]


@pytest.mark.parametrize(
    ("sections", "kind", "file"),
    [
        (_DENYLIST, RedisStore, ""),
        ("denylist: {store: 'sqlite://deny.db'}", SqliteStore, "deny.idempotency.db"),
        ("denylist: {store: 'sqlite://deny.db'}\nidempotency: {store: 'sqlite://own.db'}", SqliteStore, "own.db"),
        ("denylist: {store: 'sqlite://deny.db'}\nidempotency: {store: 'redis://a/1'}", RedisStore, ""),
        ("server: {listen: 127.0.0.1:8080}", type(None), ""),
    ],
)
def test_where_answers_are_kept(tmp_path: Path, sections: str, kind: type, file: str) -> None:
    """With the denylist unless the file says otherwise, and beside an embedded one."""
    config = read(tmp_path, "false", sections=sections).config
    assert config is not None
    store = open_store(config)
    assert type(store) is kind
    if isinstance(store, SqliteStore):
        assert store.path == tmp_path / file


def test_a_password_in_the_address_is_not_shown(tmp_path: Path) -> None:
    """Neither in a `repr` nor in a complaint."""
    config = read(tmp_path, "true", sections="idempotency: {store: 'redis://:hunter22@a/1'}").config
    assert config is not None
    assert "hunter22" not in repr(config)
