"""What ships beside the package, read for tests: image, compose file and deployment examples."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from gateway.config.load import load
from gateway.config.schema import Config

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MANIFESTS: dict[str, Any] = {
    manifest["kind"]: manifest for manifest in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text())
}


def dockerfile() -> list[tuple[str, str]]:
    """The instructions with their arguments, continuation lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    pairs = [line.partition(" ")[::2] for line in lines if line.strip()]
    return [(word.upper(), rest.strip()) for word, rest in pairs]


def last_stage() -> dict[str, str]:
    """The instructions of the image that is shipped; the last of a kind wins, as it does in Docker."""
    instructions = dockerfile()
    start = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    return dict(instructions[start:])


def image_environment() -> dict[str, str]:
    """What ENV sets in the image."""
    return dict(pair.split("=", 1) for pair in shlex.split(last_stage()["ENV"]))


def port_of(listen: str) -> int:
    """The port of HOST:PORT."""
    return int(listen.rpartition(":")[2])


def run_gateway(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would, in a process of its own."""
    command = [sys.executable, "-m", "gateway", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


def variables() -> set[str]:
    """The names that config/gateway.yaml reads from the environment, as `${NAME}` or `${NAME:-default}`."""
    return set(re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)", (ROOT / "config/gateway.yaml").read_text()))


def composed_config() -> Config:
    """config/gateway.yaml as the compose file's gateway reads it."""
    environment = image_environment() | COMPOSE["services"]["gateway"]["environment"]
    return load(ROOT / "config/gateway.yaml", environ=environment)
