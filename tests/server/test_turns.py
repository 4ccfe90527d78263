"""A worker asks for short turns on the processor, for itself alone."""

import os
import struct
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes, os, platform, struct, subprocess, sys
from gateway.server.turns import TURN_NS, ask_for_short_turns

def turn(pid):
    room = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, pid, room, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", room.raw)[5]

os.nice(3)
before = turn(0)
understood = ask_for_short_turns()
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(understood, before, turn(0), turn(child.pid), os.getpriority(os.PRIO_PROCESS, 0), TURN_NS)
child.communicate(b"\\n")
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"), reason="Linux alone has such turns"
)
def test_short_turns_are_for_the_worker_and_not_for_its_children() -> None:
    """The niceness stays, and so do the turns of what the worker starts."""
    assert struct.calcsize("=IIQiIQQQ") == 48
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=30, check=True)
    understood, before, after, childs, nice, asked = done.stdout.split()
    assert (understood, nice) == ("True", "3")
    if before == "0":
        pytest.skip("this kernel keeps no turns for ordinary processes (Linux 6.12 and later do)")
    assert (after, childs) == (asked, before)
