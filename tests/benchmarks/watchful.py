"""``python -m tests.benchmarks.watchful serve …``: the gateway, with its loop monitor looking every millisecond.

A stall counts as long as this process was busy meanwhile, whichever of its threads was. So what other programs take of
the machine does not show; what the gateway does in one go does. Each worker imports this module, too.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
import time

from gateway.telemetry.loop_monitor import LoopMonitor

_SAMPLE_S = 0.001


async def _run(self: LoopMonitor) -> None:
    while True:
        before, busy_before = time.monotonic(), time.process_time()
        await asyncio.sleep(_SAMPLE_S)
        after = time.monotonic()
        self.observe(min(after - before - _SAMPLE_S, time.process_time() - busy_before), after)


LoopMonitor.run = _run  # type: ignore[method-assign]  # of this process only, which is an instrument

if __name__ == "__main__":
    sys.argv = ["gateway", *sys.argv[1:]]
    runpy.run_module("gateway", run_name="__main__")
