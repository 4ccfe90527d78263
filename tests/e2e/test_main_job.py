"""A request comes in, its token is checked, it goes to the right backend with its identity."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.edge import GatewayProcess, RecordingUpstream, TestIssuer, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]


async def test_a_good_token_reaches_the_upstream_as_identity_and_not_as_a_token(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """The upstream sees who calls, in headers the client cannot write, and never the credential."""
    async with start_gateway(config_text(issuer.yaml(), upstream.url)) as gateway:
        token = issuer.token(email="a@example.org", roles=["admin", "ops"])
        answer = await gateway.get("/api/orders?x=1", token, "X-User-Id: root", "X_User_Roles: god", "Accept: */*")
        assert answer.status == 200
        assert answer.body == b"ok"
        [seen] = upstream.seen
        assert seen.line == b"GET /api/orders?x=1 HTTP/1.1"
        assert seen.all(b"x-user-id") == [b"user-1"]
        assert seen.all(b"x-user-email") == [b"a@example.org"]
        assert seen.all(b"x-user-roles") == [b"admin,ops"]
        assert seen.all(b"authorization") == seen.all(b"x_user_roles") == []
        assert seen.all(b"accept") == [b"*/*"]
        assert answer.all(b"x-request-id") == seen.all(b"x-request-id")


async def test_every_refusal_tells_the_client_what_to_do(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """No token, a forged one and an expired one are three answers, each a problem document with a challenge."""
    async with start_gateway(config_text(issuer.yaml(), upstream.url)) as gateway:
        missing = await gateway.get("/api/orders")
        expired = await gateway.get("/api/orders", issuer.token(exp=1_000_000_000, iat=999_999_000))
        forged = await gateway.get("/api/orders", issuer.token()[:-4] + "AAAA")
        nowhere = await gateway.get("/nowhere", issuer.token())
        assert [answer.status for answer in (missing, expired, forged, nowhere)] == [401, 401, 401, 404]
        assert [answer.code for answer in (missing, expired, forged, nowhere)] == [
            "token_missing",
            "token_expired",
            "token_invalid",
            "no_route",
        ]
        assert missing.all(b"www-authenticate") == [b"Bearer"]
        assert expired.all(b"www-authenticate")[0].startswith(b'Bearer error="invalid_token"')
        assert json.loads(missing.body)["request_id"] == missing.all(b"x-request-id")[0].decode()
        assert upstream.seen == []


async def test_a_public_route_strips_what_only_the_gateway_may_say(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """Without a token nobody is identified, whatever the client claims."""
    async with start_gateway(config_text(issuer.yaml(), upstream.url)) as gateway:
        answer = await gateway.get("/public/a", None, "X-User-Id: root", "x-user-ROLES: a", "X.User.Id: root")
        assert answer.status == 200
        assert [name for name, _ in upstream.seen[0].headers if b"user" in name] == []
