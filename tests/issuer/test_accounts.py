"""Accounts: registration, log-in, passwords, one-time tokens, throttling, the operator's side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.issuer.accounts import read_registration
from gateway.issuer.refusals import NameTaken, NotFound
from gateway.issuer.webhook import signature
from tests.issuer.desk import PASSWORD, Desk

pytestmark = pytest.mark.asyncio

WEBHOOK = {"url": "https://mail.example/hook", "secret": "0123456789abcdef"}
VERIFIED: dict[str, Any] = {"registration": "verified", "webhook": WEBHOOK}
GENEROUS = {"account": 1000, "address": 1000}


async def mail_of(desk: Desk) -> list[dict[str, object]]:
    """Everything that was sent so far, and nothing left over."""
    task = asyncio.create_task(desk.issuer.webhook.run())
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    found, desk.mail = desk.mail, []
    return found


async def test_a_new_account_is_signed_in_and_knows_itself(desk: Desk) -> None:
    """Register, then `me` with the token: names as compared, no password anywhere."""
    tokens = await desk.register("Alice", email="Alice@Example.ORG")
    me = await desk.get("me", tokens["access_token"])
    assert {key: me.json()[key] for key in ("username", "email", "email_verified", "roles")} == {
        "username": "alice",
        "email": "alice@example.org",
        "email_verified": False,
        "roles": [],
    }
    assert me.headers["cache-control"] == "no-store"
    assert (await desk.post("login", {"email": "ALICE@example.org", "password": PASSWORD})).status_code == 200


@pytest.mark.parametrize("name", ["ALICE", "\uff41\uff4c\uff49\uff43\uff45", " alice "])
async def test_names_that_look_alike_are_one_account(desk: Desk, name: str) -> None:
    """Case and width make no second account, and any spelling logs in."""
    await desk.register("alice")
    taken = await desk.post("register", {"username": name, "password": PASSWORD})
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    assert (await desk.post("login", {"username": name, "password": PASSWORD})).status_code == 200


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"username": "bob"}, 400, "invalid_request"),
        ({"password": PASSWORD}, 400, "invalid_request"),
        ({"username": "b b", "password": PASSWORD}, 400, "invalid_request"),
        ({"username": "b@b", "password": PASSWORD}, 400, "invalid_request"),
        ({"username": "b\u202eb", "password": PASSWORD}, 400, "invalid_request"),  # turns the text round
        ({"username": 1, "password": PASSWORD}, 400, "invalid_request"),
        ({"username": "b\x00b", "password": PASSWORD}, 400, "invalid_request"),
        ({"username": "\ud800", "password": PASSWORD}, 400, "invalid_request"),
        ({"email": "nobody", "password": PASSWORD}, 400, "invalid_request"),
        ({"username": "bob", "password": PASSWORD, "platform": "toaster"}, 400, "invalid_request"),
        ({"username": "bob", "password": PASSWORD, "device_name": "a\nb"}, 400, "invalid_request"),
        ({"username": "bob", "password": PASSWORD, "device_name": "x" * 129}, 400, "invalid_request"),
        ({"username": "bob", "password": "short"}, 422, "weak_password"),
        ({"username": "bob", "password": "x" * 257}, 422, "weak_password"),
        ({"username": "bob", "password": "Password123"}, 422, "weak_password"),
        ({"username": "bob", "password": "zzzzzzzzzz"}, 422, "weak_password"),
        ({"username": "bob-the-builder", "password": "Bob-the-Builder"}, 422, "weak_password"),
        ([], 400, "invalid_request"),
        ("text", 400, "invalid_request"),
    ],
)
async def test_a_registration_that_cannot_be_is_refused_with_its_reason(
    sqlite_url: str, members: object, status: int, code: str
) -> None:
    """What is wrong is named; nothing is made."""
    async with Desk(sqlite_url) as desk:
        answer = await desk.post("register", members)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert await desk.issuer.accounts.list() == []


async def test_a_body_must_be_json_of_reasonable_size(sqlite_url: str) -> None:
    """A form of another site cannot log in; duplicates and floods are refused."""
    async with Desk(sqlite_url) as desk:
        form = await desk.client.post("/auth/login", data={"username": "a", "password": PASSWORD})
        assert form.status_code == 415
        json_type = {"content-type": "application/json"}
        twice = b'{"username": "a", "username": "b", "password": "x"}'
        assert (await desk.client.post("/auth/login", content=twice, headers=json_type)).status_code == 400
        flood = b'{"username": "' + b"x" * 70_000 + b'"}'
        assert (await desk.client.post("/auth/login", content=flood, headers=json_type)).status_code == 413
        nested = b"[" * 60_000
        assert (await desk.client.post("/auth/login", content=nested, headers=json_type)).status_code == 400
        assert (await desk.client.put("/auth/login")).headers["allow"] == "POST"
        assert (await desk.get("nothing")).json()["code"] == "not_found"


async def test_passwords_from_two_keyboards_are_one(desk: Desk) -> None:
    """Composed and decomposed characters are the same password (NFKC)."""
    await desk.register("alice", "Grüße aus Köln")
    assert (await desk.login("alice", "Gru\u0308ße aus Ko\u0308ln"))["session_id"]


async def test_a_hash_follows_the_configured_cost_at_the_next_log_in(sqlite_url: str) -> None:
    """Parameters in the file apply to old accounts as soon as their password is known."""
    async with Desk(sqlite_url) as desk:
        await desk.register()
    async with Desk(sqlite_url, passwords={"time_cost": 2, "memory": "128KiB"}) as desk:
        for expected in ("t=1", "t=2"):
            async with desk.issuer.database.read() as connection:
                from gateway.issuer.store.tables import users

                kept = (await connection.execute(users.select())).one().password_hash
            assert kept.startswith("$argon2id$")
            assert expected in kept
            await desk.login()


async def test_a_wrong_password_an_unknown_name_and_a_disabled_account_are_one_answer(desk: Desk) -> None:
    """Status, headers and body are the same to the byte."""
    await desk.register("alice")
    await desk.register("dora")
    user = await desk.issuer.accounts.find_named("dora")
    await desk.issuer.accounts.disable(user.id)
    answers = [
        await desk.post("login", {"username": "alice", "password": "wrong password"}),
        await desk.post("login", {"username": "nobody", "password": PASSWORD}),
        await desk.post("login", {"username": "dora", "password": PASSWORD}),
        await desk.post("login", {"username": "no such name", "password": PASSWORD}),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1


async def test_guessing_is_slowed_down_more_and_more(desk: Desk) -> None:
    """Five failures are free; then 1, 2, 4 … seconds, for known and unknown names alike; sessions go on."""
    tokens = await desk.register("alice")
    for name in ("alice", "nobody"):
        waits = []
        for _ in range(9):
            answer = await desk.post("login", {"username": name, "password": "wrong password"})
            if answer.status_code == 429:
                waits.append(int(answer.headers["retry-after"]))
                assert (await desk.post("login", {"username": name, "password": PASSWORD})).status_code == 429
                desk.clock.wind(waits[-1])
        assert waits == [1, 2]
    assert (await desk.refresh(tokens["refresh_token"])).status_code == 200
    desk.clock.wind(3600)
    await desk.login("alice")


async def test_success_makes_an_account_start_anew(desk: Desk) -> None:
    """Typing it wrong four times a day never blocks anybody."""
    await desk.register("alice")
    for _ in range(4):
        for _ in range(4):
            await desk.post("login", {"username": "alice", "password": "wrong password"})
        await desk.login("alice")


async def test_one_address_cannot_try_many_names(sqlite_url: str) -> None:
    """Spreading guesses over names does not help a guesser; parallel ones are counted before they are tried."""
    async with Desk(sqlite_url, throttle={"address": 10}) as desk:
        answers = await asyncio.gather(
            *(desk.post("login", {"username": f"name{number}", "password": PASSWORD}) for number in range(30))
        )
        statuses = [answer.status_code for answer in answers]
        assert statuses.count(401) == 11
        assert statuses.count(429) == 19


async def test_more_log_ins_than_the_threads_can_do_are_told_to_come_back(sqlite_url: str) -> None:
    """One thread and one place to wait: the others get 503 with Retry-After at once."""
    passwords = {"time_cost": 3, "memory": "8MiB", "threads": 1, "waiting": 1}
    async with Desk(sqlite_url, passwords=passwords, throttle=GENEROUS) as desk:
        answers = await asyncio.gather(
            *(desk.post("login", {"username": "nobody", "password": PASSWORD}) for _ in range(12))
        )
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {answer.json()["code"] for answer in refused} == {"overloaded"}
        assert {answer.status_code for answer in answers} == {401, 503}


async def test_a_changed_password_ends_the_other_sessions(desk: Desk) -> None:
    """The session that changed it goes on, the others are denied; the old password is of no use."""
    here, there = await desk.register(), await desk.login()
    change = {"password": PASSWORD, "new_password": "another good one"}
    assert (await desk.post("password", {**change, "password": "wrong"}, here["access_token"])).status_code == 401
    weak = await desk.post("password", {**change, "new_password": "password1"}, here["access_token"])
    assert weak.json()["code"] == "weak_password"
    assert (await desk.post("password", change, here["access_token"])).status_code == 204
    assert (await desk.refresh(here["refresh_token"])).status_code == 200
    assert (await desk.refresh(there["refresh_token"])).status_code == 401
    assert desk.denylist.keys == [f"session:own:{there['session_id']}"]
    assert (await desk.post("login", {"username": "alice", "password": PASSWORD})).status_code == 401
    await desk.login(password="another good one")


async def test_a_verified_registration_tells_strangers_nothing(store_url: str) -> None:
    """The same 202 for a new and a known address; the account exists once its address is confirmed."""
    async with Desk(store_url, **VERIFIED) as desk:
        asked = {"email": "a@example.org", "username": "alice", "password": PASSWORD}
        first = await desk.post("register", asked)
        assert (first.status_code, first.json()) == (202, {"status": "confirmation_sent"})
        assert (await desk.post("login", {"email": "a@example.org", "password": PASSWORD})).status_code == 401
        [message] = await mail_of(desk)
        assert (message["event"], message["to"]) == ("verify_email", "a@example.org")
        assert str(message["signature"]).startswith(f"t={int(desk.clock.now)},v1=")
        confirmed = await desk.post("verify", {"token": message["token"]})
        assert confirmed.json()["status"] == "confirmed"
        assert (await desk.post("verify", {"token": message["token"]})).json()["code"] == "token_unusable"
        me = await desk.post("login", {"email": "a@example.org", "password": PASSWORD})
        assert (await desk.get("me", me.json()["access_token"])).json()["email_verified"] is True
        again = await desk.post("register", {**asked, "password": "a thief's password"})
        assert (again.status_code, again.content) == (first.status_code, first.content)
        [message] = await mail_of(desk)
        assert (message["event"], message["token"]) == ("account_exists", None)
        assert (await desk.post("login", {"email": "a@example.org", "password": PASSWORD})).status_code == 200


async def test_whoever_reads_the_mail_decides_about_the_password(sqlite_url: str) -> None:
    """A stranger who registers somebody's address first gets no account with the owner's confirmation."""
    async with Desk(sqlite_url, **VERIFIED) as desk:
        await desk.post("register", {"email": "a@example.org", "password": "the thief's choice"})
        await desk.post("register", {"email": "a@example.org", "password": PASSWORD})
        thief, owner = await mail_of(desk)
        assert (await desk.post("verify", {"token": owner["token"]})).status_code == 200
        assert (await desk.post("verify", {"token": thief["token"]})).status_code == 409
        await desk.post("login", {"email": "a@example.org", "password": PASSWORD})
        wrong = await desk.post("login", {"email": "a@example.org", "password": "the thief's choice"})
        assert wrong.status_code == 401


async def test_a_reset_goes_by_mail_once_and_ends_every_session(store_url: str) -> None:
    """Known and unknown names get the same answer; the token works once, within an hour."""
    async with Desk(store_url, webhook=WEBHOOK) as desk:
        tokens = await desk.register("alice", email="a@example.org")
        known = await desk.post("password/forgot", {"email": "a@example.org"})
        unknown = await desk.post("password/forgot", {"email": "b@example.org"})
        assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
        [message] = await mail_of(desk)
        assert (message["event"], message["to"]) == ("reset_password", "a@example.org")
        reset = {"token": message["token"], "new_password": "another good one"}
        weak = await desk.post("password/reset", {**reset, "new_password": "password"})
        assert weak.status_code == 422  # and the token is not used up
        assert (await desk.post("password/reset", reset)).status_code == 204
        assert (await desk.post("password/reset", reset)).json()["code"] == "token_unusable"
        assert (await desk.refresh(tokens["refresh_token"])).status_code == 401
        await desk.login(password="another good one")
        await desk.post("password/forgot", {"username": "alice"})
        [message] = await mail_of(desk)
        desk.clock.wind(3601)
        late = await desk.post("password/reset", {"token": message["token"], "new_password": "yet another one"})
        assert late.json()["code"] == "token_unusable"


async def test_closed_registration_is_for_the_operator(sqlite_url: str) -> None:
    """Strangers get 403; an operator's account can log in."""
    async with Desk(sqlite_url, registration="closed") as desk:
        refused = await desk.post("register", {"username": "bob", "password": PASSWORD})
        assert (refused.status_code, refused.json()["code"]) == (403, "registration_closed")
        asked = read_registration("bob", None, PASSWORD)
        user = await desk.issuer.accounts.add(asked, roles=["admin"])
        with pytest.raises(NameTaken):
            await desk.issuer.accounts.add(asked)
        tokens = await desk.login("bob")
        token = desk.issuer.access_tokens.read(tokens["access_token"])
        assert token is not None
        assert (token.sub, token.claims["roles"]) == (user.id, ["admin"])


async def test_claims_and_roles_go_into_the_tokens_that_the_file_names(sqlite_url: str) -> None:
    """A claim is released when `claims` lists it; the names that the issuer decides about are not free."""
    async with Desk(sqlite_url, claims=["tenant", "roles", "email_verified"]) as desk:
        tokens = await desk.register("alice", email="a@example.org")
        user = await desk.issuer.accounts.find_named("alice")
        await desk.issuer.accounts.set_claim(user.id, "tenant", {"id": 7})
        await desk.issuer.accounts.set_claim(user.id, "secret", "x")
        await desk.issuer.accounts.set_roles(user.id, ["ops", "ops", "dev"])
        for name in ("sub", "scope", "email", "roles"):
            with pytest.raises(ValueError, match="not a free claim"):
                await desk.issuer.accounts.set_claim(user.id, name, "x")
        answer = (await desk.refresh(tokens["refresh_token"])).json()
        token = desk.issuer.access_tokens.read(answer["access_token"])
        assert token is not None
        assert (token.claims["tenant"], token.claims["roles"]) == ({"id": 7}, ["ops", "dev"])
        assert "secret" not in token.claims
        assert "email" not in token.claims
        await desk.issuer.accounts.set_claim(user.id, "tenant", None)
        assert (await desk.issuer.accounts.find(user.id)).claims == {"secret": "x"}


async def test_a_disabled_account_is_out_everywhere_and_comes_back(desk: Desk) -> None:
    """Sessions end, log-ins are refused, until it is enabled again."""
    tokens = await desk.register()
    user = await desk.issuer.accounts.find_named("alice")
    await desk.issuer.accounts.disable(user.id)
    assert desk.denylist.keys == [f"session:own:{tokens['session_id']}"]
    assert (await desk.refresh(tokens["refresh_token"])).status_code == 401
    await desk.issuer.accounts.disable(user.id, disabled=False)
    await desk.login()


async def test_a_deleted_account_leaves_nothing_but_its_denials(desk: Desk) -> None:
    """By its user, who gives the password once more; the name is free again, the old tokens stay dead."""
    tokens = await desk.register()
    export = (await desk.get("me/export", tokens["access_token"])).json()
    assert (export["username"], len(export["sessions"])) == ("alice", 1)
    assert "hash" not in str(export)
    assert (await desk.post("me/delete", {"password": "wrong"}, tokens["access_token"])).status_code == 401
    assert (await desk.post("me/delete", {"password": PASSWORD}, tokens["access_token"])).status_code == 204
    assert desk.denylist.keys == [f"session:own:{tokens['session_id']}"]
    assert (await desk.get("me", tokens["access_token"])).json()["code"] == "token_revoked"
    assert (await desk.refresh(tokens["refresh_token"])).status_code == 401
    with pytest.raises(NotFound):
        await desk.issuer.accounts.find_named("alice")
    await desk.register()


async def test_what_is_too_old_is_swept(desk: Desk) -> None:
    """Throttles, one-time tokens and long-dead sessions are forgotten; living ones stay."""
    await desk.register(platform="other")
    alive = await desk.login(platform="mobile")
    desk.clock.wind(62 * 86_400)
    await desk.issuer.sweep()
    async with desk.issuer.database.read() as connection:
        from gateway.issuer.store.tables import sessions, throttles

        assert [row.id for row in (await connection.execute(sessions.select())).all()] == [alive["session_id"]]
        assert (await connection.execute(throttles.select())).all() == []


async def test_a_signature_binds_the_moment_and_the_body() -> None:
    """The receiver of the webhook can tell a genuine, recent call."""
    assert signature(b"k" * 16, 1, b"{}") == signature(b"k" * 16, 1, b"{}")
    assert len({signature(b"k" * 16, 1, b"{}"), signature(b"k" * 16, 2, b"{}"), signature(b"x" * 16, 1, b"{}")}) == 3
