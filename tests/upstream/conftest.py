"""Runs every asynchronous test of this folder on both event loops: they differ in when a write or an EOF is seen."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop in production, asyncio wherever that cannot be installed."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
