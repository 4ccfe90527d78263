"""What the operating system says a process tree has cost: CPU time and resident memory.

Everything is read from ``/proc``, so no peer carries an instrument and all are measured by the same clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median as _median

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_tree(root: int) -> list[int]:
    """The ids of a process and of all its descendants alive now, the root first."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    tree = [root]
    for pid in tree:  # grows while it is read: a breadth-first walk
        tree.extend(children.get(pid, ()))
    return tree


def cpu_s(root: int) -> float:
    """Seconds of CPU, user and system, used so far by a process tree.

    Resolution is one clock tick (10 ms on Linux), so a round has to last a second, not milliseconds. Time of children
    that have been waited for is included.
    """
    ticks = 0
    for pid in process_tree(root):
        fields = _stat_fields(pid)
        if fields is not None:
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime: proc(5)
    return ticks / TICKS_PER_S


def busy_s(cores: Iterable[int]) -> float:
    """Seconds that these cores have been busy so far, whoever kept them so; time stolen by the host included."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])  # proc(5)
            ticks += user + nice + system + irq + softirq + steal
    return ticks / TICKS_PER_S


def resident_bytes(root: int) -> int:
    """Bytes of memory held by a process tree, a page shared by several processes counted once (PSS)."""
    return sum(_proportional_bytes(pid) for pid in process_tree(root))


def median(values: list[float]) -> float:
    """The middle value; NaN of nothing, so that a missing figure shows as missing."""
    return _median(values) if values else float("nan")


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` (0..1) of an ascending list lies; NaN of nothing."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat_fields(int(entry))
            if fields is not None:
                yield int(entry), int(fields[1])


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the command name, which may itself hold spaces; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _proportional_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
