"""OpenID Connect Back-Channel Logout 1.0: what a logout token must be, what it ends, and that it counts once."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.inlets.logout import EVENT
from tests.inlets.stand import FORM, Stand, access_token, statement
from tests.tokens.mint import ISSUER, NOW, header, signed

pytestmark = pytest.mark.asyncio

USED = "token:main:logout-1"


def logout_token(typ: str = "logout+jwt", kid: str = "p256", **changes: Any) -> bytes:
    """A logout token for a session of alice; claims given as `...` are left out."""
    ordinary = {
        "iss": ISSUER,
        "aud": "app",
        "iat": int(NOW) - 5,
        "exp": int(NOW) + 115,
        "jti": "logout-1",
        "sid": "phone",
        "sub": "alice",
        "events": {EVENT: {}},
    }
    return statement(typ, kid, **(ordinary | changes))


@pytest.mark.parametrize(
    ("changes", "settings", "key", "value"),
    [
        ({}, {}, "session:main:phone", f"{NOW:.3f}"),
        ({"sub": ...}, {}, "session:main:phone", f"{NOW:.3f}"),
        # up to the logout token's own time: what began since goes on
        ({"sid": ...}, {}, "subject:main:alice", f"{NOW - 5:.0f}"),
        ({}, {"sid_and_sub": "subject"}, "subject:main:alice", f"{NOW - 5:.0f}"),
        ({"sub": ...}, {"sid_and_sub": "subject"}, "session:main:phone", f"{NOW:.3f}"),
        ({"typ": "x", "events": {EVENT: {}, "https://other.example/event": 1}}, {}, "session:main:phone", f"{NOW:.3f}"),
    ],
)
async def test_a_logout_ends_a_session_or_a_user(
    changes: dict[str, Any], settings: dict[str, Any], key: str, value: str
) -> None:
    """The entry is there before the issuer is told 200, and stays as long as tokens live."""
    changes = {name: change for name, change in changes.items() if name != "typ"}
    stand = Stand(backchannel_logout={"audience": ["app"], **settings})
    answer = await stand.logout(logout_token(**changes))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header(b"cache-control") == b"no-store"
    assert stand.store.values.pop(USED)
    assert stand.store.values == {key: value.encode()}
    assert stand.store.lives[key] == 3600
    assert stand.received() == {("backchannel_logout", "accepted"): 1}


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (b"", "base64url"),
        (b"a.b.c", "malformed"),
        (access_token().encode(), "typ"),
        (logout_token("JWT"), "typ"),
        (signed(header(typ=...), {}), "typ"),
        (signed(header(typ="logout+jwt", alg="none"), {}), "alg"),
        (logout_token(kid="p256-other"), "kid"),
        (
            signed(header(typ="logout+jwt"), {"iss": ISSUER, "aud": "app", "iat": 1, "exp": NOW + 5}, "p256-x"),
            "signature",
        ),
        (logout_token(iss="https://other.example"), "iss"),
        (logout_token(iss=...), "iss"),
        (logout_token(aud="api"), "aud"),
        (logout_token(aud=...), "aud"),
        (logout_token(iat=...), "iat"),
        (logout_token(iat=NOW + 31), "iat"),
        (logout_token(exp=...), "exp"),
        (logout_token(exp=NOW - 30), "exp"),
        (logout_token(jti=...), "jti"),
        (logout_token(jti=5), "jti"),
        (logout_token(sid=..., sub=...), "neither sid nor sub"),
        (logout_token(sid=""), "sid"),
        (logout_token(events=...), "events"),
        (logout_token(events=[EVENT]), "events"),
        (logout_token(events={"https://other.example/event": {}}), "events"),
        (logout_token(events={EVENT: True}), "events"),
        (logout_token(nonce="n"), "nonce"),
        (logout_token(nonce=None), "nonce"),
        (logout_token(sub="x" * 5000, sid=...), "characters long"),
    ],
)
async def test_what_is_no_logout_token_ends_nothing(token: bytes, says: str) -> None:
    """400 `invalid_request` with the reason, never stored; nothing of the token is repeated."""
    stand = Stand()
    answer = await stand.logout(token)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert says in answer.document["error_description"]
    assert answer.header(b"cache-control") == b"no-store"
    assert stand.store.values == {}
    assert stand.received() == {("backchannel_logout", "refused"): 1}


async def test_a_logout_token_counts_once_everywhere() -> None:
    """A replay is refused by every gateway that shares the store, for as long as the token lives."""
    stand, other = Stand(), Stand()
    other.store.values = stand.store.values
    assert (await stand.logout(logout_token())).status == 200
    assert stand.store.lives[USED] == 115 + 30
    before = dict(stand.store.values)
    for gateway in (stand, other):
        answer = await gateway.logout(logout_token())
        assert (answer.status, answer.document["error_description"]) == (400, "jti was used before")
    assert stand.store.values == before


async def test_a_logout_that_was_not_stored_may_come_again() -> None:
    """503 while the store is away; the same token is good afterwards."""
    stand = Stand()
    stand.store.broken = True
    answer = await stand.logout(logout_token())
    assert (answer.status, answer.code) == (503, "temporarily_unavailable")
    assert answer.header(b"retry-after")
    stand.store.broken = False
    assert (await stand.logout(logout_token())).status == 200


async def test_issuers_that_set_no_type() -> None:
    """`token_type: any`; the events claim still tells a logout token from an ID token."""
    stand = Stand(backchannel_logout={"audience": ["app"], "token_type": "any"})
    assert (await stand.logout(logout_token("JWT"))).status == 200
    assert (await stand.logout(logout_token("JWT", jti="2", events=...))).status == 400


async def test_a_logout_is_a_form_with_one_token() -> None:
    """§2.5: application/x-www-form-urlencoded with logout_token."""
    stand = Stand()
    token = logout_token()
    for body, field in [
        (b"", FORM),
        (b"token=" + token, FORM),
        (b"logout_token=" + token + b"&logout_token=" + token, FORM),
        (b"logout_token=" + token, (b"content-type", b"application/json")),
    ]:
        answer = await stand.send("/.gateway/main/backchannel-logout", body, field)
        assert (answer.status, answer.code) == (400, "invalid_request")
