"""RFC 7009: who may revoke what, and what each mistake is called."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.inlets.stand import FORM, SECRET, Stand, access_token, basic
from tests.tokens.mint import NOW, NoKeys, header, signed

pytestmark = pytest.mark.asyncio

POST = {"client_id": "app", "client_secret": SECRET}
KEY = "token:main:token-1"


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({}, [basic()]),
        (POST, []),
        ({"client_id": "app"}, [basic()]),
        ({"token_type_hint": "access_token"}, [basic()]),
        ({"token_type_hint": "refresh_token"}, [basic()]),  # a hint is a hint
        ({"token_type_hint": "something", "more": "1"}, [basic()]),
        ({}, [basic("app", SECRET.replace(" ", "+"))]),
        ({}, [basic("%61pp", SECRET.replace(" ", "%20"))]),
    ],
)
async def test_a_client_takes_back_its_token(form: dict[str, str], fields: list[tuple[bytes, bytes]]) -> None:
    """200 with nothing in it; the token is denied for as long as it would have been accepted."""
    stand = Stand()
    answer = await stand.revoke({"token": access_token(), **form}, *fields)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header(b"cache-control") == b"no-store"
    assert stand.store.values == {KEY: f"{NOW:.3f}".encode()}
    assert stand.store.lives[KEY] == 600 + 30
    assert stand.received() == {("revocation_endpoint", "accepted"): 1}


@pytest.mark.parametrize(
    "token",
    [
        access_token(exp=NOW - 3600, iat=NOW - 7200),  # expired
        access_token(aud="others"),
        access_token(iss="https://elsewhere.example"),
        access_token(iss="https://quiet.example"),  # another issuer's, with an endpoint of its own or none
        access_token()[:-4] + "AAAA",
        signed(header(kid="p256-other"), {}).decode(),
        "a.b.c",
    ],
)
async def test_a_token_of_no_worth_is_what_the_client_wanted(token: str) -> None:
    """RFC 7009 §2.2: "invalid tokens do not cause an error response"; nothing is stored."""
    stand = Stand()
    answer = await stand.revoke({"token": token}, basic("backend", SECRET + "!"))
    assert (answer.status, answer.body) == (200, b"")
    assert stand.store.values == {}
    assert stand.received() == {("revocation_endpoint", "ignored"): 1}


@pytest.mark.parametrize(
    ("form", "fields", "status", "code"),
    [
        # the client
        ({"token": "t"}, [], 401, "invalid_client"),
        ({"token": "t"}, [basic("app", "wrong")], 401, "invalid_client"),
        ({"token": "t"}, [basic("nobody", SECRET)], 401, "invalid_client"),
        ({"token": "t"}, [basic("nobody", "")], 401, "invalid_client"),
        ({"token": "t"}, [basic("app", SECRET + "!")], 401, "invalid_client"),
        ({"token": "t"}, [(b"authorization", b"Basic !!!")], 401, "invalid_client"),
        ({"token": "t"}, [(b"authorization", b"Basic /w==")], 401, "invalid_client"),
        ({"token": "t"}, [(b"authorization", b"Bearer x")], 401, "invalid_client"),
        ({"token": "t", "client_id": "app"}, [], 401, "invalid_client"),
        ({"token": "t", **POST}, [basic()], 400, "invalid_request"),
        ({"token": "t", "client_id": "backend"}, [basic()], 400, "invalid_request"),
        # the request
        ({}, [basic()], 400, "invalid_request"),
        ({"token": ""}, [basic()], 400, "invalid_request"),
        (b"token=a.b.c&token=a.b.c", [basic()], 400, "invalid_request"),
        (b"token", [basic()], 400, "invalid_request"),
        (b"\xff=\xff", [basic()], 400, "invalid_request"),
        (b"token=%ff", [basic()], 400, "invalid_request"),
        (b"&".join(b"a%d=1" % number for number in range(99)), [basic()], 400, "invalid_request"),
        # the token
        ({"token": "opaque-refresh-token"}, [basic()], 400, "unsupported_token_type"),
        ({"token": "a.b.c.d.e"}, [basic()], 400, "unsupported_token_type"),
        ({"token": "☃.b.c"}, [basic()], 400, "unsupported_token_type"),
        ({"token": access_token(jti=...)}, [basic()], 400, "unsupported_token_type"),
        ({"token": access_token(client_id="another")}, [basic()], 400, "invalid_grant"),
        ({"token": access_token(client_id=...)}, [basic()], 400, "invalid_grant"),
    ],
)
async def test_each_mistake_has_its_name(
    form: dict[str, str] | bytes, fields: list[tuple[bytes, bytes]], status: int, code: str
) -> None:
    """The errors of RFC 6749 §5.2 and RFC 7009 §2.2.1, never stored by anyone; nothing is revoked."""
    stand = Stand()
    answer = await stand.revoke(form, *fields)
    assert (answer.status, answer.code) == (status, code)
    assert answer.header(b"cache-control") == b"no-store"
    assert answer.header(b"content-type") == b"application/json"
    assert (answer.header(b"www-authenticate") or b"").startswith(b"Basic ") == (status == 401)
    assert stand.store.values == {}
    assert stand.received() == {("revocation_endpoint", "refused"): 1}


async def test_a_form_is_a_form() -> None:
    """Another content type is not guessed at."""
    stand = Stand()
    body = urlencode({"token": access_token()}).encode()
    for fields in ([], [(b"content-type", b"application/json")], [(b"content-type", b"text/plain")]):
        answer = await stand.send("/.gateway/main/revoke", body, basic(), *fields)
        assert (answer.status, answer.code) == (400, "invalid_request")
    cased = (b"content-type", b"Application/X-WWW-form-urlencoded; charset=utf-8")
    assert (await stand.send("/.gateway/main/revoke", body, basic(), cased)).status == 200


@pytest.mark.parametrize("changes", [{"client_id": "another"}, {"client_id": ...}, {"client_id": ..., "azp": "x"}])
async def test_a_backend_may_revoke_any_token_if_it_is_told_so(changes: dict[str, Any]) -> None:
    """`tokens: any`."""
    stand = Stand()
    answer = await stand.revoke({"token": access_token(**changes)}, basic("backend", SECRET + "!"))
    assert answer.status == 200
    assert list(stand.store.values) == [KEY]


async def test_the_authorized_party_owns_a_token_without_client_id() -> None:
    """`azp` counts as RFC 9068's `client_id`."""
    stand = Stand()
    assert (await stand.revoke({"token": access_token(client_id=..., azp="app")}, basic())).status == 200
    assert list(stand.store.values) == [KEY]


async def test_what_cannot_be_done_now_may_be_tried_again() -> None:
    """503 with `Retry-After`: the client must assume that the token still exists."""

    broken = Stand()
    broken.store.broken = True
    for stand in (broken, Stand(keys=NoKeys())):
        answer = await stand.revoke({"token": access_token()}, basic())
        assert (answer.status, answer.code) == (503, "temporarily_unavailable")
        assert answer.header(b"retry-after")
        assert stand.received() == {("revocation_endpoint", "failed"): 1}


async def test_two_credentials_are_none() -> None:
    """As on every other path of the gateway."""
    stand = Stand()
    answer = await stand.send("/.gateway/main/revoke", b"token=a.b.c", FORM, basic(), basic())
    assert (answer.status, answer.code) == (400, "bad_request")
