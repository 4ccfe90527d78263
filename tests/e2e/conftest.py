"""What whole-gateway tests start: an upstream, an issuer and the gateway between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from tests.edge import GatewayProcess, RecordingUpstream, TestIssuer


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    """An upstream that remembers what came."""
    server = await RecordingUpstream.start()
    yield server
    await server.close()


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[TestIssuer]:
    """An ES256 issuer with its key server."""
    server = await TestIssuer.start()
    yield server
    await server.close()


@pytest_asyncio.fixture
async def start_gateway(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Callable[..., GatewayProcess]]:
    """Makes gateways on ports of their own; `await gateway.start()` starts one, and all end with the test."""
    made: list[GatewayProcess] = []

    def make(config: str, env: dict[str, str] | None = None) -> GatewayProcess:
        made.append(GatewayProcess(tmp_path, config, free_port(), free_port(), env))
        return made[-1]

    yield make
    for gateway in made:
        await gateway.stop()
