"""The documentation is held to what it says: every example is run, and nothing that exists goes undocumented."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from gateway import errors
from gateway.config.load import examine
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.catalogue import CATALOGUE
from gateway.telemetry.exchange import Exchange
from tests.redis_server import RedisServer
from tests.test_cli import command_names
from tests.write_docs import TABLES, between

_ROOT = Path(__file__).parents[1]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]

# What the fragments of the manual are parts of.
_WHOLE = """\
server: {listen: 127.0.0.1:8080}
denylist: {store: redis://127.0.0.1:6379/0}
issuers:
  main: {issuer: https://issuer.example, audience: [api], algorithms: [RS256]}
upstreams:
  orders: {endpoints: [http://127.0.0.1:9001]}
routes:
  - {name: all, path: /**, upstream: orders}
"""

_BROKEN = """\
denylist: {store: redis://127.0.0.1:6379/0}
issuers:
  main:
    issuer: https://issuer.example
    algorithms: [RS256]
    audiance: [api]
upstreams:
  orders:
    endpoints: [http://127.0.0.1:9001]
routes:
  - name: api
    path: /api/**
    upstream: order
"""


class Block(NamedTuple):
    """A fenced example."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def _blocks(*languages: str) -> list[Block]:
    return [block for page in _PAGES for block in _blocks_of(page) if block.language in languages]


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


# --- examples ------------------------------------------------------------------------------------------------------


def test_every_example_has_a_language() -> None:
    """So that each is checked as what it is."""
    known = {"yaml", "console", "sh", "json", "text"}
    assert [str(block) for page in _PAGES for block in _blocks_of(page) if block.language not in known] == []


@pytest.mark.parametrize("block", _blocks("yaml"), ids=str)
def test_every_yaml_example_is_a_valid_file_or_part_of_one(block: Block, tmp_path: Path) -> None:
    """A reader may copy it."""
    written: dict[str, Any] = yaml.safe_load(block.text)
    merged = written if "issuers" in written and "routes" in written else {**yaml.safe_load(_WHOLE), **written}
    for name in ("internal-ca.pem", "partner.secret", "webhook.secret", "issuer.key"):
        (tmp_path / name).write_text("x" * 64)
    (tmp_path / "fragment.yaml").write_text(block.text)
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(merged))
    # The text itself, for what YAML forgives and the gateway does not; then the whole file that it is part of.
    own = [problem.message for problem in examine(tmp_path / "fragment.yaml", {}).problems]
    assert [message for message in own if "twice" in message or "two ways" in message or "not YAML" in message] == []
    assert [problem.render() for problem in examine(tmp_path / "gateway.yaml", {}).problems] == []


def _desk(folder: Path, redis_url: str) -> dict[str, str]:
    """What a reader has: a shell with `gateway`, the shipped file, a broken one, a Redis; the environment."""
    (folder / "bin").mkdir()
    command = folder / "bin" / "gateway"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gateway "$@"\n')
    command.chmod(0o755)
    for file in (_ROOT / "config").glob("*.*"):
        shutil.copy(file, folder)
    (folder / "broken.yaml").write_text(_BROKEN)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(_ROOT), "REDIS_URL": redis_url, "NO_PROXY": "*"}


def _is_like(expected: str, got: str) -> bool:
    """Line by line; `…` stands for anything: for the rest of a line, or on a line of its own for some lines."""
    lines = [re.escape(line).replace("…", ".*") for line in expected.rstrip("\n").split("\n")]
    pattern = "\n".join(lines).replace("\n.*\n", "\n(?:.*\n)*?") + r"\n*"
    return re.fullmatch(pattern, got) is not None


def _conversation(block: Block) -> list[tuple[str, str]]:
    """Commands and what each prints."""
    parts = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
    assert parts[0] == "", f"{block} begins with an answer"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _run(command: str, folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.replace("\r", "")


@pytest.mark.parametrize("block", [block for block in _blocks("console") if block.page.name != "README.md"], ids=str)
def test_every_console_example_prints_what_it_says(block: Block, tmp_path: Path, redis_server: RedisServer) -> None:
    """Each command is run as it stands."""
    environ = _desk(tmp_path, redis_server.url)
    for command, expected in _conversation(block):
        got = _run(command, tmp_path, environ)
        assert _is_like(expected, got), f"{block}: {command}\n{got}"


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_the_readme_does_what_it_says(tmp_path: Path, free_port: Callable[[], int], redis_server: RedisServer) -> None:
    """The demo is started, and the README's curls are pasted into a shell, one after the other."""
    environ = {**_desk(tmp_path, redis_server.url), "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "gateway", "demo", "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as demo:
        assert demo.stdout is not None
        printed = ""
        for line in demo.stdout:
            printed += line
            if line.startswith("Ctrl-C"):
                break
        addresses = dict(re.findall(r"^  (gateway|backend) +http://(\S+)", printed, flags=re.MULTILINE))
        usual = {"gateway": "127.0.0.1:8080", "backend": "127.0.0.1:9001"}
        try:
            for block in _blocks("console"):
                if block.page.name == "README.md":
                    for typed, expected in _conversation(block):
                        shown = printed.replace(addresses["gateway"], usual["gateway"])
                        assert typed in shown, "the demo prints other commands than the README shows"
                        if assignment := re.match(r"([A-Z]+)=\$\(", typed):
                            here = typed.replace(usual["gateway"], addresses["gateway"])
                            echo = f'{here}; printf %s "${assignment[1]}"'
                            command = ["bash", "-c", echo.replace("curl ", "curl --noproxy '*' ")]
                            told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
                            environ[assignment[1]] = told.stdout
                        else:
                            _paste(typed, expected, addresses, usual, environ, tmp_path)
        finally:
            demo.terminate()


def _paste(
    typed: str,
    expected: str,
    addresses: dict[str, str],
    usual: dict[str, str],
    environ: dict[str, str],
    folder: Path,
) -> None:
    command = typed.replace("curl ", "curl -sS ", 1)
    for name, address in addresses.items():
        command = command.replace(usual[name], address)
    if "/logout" in typed:
        command += " && sleep 0.5"  # a person takes longer than a revocation to paste the next line
    got = _run(command, folder, environ)
    for name, address in addresses.items():
        got = got.replace(address, usual[name])
    assert _is_like(expected, got), f"{typed}\n{got}"


@pytest.mark.parametrize("block", _blocks("sh"), ids=str)
def test_every_shell_example_names_what_exists(block: Block) -> None:
    """Examples that need a network or another machine are not run, but their targets and commands exist."""
    targets = re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in block.text.splitlines():
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "gateway":
            assert words[1] in command_names()
        elif words[:2] == ["docker", "compose"]:
            assert (_ROOT / "docker-compose.yml").is_file()
        else:
            assert words[0] in ("pip", "redis-cli"), f"{block}: who checks `{words[0]}`?"


def test_links_between_pages_lead_somewhere() -> None:
    """Files exist, and so do the headings that are pointed at."""
    broken = []
    for page in _PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in _anchors(file)):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- completeness --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "mark"), TABLES, ids=lambda value: str(value))
def test_every_setting_and_metric_is_documented(page: str, mark: str) -> None:
    """The manual's tables are the generated ones; `python -m tests.write_docs` writes them."""
    found = between(mark).search((_ROOT / page).read_text(encoding="utf-8"))
    assert found is not None, f"{page} has lost its marks"
    assert found[2].strip() == TABLES[page, mark]().strip()


def test_metrics_that_are_mentioned_exist() -> None:
    """An alert on a name that is never exported would never fire."""
    for page in _PAGES:
        for name in re.findall(r"\bgateway_[a-z_]+", page.read_text(encoding="utf-8")):
            assert name in CATALOGUE, f"{page.name}: {name}"


def test_every_error_code_is_documented_with_its_status() -> None:
    """One row per leaf of the tree, and no row for what does not exist."""
    text = (_ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (client|gateway|upstream) \|", text, flags=re.MULTILINE)
    faults = {"client": errors.ClientError, "gateway": errors.GatewayFault, "upstream": errors.UpstreamFault}
    expected = {(str(leaf.status), leaf.code, fault) for fault, kind in faults.items() for leaf in _leaves(kind)}
    assert len(rows) == len(set(rows))
    assert set(rows) == expected


def _leaves(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    if "code" in vars(kind):
        yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _leaves(child)


def test_every_member_of_the_access_log_is_documented() -> None:
    """A line with everything in it has no member that the manual does not name."""
    config: Any = examine(_ROOT / "config/gateway.yaml", {}).config
    exchange = Exchange(started=0, method="GET", host="a", path="/", client="c", request_id="r", route="r", status=200)
    for name in ("code", "cause", "issuer", "subject", "upstream", "endpoint"):
        setattr(exchange, name, "x")
    exchange.connect_s = exchange.head_s = exchange.duration_s = 1.0
    exchange.retried = True
    line = yaml.safe_load(AccessLog(config.telemetry.access_log, b"key").render(exchange, 0.0))
    text = (_ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \| ", text, flags=re.MULTILINE))))
    assert set(line) <= named


def test_every_command_is_documented() -> None:
    """A heading per command, and its options below it."""
    text = (_ROOT / "docs/commands.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## gateway (\w+)$", text, flags=re.MULTILINE)
    assert sorted(headings) == sorted(command_names())
    for name, section in zip(headings, re.split(r"^## .*$", text, flags=re.MULTILINE)[1:], strict=True):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", name, "--help"], capture_output=True, text=True, check=True
        )
        for option in set(re.findall(r"(--[a-z]+)", done.stdout)) - {"--help", "--config"}:
            assert option in section, f"{name} {option}"


def test_the_glossary_is_obeyed() -> None:
    """Words that the README says we avoid stand nowhere else in the documentation."""
    avoided = ("blacklist", "blocklist", "graceful shutdown", "consumer", "IdP")
    for page in _PAGES:
        text = page.read_text(encoding="utf-8")
        text = text.partition("## Words")[0] + text.partition("## More")[2] if page.name == "README.md" else text
        assert [word for word in avoided if word in text] == [], page.name
