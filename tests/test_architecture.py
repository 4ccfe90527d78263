"""The house keeps its order: imports run one way, libraries stay behind their doors, everything says what it is."""

import ast
import logging
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Which parts may import a library. Its exceptions are translated there and nowhere else, and it can be replaced there.
DOORS = {
    "alembic": {"issuer"},
    "argon2": {"issuer"},
    "hiredis": {"redis"},
    "httptools": {"server", "upstream"},
    "httpx2": {"demo", "issuer", "keys"},
    "jwt": {"demo", "issuer", "keys", "tokens"},
    "prometheus_client": {"telemetry"},
    "redis": {"redis"},
    "sqlalchemy": {"issuer"},
    "sqlite3": {"denylist", "idempotency", "issuer"},
    "starlette": {"admin", "demo", "issuer"},
    "uvicorn": {"cli", "demo", "server"},
    "websockets": {"server", "upstream"},
    "yaml": {"cli", "config", "demo"},
}

# Pairs (who, what it must not reach, not even through others): the issuer is an issuer like any other.
STRANGERS = [
    ("gateway.issuer", "gateway.pipeline"),
    ("gateway.issuer", "gateway.tokens"),
    ("gateway.issuer", "gateway.admin"),
    ("gateway.inlets", "gateway.pipeline"),
    ("gateway.pipeline", "gateway.config.load"),
    ("gateway.tokens", "gateway.denylist"),
    ("gateway.errors", "gateway.config"),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom, libraries included."""
    return grimp.build_graph("gateway", include_external_packages=True, cache_dir=None)


def layers() -> list[str]:
    """The module names of the import contract, top to bottom."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [name for layer in contract["layers"] for name in re.findall(r"[a-z_.0-9]+", layer)]


def test_imports_run_one_way(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No module imports one that stands above it in the contract of pyproject.toml."""
    monkeypatch.syspath_prepend(str(ROOT))
    quiet = {name for name, logger in _loggers() if logger.disabled}
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    for name, logger in _loggers():
        # import-linter configures logging for its own process, which disables every logger there is.
        logger.disabled = name in quiet
    assert status == 0, capsys.readouterr().out


def _loggers() -> list[tuple[str, logging.Logger]]:
    found = logging.root.manager.loggerDict.items()
    return [(name, logger) for name, logger in found if isinstance(logger, logging.Logger)]


def test_every_module_has_its_layer(graph: grimp.ImportGraph) -> None:
    """A new file is given a place in the contract; else nothing would hold it to a direction."""
    placed = layers()
    # Packages whose parts stand in different layers; they themselves only hold a docstring.
    split = {name.rpartition(".")[0] for name in placed}
    homeless = [
        module
        for module in graph.modules
        if module.startswith("gateway.")
        and module not in split
        and not any(module == name or module.startswith(f"{name}.") for name in placed)
    ]
    assert homeless == []


@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_library_is_imported_behind_its_door_only(graph: grimp.ImportGraph, library: str) -> None:
    """What a library raises and returns is known to the few parts that call it."""
    if library not in graph.modules:
        importers: set[str] = set()
    else:
        importers = graph.find_modules_that_directly_import(library)
    # `server_protocol` is a part of `server`.
    parts = {module: module.split(".")[1].partition("_")[0] for module in importers}
    assert {module for module, part in parts.items() if part not in DOORS[library]} == set()


@pytest.mark.parametrize(("who", "what"), STRANGERS)
def test_strangers_do_not_reach_each_other(graph: grimp.ImportGraph, who: str, what: str) -> None:
    """Not directly, and not through a third module either."""
    if who not in graph.modules or what not in graph.modules:
        pytest.skip(f"{who} or {what} is not part of this build")
    assert graph.find_shortest_chains(who, what, as_packages=True) == set()


def _undocumented(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    where = path.relative_to(ROOT)
    if not ast.get_docstring(tree):
        yield f"{where}: the module"
    scopes: list[tuple[str, Any]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in scope.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            # Private names explain themselves to their own file; overloads are explained by the function.
            if node.name.startswith("_") or any(ast.unparse(mark) == "overload" for mark in node.decorator_list):
                continue
            if not ast.get_docstring(node) and not any(ast.unparse(mark) == "override" for mark in node.decorator_list):
                yield f"{where}:{node.lineno}: {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node))


def test_everything_public_says_what_it_gives() -> None:
    """Every module, class, public function and method of the package has a docstring."""
    assert [line for path in SOURCES for line in _undocumented(path)] == []


def test_every_test_states_its_behaviour() -> None:
    """A test's docstring is a sentence, so that the suite reads as a description of the gateway."""
    silent = []
    for path in TESTS:
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            silent.append(f"{path.relative_to(ROOT)}: the module")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                text = ast.get_docstring(node) or ""
                if not text.split("\n\n")[0].rstrip('"').endswith((".", "!", "?")):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert silent == []


def test_no_module_is_a_drawer() -> None:
    """A file called utils or common is a concept that has not been named yet."""
    drawers = re.compile(r"(^|_)(utils?|helpers?|commons?|core|misc|managers?|shared|base)(_|$)")
    names = {path: [*path.relative_to(ROOT).parts[1:-1], path.stem] for path in SOURCES}
    assert [os.fspath(path) for path, parts in names.items() if any(drawers.search(part) for part in parts)] == []


def test_tests_mirror_the_package() -> None:
    """`tests/keys/test_source.py` tests `gateway/keys/source.py`: each folder of tests has its package."""
    kinds = {"e2e", "benchmarks", "clients"}  # the last are of docs/clients
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in TESTS if path.parent != ROOT / "tests"}
    packages = {path.parent.name for path in SOURCES if path.name == "__init__.py"}
    assert folders - kinds <= packages
