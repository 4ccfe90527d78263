"""Inlets in front of the pipeline: whose requests they take, and that each is accounted for."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.inlets.stand import EVENT_TOKEN, FORM, SECRET, Stand, access_token, basic
from tests.inlets.test_events import event_token
from tests.inlets.test_logout import logout_token

pytestmark = pytest.mark.asyncio


async def test_each_issuer_has_the_endpoints_that_it_accepts() -> None:
    """What no issuer names is not there, and goes on like every other request."""
    stand = Stand(clients={}, shared_signals=None)
    assert sorted(stand.inlets) == [b"/.gateway/main/backchannel-logout"]
    for path in (
        "/",
        "/.gateway/main/revoke",
        "/.gateway/main/events",
        "/.gateway/main/backchannel-logout/",
        "/.gateway/main/backchannel%2Dlogout",
        "/.gateway/quiet/backchannel-logout",
        "//.gateway/main/backchannel-logout",
    ):
        assert (await stand.send(path)).status == 299
        assert stand.passed.pop() == path
    assert stand.records == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"])
async def test_messages_are_posted(method: str) -> None:
    """405 says so."""
    stand = Stand()
    answer = await stand.send("/.gateway/main/events", method=method)
    assert (answer.status, answer.header(b"allow")) == (405, b"POST")


async def test_a_message_is_bounded() -> None:
    """By what it says and by what comes; in pieces it is put together."""
    stand = Stand()
    body = b"token=" + access_token().encode()
    assert (await stand.send("/.gateway/main/revoke", body, FORM, basic(), chunk=7)).status == 200
    long = (b"content-length", b"70000")
    assert (await stand.send("/.gateway/main/revoke", b"", FORM, long)).code == "content_too_large"
    endless = await stand.send("/.gateway/main/revoke", b"a" * 70_000, FORM, chunk=1000)
    assert (endless.status, endless.header(b"connection")) == (413, b"close")
    assert stand.received() == {
        ("revocation_endpoint", "accepted"): 1,
        ("revocation_endpoint", "refused"): 2,
    }


async def test_every_message_is_accounted_for_and_nothing_of_a_token_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """One record each, under the issuer's and the endpoint's name, with the reason; one audit line per entry."""
    stand = Stand()
    token, logout, event = access_token(), logout_token(), event_token()
    with caplog.at_level(logging.DEBUG):
        await stand.revoke({"token": token}, basic())
        await stand.revoke({"token": token}, basic("app", "wrong"))
        await stand.logout(logout)
        await stand.logout(logout)
        await stand.push(event)
        await stand.push(b"x" + event)
    assert [(record.route, record.status, record.code) for record in stand.records] == [
        ("main/revoke", 200, ""),
        ("main/revoke", 401, "invalid_client"),
        ("main/backchannel-logout", 200, ""),
        ("main/backchannel-logout", 400, "invalid_request"),
        ("main/events", 202, ""),
        ("main/events", 400, "invalid_request"),
    ]
    assert stand.records[3].cause == "jti was used before"
    assert all(record.duration_s >= 0 and record.client == "192.0.2.9" for record in stand.records)
    audit = [line.getMessage() for line in caplog.records if line.name == "gateway.audit"]
    assert audit == [
        'revoked {"key": "token:main:token-1", "source": "revocation_endpoint", "who": "client app", '
        '"why": "token handed in", "ttl_s": 630.0}',
        'revoked {"key": "session:main:phone", "source": "backchannel_logout", "who": "issuer main", '
        '"why": "back-channel logout", "ttl_s": 3600.0}',
        'revoked {"key": "token:main:logout-1", "source": "backchannel_logout", "who": "issuer main", '
        '"why": "back-channel logout", "ttl_s": 145.0}',
        'revoked {"key": "subject:main:alice", "source": "shared_signals", "who": "issuer main", '
        '"why": "session-revoked", "ttl_s": 3600.0}',
    ]
    written = caplog.text + repr(stand.records) + repr(stand.inlets)
    for secret in (SECRET, token, logout.decode(), event.decode()):
        for part in secret.split("."):
            assert part not in written


async def test_the_id_of_a_request_is_told() -> None:
    """As on every other answer."""
    stand = Stand()
    answer = await stand.push(event_token())
    assert answer.header(b"x-request-id") == stand.records[0].request_id.encode()
    refused = await stand.push(b"", EVENT_TOKEN, EVENT_TOKEN)
    assert (refused.code, refused.header(b"x-request-id")) == ("bad_request", stand.records[1].request_id.encode())


async def test_a_fault_of_our_own_is_told_to_nobody_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """500, counted, and the sender may come again."""
    stand = Stand()

    async def fault(*_: Any) -> None:
        raise RuntimeError("secret detail")

    stand.store.add = fault  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.ERROR, "gateway.inlets"):
        answer = await stand.push(event_token())
    assert (answer.status, answer.body) == (500, b"")
    assert stand.received() == {("shared_signals", "failed"): 1}
    assert "main/events failed" in caplog.text
