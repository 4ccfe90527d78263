"""How late the loop comes round."""

import asyncio
import time

import pytest

from gateway.telemetry.loop_monitor import LoopMonitor


def test_the_longest_stall_of_the_last_minute_is_kept() -> None:
    """Older and shorter ones give way."""
    monitor = LoopMonitor()
    for stall, at, longest in (
        (0.01, 0.0, 0.01),
        (0.2, 10.0, 0.2),
        (0.05, 20.0, 0.2),
        (0.001, 71.0, 0.05),
        (0.0, 200.0, 0.0),
    ):
        monitor.observe(stall, at)
        assert monitor.longest_s == longest
    samples = {(sample.name, sample.labels.get("le")): sample.value for sample in monitor.samples()}
    assert samples["gateway_loop_stall_seconds_count", None] == 5
    assert samples["gateway_loop_stall_seconds_bucket", "0.05"] == 4


@pytest.mark.asyncio
async def test_blocking_work_is_seen() -> None:
    """Something that holds the loop for 200 ms shows as a stall of about that."""
    monitor = LoopMonitor()
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(0.001)
    time.sleep(0.2)
    while not monitor.longest_s:
        await asyncio.sleep(0.01)
    task.cancel()
    assert monitor.longest_s > 0.1
