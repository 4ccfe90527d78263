"""More log-ins than the threads can do: told to come back, while the requests of everybody else go through."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import httpx2
import pytest

from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.house import PASSWORD, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

SECRET = "worker-secret-0123456789"
CLIENTS = f"""\
  clients:
    worker: {{secret: {SECRET}, grants: [client_credentials]}}
"""


async def test_log_ins_wait_and_proxied_requests_do_not(
    sqlite_url: str, redis_url: str, upstream: RecordingUpstream, start_gateway: Callable[..., GatewayProcess]
) -> None:
    """One hash runs for seconds, one waits, the others get 503 with Retry-After; requests are answered meanwhile."""
    text = config_text(sqlite_url, redis_url, upstream.url, issuer=CLIENTS)
    cheap, slow = "{time_cost: 1, memory: 64KiB}", "{time_cost: 100, memory: 64MiB, threads: 1, waiting: 1}"
    assert cheap in text
    async with (
        start_gateway(text.replace(cheap, slow)) as gateway,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False, timeout=50) as http,
    ):
        fields = {"grant_type": "client_credentials", "client_id": "worker", "client_secret": SECRET}
        token = (await http.post("/auth/token", data=fields)).json()["access_token"]
        members = {"username": "nobody", "password": PASSWORD}
        attempts = [asyncio.create_task(http.post("/auth/login", json=members)) for _ in range(8)]
        try:
            pending = set(attempts)
            while len(pending) > 2:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for refused in [attempt.result() for attempt in attempts if attempt.done()]:
                assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
                assert int(refused.headers["retry-after"]) > 0
            assert await gateway.metric("gateway_issuer_hashes_waiting") == 2
            for _ in range(50):
                assert (await gateway.get("/api/x", token)).status == 200
            assert not any(attempt.done() for attempt in pending)
            assert await gateway.metric("gateway_issuer_hashes_refused_total") == 6
        finally:
            await gateway.stop(signal.SIGKILL)  # a hash cannot be broken off
            await asyncio.gather(*attempts, return_exceptions=True)
    assert len(upstream.seen) == 50
