"""tools/prepare does only what is missing, waits for another one, and explains what it cannot do."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shipped import ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A project folder with what an environment is made from, and no environment."""
    folder = tmp_path / "project"
    for name in ("tools", "constraints"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def prepare(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs the folder's own tools/prepare."""
    command = [str(folder / "tools/prepare"), *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def only_on_path(folder: Path, *names: str) -> str:
    """A PATH with these commands alone, linked from the real one where they exist."""
    folder.mkdir()
    for name in names:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("kind", ["run", "dev", "bench"])
def test_a_second_make_does_nothing(kind: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose stamp is newer than what it is made from is left alone."""
    stamp = copy / f".venv/.stamp-{kind}"
    stamp.parent.mkdir()
    stamp.touch()
    before = stamp.stat().st_mtime_ns
    # Neither an interpreter nor apt-get, should it try.
    monkeypatch.setenv("PATH", only_on_path(tmp_path / "bin", "env", "bash", "dirname", "id", "flock"))
    monkeypatch.setenv("PYTHON", "/nonexistent/python")
    done = prepare(copy, "venv", kind)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before


def test_a_missing_python_is_explained(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a usable interpreter, and without apt-get to install one, it says what to do and makes nothing."""
    monkeypatch.setenv("PATH", only_on_path(tmp_path / "bin", "env", "bash", "dirname", "id", "flock"))
    monkeypatch.setenv("PYTHON", "/nonexistent/python")
    done = prepare(copy, "venv", "run")
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert not (copy / ".venv").exists()


def test_missing_peers_are_named_and_left_out(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark without rights to install its peers goes on with those that are there."""
    monkeypatch.setenv("PATH", only_on_path(tmp_path / "bin", "env", "bash", "dirname"))
    done = prepare(copy, "bench")
    assert done.returncode == 0
    assert done.stderr == "" or "not measured" in done.stderr


def test_a_missing_browser_is_named_and_its_tests_left_out(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rights to install one the tests go on; those that need it say why they do not run."""
    monkeypatch.setenv("PATH", only_on_path(tmp_path / "bin", "env", "bash", "dirname", "id"))
    done = prepare(copy, "browser")
    assert done.returncode == 0
    assert "apt-get install chromium" in done.stderr


def test_an_unknown_word_shows_the_usage(copy: Path) -> None:
    """The usage is the comment at the top of the script."""
    done = prepare(copy, "tea")
    assert done.returncode == 1
    assert "tools/prepare venv run|dev|bench" in done.stderr
