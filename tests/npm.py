"""Packages for Node, installed from npm once into the user's cache folder, never into the project."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_INSTALL_S = 120
_FLAGS = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--fetch-retries=1")


def find_node(least: int) -> str:
    """Node's path; skips the test where there is none with npm, or an older one than this major version."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are not here")
    found = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=False)
    version = re.match(r"v(\d+)\.", found.stdout)
    if version is None or int(version[1]) < least:
        pytest.skip(f"this needs Node {least}, here is {found.stdout.strip() or 'none that runs'}")
    return node


def packages(*specs: str, least_node: int = 20) -> Path:
    """The `node_modules` with these packages (`name@version`), installed first if need be; skips where it cannot be."""
    find_node(least_node)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gateway-tests" / "-".join(specs).replace("/", "+").replace("@", "-")
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs may start at once
        if not done.exists():
            _install(folder, specs)
            done.touch()
    return folder / "node_modules"


def _install(folder: Path, specs: tuple[str, ...]) -> None:
    npm = shutil.which("npm")
    assert npm is not None
    (folder / "package.json").write_text('{"private": true}\n')
    try:
        installed = subprocess.run(
            [npm, "install", *_FLAGS, *specs],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {' '.join(specs)} within {_INSTALL_S} s")
    if installed.returncode:
        pytest.skip(f"npm could not install {' '.join(specs)}: {installed.stderr.strip()[-300:]}")
