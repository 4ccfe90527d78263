"""The commands, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway import __version__, build
from gateway.cli import build_parser, main
from tests.config.writing import VALID
from tests.redis_server import RedisServer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A valid file."""
    path = tmp_path / "gateway.yaml"
    path.write_text(VALID)
    return path


def _run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_help_leads_a_newcomer_to_the_first_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends well and names demo, check and serve; without a command it is an error that shows the same."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for step in ("gateway demo", "gateway check", "gateway serve"):
        assert step in text
    status, out, err = _run(capsys)
    assert (status, out) == (2, "")
    assert "gateway demo" in err


def test_the_version_is_the_packages() -> None:
    """`python -m gateway` is the command too; it says whether the request path is compiled."""
    done = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gateway {__version__} ({build()})\n"


@pytest.mark.parametrize(
    "argv",
    [["serv"], ["check", "--confg", "x"], ["revoke", "user", "main", "a"], ["explain", "GET"], ["serve", "extra"]],
)
def test_bad_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands, options and kinds are refused; options are never abbreviated."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage: gateway" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["check"], ["routes"], ["serve"], ["revoke", "token", "main", "a"], ["explain", "GET", "/"]]
)
def test_a_bad_file_ends_every_command_with_2(argv: list[str], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever reads the configuration names its problems first."""
    file.write_text(VALID.replace("upstream: orders", "upstream: order"))
    status, out, err = _run(capsys, *argv, "--config", str(file))
    assert status == 2
    assert f"{file}:19:15: routes[0].upstream: no upstream is called `order`" in out + err
    assert "did you mean `orders`?" in out + err


def test_without_config_the_default_file_is_used_and_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`./config/gateway.yaml`, and the first line says so."""
    folder = file.parent / "config"
    folder.mkdir()
    file.rename(folder / "gateway.yaml")
    monkeypatch.chdir(folder.parent)
    status, out, err = _run(capsys, "check")
    assert status == 0
    assert "./config/gateway.yaml (the default; --config FILE names another)" in err
    assert out == "config/gateway.yaml: ok: 1 route, 1 upstream, 1 issuer, denylist redis\n"


def test_check_speaks_json_for_pipelines(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Problems with their places; exit status as for people."""
    status, out, _ = _run(capsys, "check", "--config", str(file), "--format", "json")
    assert (status, json.loads(out)) == (0, {"ok": True, "problems": []})
    file.write_text(VALID.replace("[api]", "api"))
    status, out, _ = _run(capsys, "check", "--config", str(file), "--format", "json")
    (problem,) = json.loads(out)["problems"]
    assert status == 2
    assert (problem["line"], problem["column"], problem["path"]) == (8, 15, "issuers.main.audience")
    assert problem["severity"] == "error"


def test_warnings_count_only_with_strict(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning is shown and passes, unless asked otherwise."""
    file.write_text(VALID.replace("https://issuer.example", "http://issuer.example"))
    status, out, _ = _run(capsys, "check", "--config", str(file))
    assert status == 0
    assert ": warning: issuers.main.issuer: keys fetched over plain http" in out
    assert out.endswith("denylist redis; 1 warning\n")
    assert _run(capsys, "check", "--strict", "--config", str(file))[0] == 2


def test_routes_are_listed_as_they_match(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact hosts before suffixes before any; literal segments before parameters before the rest."""
    routes = """\
  - {name: rest, path: /**, upstream: orders}
  - {name: user, path: "/users/{id}", upstream: orders, auth: {scopes: [admin]}}
  - {name: me, path: /users/me, upstream: orders, methods: [GET, PATCH]}
  - {name: sub, host: "*.example.org", path: /**, upstream: orders, auth: none}
  - {name: exact, host: a.example.org, path: /**, upstream: orders, auth: optional}
"""
    file.write_text(VALID[: VALID.index("  - name: api")] + routes)
    status, out, _ = _run(capsys, "routes", "--config", str(file))
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "METHODS", "HOST", "PATH", "AUTH", "UPSTREAM"],
        ["exact", "any", "a.example.org", "/**", "optional", "orders"],
        ["sub", "any", "*.example.org", "/**", "none", "orders"],
        ["me", "GET,PATCH", "any", "/users/me", "required", "orders"],
        ["user", "any", "any", "/users/{id}", "required:", "scope", "admin", "orders"],
        ["rest", "any", "any", "/**", "required", "orders"],
    ]
    status, out, _ = _run(capsys, "routes", "--format", "json", "--config", str(file))
    assert [row["name"] for row in json.loads(out)] == ["exact", "sub", "me", "user", "rest"]


def test_schema_prints_json_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The editor's schema, and the manual's table of the same settings."""
    status, out, _ = _run(capsys, "schema")
    assert status == 0
    assert "routes" in json.loads(out)["properties"]
    status, out, _ = _run(capsys, "schema", "--format", "markdown")
    assert status == 0
    assert "| `server.limits.head_timeout` | duration | `10s` |" in out


def test_a_reader_that_leaves_is_no_failure_to_shout_about() -> None:
    """`gateway schema | head -1` ends without a traceback."""
    command = f"{sys.executable} -m gateway schema | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_revoke_writes_the_key_that_gateways_read(
    file: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Key grammar, value and time to live are those of the contract; `--undo` takes the entry out again."""
    file.write_text(VALID.replace("redis://127.0.0.1:6379/0", redis_server.url))
    before = time.time()
    status, out, _ = _run(capsys, "revoke", "subject", "main", "alice:b", "--ttl", "15m", "--config", str(file))
    assert (status, out) == (0, "revoked: subject:main:alice:b (for 15m)\n")
    key = "gateway:deny:subject:main:alice:b"
    assert before - 1 <= float(redis_server.cli("GET", key)) <= time.time() + 1
    assert 890 <= int(redis_server.cli("TTL", key)) <= 900

    argv = ["revoke", "subject", "main", "alice:b", "--undo", "--config", str(file)]
    assert _run(capsys, *argv)[:2] == (0, "removed: subject:main:alice:b\n")
    assert redis_server.cli("EXISTS", key).strip() == "0"
    assert _run(capsys, *argv)[:2] == (0, "not in the denylist: subject:main:alice:b\n")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["token", "mian", "a"], "no issuer is called `mian`; did you mean `main`?"),
        (["token", "main"], "needs an id"),
        (["issuer", "main", "a"], "has no further id"),
        (["token", "main", "a", "--ttl", "15"], "--ttl: a duration is a number with a unit"),
        (["token", "main", "a", "--ttl", "0s"], "longer than zero"),
    ],
)
def test_revoke_refuses_what_cannot_be_an_entry(
    argv: list[str], says: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad usage is told apart from a store that fails."""
    status, out, err = _run(capsys, "revoke", *argv, "--config", str(file))
    assert (status, out) == (2, "")
    assert says in err


def test_the_denylist_is_listed_and_entries_are_taken_out(
    file: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What any backend wrote is there, narrowed as asked; taking out what is not there is a failure."""
    file.write_text(VALID.replace("redis://127.0.0.1:6379/0", redis_server.url))
    config = ["--config", str(file)]
    redis_server.cli("SET", "gateway:deny:session:main:phone", "1")
    redis_server.cli("SET", "gateway:deny:key:other:2026-01", "1")
    redis_server.cli("SET", "gateway:deny:odd", "1")
    status, out, _ = _run(capsys, "denylist", "list", *config)
    assert (status, out) == (0, "key:other:2026-01  for ever\nsession:main:phone  for ever\n")
    status, out, _ = _run(capsys, "denylist", "list", "--kind", "key", "--format", "json", *config)
    assert json.loads(out) == {"key": "key:other:2026-01", "value": "1", "ttl_s": None}
    redis_server.cli("SET", "gateway:deny:token:main:t", "1", "EX", 3600)
    line = json.loads(_run(capsys, "denylist", "list", "--kind", "token", "--format", "json", *config)[1])
    assert 3500 < line["ttl_s"] <= 3600
    redis_server.cli("DEL", "gateway:deny:token:main:t")
    assert _run(capsys, "denylist", "list", "--issuer", "main", *config)[1] == "session:main:phone  for ever\n"
    assert _run(capsys, "denylist", "list", "--issuer", "mian", *config)[0] == 2

    remove = ["denylist", "remove", "session", "main", "phone", *config]
    assert _run(capsys, *remove)[:2] == (0, "removed: session:main:phone\n")
    assert _run(capsys, *remove)[:2] == (1, "not in the denylist: session:main:phone\n")
    assert redis_server.cli("EXISTS", "gateway:deny:session:main:phone").strip() == "0"
    assert _run(capsys, "denylist", "list", "--issuer", "main", *config)[:2] == (0, "")


def test_each_change_by_hand_leaves_an_audit_line(
    file: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error: what, who, why; a refused one leaves none."""
    file.write_text(VALID.replace("redis://127.0.0.1:6379/0", redis_server.url))
    monkeypatch.setenv("LOGNAME", "ada")

    def audited(*argv: str) -> list[str]:
        err = _run(capsys, *argv, "--config", str(file))[2]
        return [line.partition("gateway.audit ")[2] for line in err.splitlines() if "gateway.audit" in line]

    by_ada = '"source": "command_line", "who": "ada", "why": "by hand"'
    assert audited("revoke", "token", "main", "a", "--ttl", "1h") == [
        f'revoked {{"key": "token:main:a", {by_ada}, "ttl_s": 3600.0}}'
    ]
    assert audited("denylist", "remove", "token", "main", "a", "--who", "cron", "--why", "ticket 17") == [
        'removed {"key": "token:main:a", "source": "command_line", "who": "cron", "why": "ticket 17"}'
    ]
    assert audited("denylist", "remove", "token", "main", "a") == []
    assert audited("revoke", "token", "mian", "a") == []


def test_revoke_fails_loudly_when_the_store_is_away(
    file: Path, own_redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, so that a script does not take a log-out for done; no password in what is said."""
    file.write_text(VALID.replace("redis://127.0.0.1:6379/0", own_redis.url.replace("redis://", "redis://:hunter2@")))
    own_redis.close()
    status, out, err = _run(capsys, "revoke", "token", "main", "abc", "--config", str(file))
    assert (status, out) == (1, "")
    assert "gateway revoke:" in err
    assert "hunter2" not in err
    status, out, err = _run(capsys, "denylist", "list", "--config", str(file))
    assert (status, out) == (1, "")
    assert "gateway denylist list:" in err
    assert "hunter2" not in err


def test_every_command_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """`gateway COMMAND --help` works for each, and its options say what they are for."""
    for name in command_names():
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: gateway {name}")
        assert len(text.splitlines()) > 5


def command_names() -> list[str]:
    """The commands, as the parser knows them."""
    for action in build_parser()._actions:
        if isinstance(action.choices, dict):
            return list(action.choices)
    raise AssertionError("the parser has no commands")
