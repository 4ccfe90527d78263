"""Run the micro-benchmark of every step (`bench_steps`) on the proxy's core, and give the medians."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.site import Cores

_FILE = Path(__file__).with_name("bench_steps.py")
_TIMEOUT_S = 120.0


class StepsFailed(Exception):
    """The micro-benchmarks did not run, or a step gave a wrong answer; the text is the end of pytest's output."""


def time_steps(cores: Cores) -> dict[str, float]:
    """Median seconds by step, in the order of the file. Raises `StepsFailed`."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as directory:
        file = Path(directory) / "steps.json"
        command = [
            *("taskset", "--cpu-list", ",".join(map(str, sorted(cores.proxy)))),
            *(sys.executable, "-m", "pytest", str(_FILE), "--quiet", "-p", "no:randomly", "-p", "no:cacheprovider"),
            *("--benchmark-enable", f"--benchmark-json={file}", "--benchmark-max-time=0.3", "--benchmark-warmup=on"),
        ]
        try:
            done = subprocess.run(
                command, cwd=_FILE.parents[2], timeout=_TIMEOUT_S, check=False, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            raise StepsFailed(f"not done after {_TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            raise StepsFailed((done.stdout + done.stderr).strip()[-500:])
        measured = json.loads(file.read_text())["benchmarks"]
    return {entry["name"].removeprefix("test_"): entry["stats"]["median"] for entry in measured}
