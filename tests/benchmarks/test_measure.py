"""The figures from /proc are those of the process tree that they claim to be of."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

from tests.benchmarks import measure

_BUSY = (
    "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True); input()"
)


def test_tree_of_a_child() -> None:
    """A child's CPU counts for its parent, and its own 0.3 seconds are seen."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_BUSY!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tree = measure.process_tree(process.pid)
        spent_s = measure.cpu_s(process.pid)
        process.communicate(b"\n")
    assert len(tree) == 2
    assert spent_s >= 0.29


def test_memory_grows_with_what_is_held() -> None:
    """Thirty-two mebibytes written to are thirty-two mebibytes more."""
    child = "print(flush=True); input(); held = bytearray(b'x') * (32 * 2**20); print(flush=True); input()"
    # A process of its own: this one has children that come and go.
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = measure.resident_bytes(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert measure.resident_bytes(process.pid) - before > 30 * 2**20
        process.communicate(b"\n")


def test_a_process_that_is_gone() -> None:
    """A process that has ended has used nothing that could still be read."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert measure.cpu_s(process.pid) == 0
    assert measure.resident_bytes(process.pid) == 0


def test_busy_cores() -> None:
    """The cores' busy time passes no faster than the clock on every core."""
    cores = os.sched_getaffinity(0)
    before, started = measure.busy_s(cores), time.monotonic()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert 0 < measure.busy_s(cores) - before <= (time.monotonic() - started + 0.05) * len(cores)


def test_percentiles() -> None:
    """A percentile of an ascending list; not a number of an empty one."""
    ordered = [float(number) for number in range(100)]
    assert measure.percentile(ordered, 0.5) == 50
    assert measure.percentile(ordered, 0.99) == 99
    assert math.isnan(measure.percentile([], 0.5))
    assert math.isnan(measure.median([]))
