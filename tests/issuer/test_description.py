"""The OpenAPI document holds: every endpoint is called with generated requests, and answers as it is described."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.issuer.endpoints.openapi import paths
from tests.edge import GatewayProcess, RecordingUpstream
from tests.issuer.house import PASSWORD, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio, pytest.mark.timeout(180)]

CLIENTS = """\
  clients:
    native: {redirect_uris: ["http://127.0.0.1/callback"], scopes: [openid]}
"""
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_SETTINGS = settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)


def _call_everything(base: str) -> set[tuple[str, str]]:
    """Some requests to each endpoint, with and without a token; what has been called."""
    account = {"username": "alice", "password": PASSWORD}
    tokens = requests.post(f"{base}/auth/register", json=account, timeout=10).json()
    schema = schemathesis.openapi.from_url(f"{base}/auth/openapi.json")
    called: set[tuple[str, str]] = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        called.add((operation.path, operation.method))
        if operation.path.endswith(("/logout", "/logout-all", "/me/delete")):
            token = "unusable"  # the session is needed for the others
        else:
            token = tokens["access_token"]

        _SETTINGS(given(case=operation.as_strategy())(_calling(token)))()
    return called


def _calling(token: str) -> Callable[[schemathesis.Case[Any]], None]:
    """One request and its checks; the token is for endpoints that a user calls."""

    def call(case: schemathesis.Case[Any]) -> None:
        is_for_clients = case.path.endswith(("/token", "/revoke", "/introspect"))
        headers = {} if is_for_clients else {"authorization": f"Bearer {token}"}
        case.call_and_validate(headers=headers, checks=_CHECKS, timeout=10, allow_redirects=False)

    return call


async def test_every_endpoint_answers_as_described(
    sqlite_url: str, redis_url: str, upstream: RecordingUpstream, start_gateway: Callable[..., GatewayProcess]
) -> None:
    """Status, media type and members of every answer stand in the document, whatever is sent; nothing is a 500."""
    async with start_gateway(config_text(sqlite_url, redis_url, upstream.url, issuer=CLIENTS)) as gateway:
        called = await asyncio.to_thread(_call_everything, f"http://127.0.0.1:{gateway.port}")
        described = {(path, method) for path, operations in paths().items() for method in operations}
        assert described - called == {("/openapi.json", "get")}  # which the caller has read to begin with
