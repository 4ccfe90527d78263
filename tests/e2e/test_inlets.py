"""Standard revocations through a whole gateway of two workers: handed in at one, refused at all."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc import jwt

from tests.edge import GatewayProcess, RecordingUpstream, SeenRequest, TestIssuer, config_text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

Start = Callable[..., GatewayProcess]
SOON_S = 10.0
SECRET = "only for this test, and long"
REVOCATION = f"""\
    revocation:
      clients: {{app: {{secret: "{SECRET}"}}}}
      backchannel_logout: {{audience: [app]}}
      shared_signals: {{audience: [gateway]}}
"""


def statement(issuer: TestIssuer, typ: str, **claims: Any) -> str:
    """Something that the issuer says, signed with its key."""
    header = {"alg": issuer.alg, "kid": issuer.kid, "typ": typ}
    claims = {"iss": issuer.url, "iat": int(time.time()), "jti": f"{typ}-1", **claims}
    return jwt.encode(header, claims, issuer.keys[issuer.kid], algorithms=[issuer.alg])


async def post(gateway: GatewayProcess, path: str, body: str, *fields: str, admin: bool = False) -> Any:
    """One POST to the clients' or the admin address."""
    head = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", "Connection: close", *fields]
    request = "\r\n".join(head).encode() + b"\r\n\r\n" + body.encode()
    return await gateway.raw(request, port=gateway.admin_port if admin else None)


async def refused_everywhere(gateway: GatewayProcess, token: str) -> None:
    """Until twenty requests in a row, on connections that the workers share, are refused."""
    async with asyncio.timeout(SOON_S):
        in_a_row = 0
        while in_a_row < 20:
            in_a_row = in_a_row + 1 if (await gateway.get("/api/a", token)).code == "token_revoked" else 0


async def test_each_standard_revokes_on_every_worker(
    upstream: RecordingUpstream, issuer: TestIssuer, redis_url: str, start_gateway: Start
) -> None:
    """A token handed in, a logout, an event, a request of an operator; what no inlet takes is routed as usual."""
    extra = f"denylist: {{store: '{redis_url}'}}\n"
    text = config_text(issuer.yaml() + REVOCATION, upstream.url, extra=extra, workers=2)
    text = text.replace("listen: 127.0.0.1:{admin}\n", f'listen: 127.0.0.1:{{admin}}\n  secret: "{SECRET}"\n')
    form = "Content-Type: application/x-www-form-urlencoded"
    async with start_gateway(text) as gateway:
        token, bystander = issuer.token(client_id="app"), issuer.token(sub="bob", sid="s-bob")
        assert (await gateway.get("/api/a", token)).status == 200
        basic = "Authorization: Basic " + b64encode(f"app:{SECRET}".encode()).decode()
        answer = await post(gateway, "/.gateway/main/revoke", urlencode({"token": token}), form, basic)
        assert (answer.status, answer.body) == (200, b"")
        await refused_everywhere(gateway, token)

        token = issuer.token(sid="s-1")
        logout = statement(
            issuer,
            "logout+jwt",
            aud="app",
            sid="s-1",
            exp=int(time.time()) + 60,
            events={"http://schemas.openid.net/event/backchannel-logout": {}},
        )
        body = urlencode({"logout_token": logout})
        assert (await post(gateway, "/.gateway/main/backchannel-logout", body, form)).status == 200
        await refused_everywhere(gateway, token)
        replay = await post(gateway, "/.gateway/main/backchannel-logout", body, form)
        assert (replay.status, json.loads(replay.body)["error"]) == (400, "invalid_request")

        token = issuer.token(sub="carol")
        event = statement(
            issuer,
            "secevent+jwt",
            aud="gateway",
            sub_id={"format": "iss_sub", "iss": issuer.url, "sub": "carol"},
            events={"https://schemas.openid.net/secevent/risc/event-type/account-disabled": {}},
        )
        answer = await post(gateway, "/.gateway/main/events", event, "Content-Type: application/secevent+jwt")
        assert answer.status == 202
        await refused_everywhere(gateway, token)

        token = issuer.token(sub="dave")
        order = {"kind": "subject", "issuer": "main", "id": "dave", "who": "ada", "why": "ticket 17"}
        fields = (f"Authorization: Bearer {SECRET}", "Content-Type: application/json")
        assert (await post(gateway, "/denylist", json.dumps(order), *fields, admin=True)).status == 201
        await refused_everywhere(gateway, token)
        assert (await post(gateway, "/denylist", json.dumps(order), fields[1], admin=True)).status == 401

        assert (await gateway.get("/api/a", bystander)).status == 200
        assert (await gateway.get("/.gateway/main/other")).code == "no_route"
        async with asyncio.timeout(SOON_S):
            while await gateway.metric("gateway_revocations_received_total", outcome="accepted") != 4:
                await asyncio.sleep(0.05)  # another worker's numbers are a second behind
        assert '"why": "ticket 17"' in gateway.log
        assert logout.split(".")[1] not in gateway.log
        assert SECRET not in gateway.log


async def test_a_token_whose_bit_is_set_in_its_issuers_list_is_refused(
    upstream: RecordingUpstream, issuer: TestIssuer, start_gateway: Start
) -> None:
    """No denylist is needed; a list that cannot be had is a 503 of its own, once the old one has ended."""
    lists = await RecordingUpstream.start()

    async def publish(seen: SeenRequest, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uri = f"{lists.url}{seen.line.split()[1].decode()}"
        lst = urlsafe_b64encode(zlib.compress(b"\x02")).rstrip(b"=").decode()
        body = statement(issuer, "statuslist+jwt", sub=uri, ttl=3, status_list={"bits": 1, "lst": lst})
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    lists.script = publish
    text = config_text(issuer.yaml() + f"    revocation: {{status_list: {{origins: ['{lists.url}']}}}}\n", upstream.url)
    async with start_gateway(text) as gateway:

        async def code(index: int) -> str:
            token = issuer.token(status={"status_list": {"idx": index, "uri": f"{lists.url}/1"}})
            return (await gateway.get("/api/a", token)).code

        assert [await code(0), await code(1), await code(0), await code(8)] == [
            "",
            "token_revoked",
            "",
            "token_invalid",
        ]
        assert len(lists.seen) == 1
        assert (await gateway.get("/api/a", issuer.token())).status == 200
        await lists.close()
        async with asyncio.timeout(SOON_S):
            while await code(0) != "status_unavailable":
                await asyncio.sleep(0.05)
        assert (await gateway.get("/api/a", issuer.token())).status == 200
