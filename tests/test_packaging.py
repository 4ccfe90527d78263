"""Pins, wheel, version, changelog and make targets agree with one another."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gateway
from tests.shipped import PYPROJECT, ROOT, run_gateway


def pins(name: str) -> dict[str, str]:
    """Package → version of a constraints file."""
    text = (ROOT / "constraints" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("build", PYPROJECT["build-system"]["requires"]),
        ("run", PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["postgresql"]),
        ("dev", PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["dev"]),
        ("bench", PYPROJECT["project"]["optional-dependencies"]["bench"]),
        ("redis", PYPROJECT["project"]["optional-dependencies"]["redis-server"]),
        ("compile", PYPROJECT["project"]["optional-dependencies"]["compile"]),
    ],
)
def test_every_requirement_is_pinned_to_a_version_it_allows(name: str, requirements: list[str]) -> None:
    """constraints/ is as new as pyproject.toml; else: make constraints."""
    pinned = pins(name)
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.stem)
def test_every_pin_has_hashes_and_no_address(path: Path) -> None:
    """The files work with any mirror, and a mirror that changes a package is noticed."""
    text = path.read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_environments_agree_on_versions() -> None:
    """What is tested is what is shipped and what is measured."""
    run, dev, bench = pins("run"), pins("dev"), pins("bench")
    assert run.items() <= dev.items()
    assert dev.items() <= bench.items()


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """No tests, no examples; the marker for type checkers, the licence and the command are there."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=50, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"gateway_edge-{gateway.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    about = f"gateway_edge-{gateway.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"gateway", about}
    assert {
        "gateway/py.typed",
        "gateway/cli/__init__.py",
        f"{about}/entry_points.txt",
        f"{about}/licenses/LICENSE",
    } <= set(names)


def test_the_version_is_told() -> None:
    """`gateway --version` prints the version of the package."""
    done = run_gateway("--version")
    assert done.returncode == 0
    assert gateway.__version__ in done.stdout


def test_the_changelog_starts_with_this_version() -> None:
    """Its top section is the version in the code."""
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert first is not None
    assert first[1] == gateway.__version__


def make_targets() -> dict[str, str]:
    """Target → its one-line description, as `make help` shows them."""
    return dict(re.findall(r"^([a-z-]+):.*## (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_make_lists_every_target_by_default() -> None:
    """`make` alone prints each public target with what it does, and every one of them is described."""
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=True)
    for target, description in make_targets().items():
        assert f"make {target}" in done.stdout
        assert description in done.stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(make_targets())


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_targets_that_exist(document: str) -> None:
    """Every `make …` in backquotes or at the start of a line of code is a target."""
    text = (ROOT / document).read_text()
    named = set(re.findall(r"(?:`|^\$? ?)make ([a-z-]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= set(make_targets())


def test_continuous_integration_runs_the_two_targets() -> None:
    """.ci/run is executable and runs `make check`, then `make test`, nothing else."""
    path = ROOT / ".ci/run"
    assert os.access(path, os.X_OK)
    commands = [line for line in path.read_text().splitlines() if line.startswith("make ")]
    assert [command.split()[1] for command in commands] == ["check", "test"]
