"""Short turns on the processor, so that a request need not wait for the end of somebody else's long one.

Linux gives the processor out in turns of some milliseconds. Who asks for shorter ones gets as much as before, sooner:
since Linux 6.12 a process that wakes up goes before one in the middle of a longer turn. Beside programs that compute,
such as the hashing of passwords on the same core, this is what a proxied request's p99 consists of.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

TURN_NS: Final = 100_000  # the shortest there is

_SYSCALLS: Final = {"x86_64": 314, "aarch64": 274}  # sched_setattr(2)
_OTHER: Final = 0  # SCHED_OTHER, the policy of ordinary processes
_RESET_ON_FORK: Final = 1  # children, the hashing ones among them, have the usual turns
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")  # struct sched_attr, first version


def ask_for_short_turns() -> bool:
    """Ask for this thread; whether the system understood. Without Linux 6.12 it changes nothing."""
    number = _SYSCALLS.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False  # what an operator has chosen stays
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _OTHER, _RESET_ON_FORK, nice, 0, TURN_NS, 0, 0)
    system = ctypes.CDLL(None, use_errno=True)
    done: int = system.syscall(number, 0, ctypes.c_char_p(attributes), 0)
    return done == 0
