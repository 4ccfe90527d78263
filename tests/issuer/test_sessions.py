"""Sessions: rotation, lost answers, stolen tokens, lifetimes, log-out."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from sqlalchemy import select

from gateway.issuer.store.tables import sessions
from tests.issuer.desk import Clock, Desk

pytestmark = pytest.mark.asyncio

DAY = 86_400.0


async def test_each_refresh_gives_another_token_and_a_fresh_access_token(desk: Desk) -> None:
    """The chain goes on; the session stays the same."""
    first = await desk.register()
    second = (await desk.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["session_id"] == first["session_id"]
    assert (second["token_type"], 540 <= second["expires_in"] <= 660) == ("Bearer", True)


async def test_a_lost_answer_is_not_a_theft(desk: Desk) -> None:
    """Within the grace period the same refresh gives the same successor, however often."""
    first = await desk.register()
    lost = await desk.refreshed(first["refresh_token"])
    desk.clock.wind(30)
    assert await desk.refreshed(first["refresh_token"]) == lost
    assert await desk.refreshed(first["refresh_token"]) == lost
    assert (await desk.refresh(lost)).status_code == 200
    assert desk.denylist.entries == []


async def test_a_client_one_step_behind_is_served_after_a_long_gap(desk: Desk) -> None:
    """Offline for two days with the answer lost: the session goes on, with another successor than the lost one."""
    first = await desk.register(platform="mobile")
    lost = await desk.refreshed(first["refresh_token"])
    desk.clock.wind(2 * DAY)
    found = await desk.refreshed(first["refresh_token"])
    assert found != lost
    assert await desk.refreshed(first["refresh_token"]) == found
    assert (await desk.refresh(found)).status_code == 200


async def test_of_two_who_hold_the_same_token_the_second_to_come_back_ends_the_session(desk: Desk) -> None:
    """A thief and the owner use one token some time apart; the one whose successor was replaced shows the theft."""
    first = await desk.register()
    of_thief = await desk.refreshed(first["refresh_token"])
    desk.clock.wind(300)
    of_owner = await desk.refreshed(first["refresh_token"])
    desk.clock.wind(300)
    assert (await desk.refresh(of_thief)).status_code == 401
    assert (await desk.refresh(of_owner)).status_code == 401
    assert desk.denylist.keys == [f"session:own:{first['session_id']}"]


async def test_an_old_token_ends_its_session_and_no_other(desk: Desk) -> None:
    """A stolen token that comes two steps later ends that session; its access tokens are denied; the others live."""
    stolen = await desk.register(device_name="phone")
    other = await desk.login(device_name="laptop")
    second = await desk.refreshed(stolen["refresh_token"])
    third = await desk.refreshed(second)
    replay = await desk.refresh(stolen["refresh_token"])
    assert (replay.status_code, replay.json()["code"]) == (401, "session_ended")
    assert desk.denylist.keys == [f"session:own:{stolen['session_id']}"]
    [entry] = desk.denylist.entries
    assert entry.ttl_s is not None
    assert entry.ttl_s > 660  # longer than any access token of the session
    assert (await desk.refresh(third)).status_code == 401
    assert (await desk.refresh(other["refresh_token"])).status_code == 200


async def test_no_session_ever_has_two_live_tokens(desk: Desk) -> None:
    """Thirty refreshes at once with the same token agree on one successor."""
    first = await desk.register()
    found = await asyncio.gather(*(desk.refreshed(first["refresh_token"]) for _ in range(30)))
    assert len(set(found)) == 1
    async with desk.issuer.database.read() as connection:
        assert (await connection.execute(select(sessions.c.sequence))).scalars().all() == [2]


async def test_what_is_kept_cannot_be_used(desk: Desk) -> None:
    """The store holds no refresh token, and not what one could be made from without having one."""
    first = await desk.register()
    second = await desk.refreshed(first["refresh_token"])
    async with desk.issuer.database.read() as connection:
        row = (await connection.execute(select(sessions))).one()
    kept = [value for value in row if isinstance(value, bytes)]
    for text in (first["refresh_token"], second):
        token = desk.issuer.sessions.recognise(text)
        assert token is not None
        assert token.secret not in kept
        assert text not in [value for value in row if isinstance(value, str)]


@pytest.mark.parametrize(("platform", "idle_days", "absolute_days"), [("web", 7, 30), ("mobile", 90, 365)])
async def test_a_session_ends_when_idle_or_old(
    sqlite_url: str, platform: str, idle_days: int, absolute_days: int
) -> None:
    """Lifetimes are those of the platform; a refresh prolongs the idle one only."""
    async with Desk(sqlite_url) as desk:
        token = (await desk.register(platform=platform))["refresh_token"]
        steps = (absolute_days - 1) // (idle_days - 1)
        for _ in range(steps):
            desk.clock.wind((idle_days - 1) * DAY)
            token = await desk.refreshed(token)
        desk.clock.wind((absolute_days - steps * (idle_days - 1)) * DAY)
        assert (await desk.refresh(token)).json()["detail"].startswith("The session has been idle")
        token = (await desk.login(platform=platform))["refresh_token"]
        desk.clock.wind(idle_days * DAY + 1)
        assert (await desk.refresh(token)).status_code == 401
        assert desk.denylist.entries == []  # nothing to deny: its access tokens are long gone


@pytest.mark.parametrize("text", ["", "gwr_", "x" * 95, "gwr_" + "A" * 91, "gwr_" + "é" * 91])
async def test_a_token_that_is_not_ours_changes_nothing(desk: Desk, text: str) -> None:
    """Whatever is sent, it is refused in one way."""
    kept = (await desk.register())["refresh_token"]
    answer = await desk.refresh(text)
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
    assert (await desk.refresh(kept[:-2] + ("AA" if kept[-2:] != "AA" else "BB"))).status_code == 401
    assert (await desk.refresh(kept)).status_code == 200


async def test_a_log_out_is_denied_everywhere_and_may_come_twice_and_late(desk: Desk) -> None:
    """With the access token, with an expired one, or with the refresh token alone; again and again."""
    for kind in ("access", "expired", "refresh"):
        tokens = await (desk.login() if desk.denylist.entries else desk.register())
        if kind == "expired":
            desk.clock.wind(5000)
        for _ in range(2):
            if kind == "refresh":
                answer = await desk.post("logout", {"refresh_token": tokens["refresh_token"]})
            else:
                answer = await desk.post("logout", token=tokens["access_token"])
            assert answer.status_code == 204
        assert desk.denylist.keys[-1] == f"session:own:{tokens['session_id']}"
        assert (await desk.refresh(tokens["refresh_token"])).status_code == 401
    assert (await desk.post("logout", token="not.a.token")).status_code == 401
    assert (await desk.post("logout")).json()["code"] == "token_missing"


async def test_a_denylist_that_is_down_gets_the_revocation_later(desk: Desk) -> None:
    """A log-out during the outage is answered; the entry is kept and handed over when the denylist is back."""
    tokens = await desk.register()
    desk.denylist.is_down = True
    assert (await desk.post("logout", token=tokens["access_token"])).status_code == 204
    assert (desk.denylist.entries, desk.issuer.denials.pending) == ([], 1)
    desk.denylist.is_down = False
    desk.clock.wind(60)
    await desk.issuer.denials.deliver()
    assert desk.denylist.keys == [f"session:own:{tokens['session_id']}"]
    assert desk.issuer.denials.pending == 0


async def test_devices_are_listed_and_ended_by_their_user_only(desk: Desk) -> None:
    """Each log-in is a session with platform, name and address; somebody else's cannot be seen or ended."""
    phone = await desk.register(platform="mobile", device_name="Alice's phone")
    desk.clock.wind(10)
    laptop = await desk.login(platform="desktop", device_name="laptop")
    stranger = await desk.register("mallory")
    listed = (await desk.get("sessions", laptop["access_token"])).json()["sessions"]
    assert [(item["device_name"], item["platform"], item["current"]) for item in listed] == [
        ("laptop", "desktop", True),
        ("Alice's phone", "mobile", False),
    ]

    async def end(sid: str, token: str) -> httpx2.Response:
        return await desk.client.delete(f"/auth/sessions/{sid}", headers={"authorization": f"Bearer {token}"})

    assert (await end(phone["session_id"], stranger["access_token"])).status_code == 404
    assert (await end("nonsense", laptop["access_token"])).status_code == 404
    assert (await end(phone["session_id"], laptop["access_token"])).status_code == 204
    assert (await desk.refresh(phone["refresh_token"])).status_code == 401
    assert (await desk.get("me", phone["access_token"])).json()["code"] == "token_revoked"
    assert len((await desk.get("sessions", laptop["access_token"])).json()["sessions"]) == 1


async def test_all_sessions_end_or_all_others(desk: Desk) -> None:
    """`logout-all` ends everything of the user, with `keep_current` everything else."""
    first, second, third = await desk.register(), await desk.login(), await desk.login()
    answer = await desk.post("logout-all", {"keep_current": True}, first["access_token"])
    assert answer.json() == {"ended": 2}
    assert (await desk.refresh(second["refresh_token"])).status_code == 401
    assert (await desk.post("logout-all", token=first["access_token"])).json() == {"ended": 1}
    assert set(desk.denylist.keys) == {f"session:own:{tokens['session_id']}" for tokens in (first, second, third)}


async def test_the_re_sync_call_says_what_to_do(desk: Desk) -> None:
    """Valid, expired, revoked and unknown tokens, of either kind: go on, refresh, or sign in, and until when."""
    tokens = await desk.register(platform="mobile")
    access, refresh = tokens["access_token"], tokens["refresh_token"]

    async def ask(token: str) -> tuple[str, str, bool]:
        answer = (await desk.get("session", token)).json()
        assert answer["server_time"] == desk.clock.now
        return answer["token"], answer["action"], answer["until"] is not None

    assert await ask(access) == ("valid", "continue", True)
    assert await ask(refresh) == ("valid", "refresh", True)
    desk.clock.wind(DAY)
    assert await ask(access) == ("expired", "refresh", True)
    assert await ask("garbage") == ("unknown", "sign_in", False)
    second = await desk.refreshed(refresh)
    assert await ask(refresh) == ("valid", "refresh", True)  # one step behind: still served
    third = await desk.refreshed(second)
    assert await ask(refresh) == ("revoked", "sign_in", False)
    assert (await desk.refresh(third)).status_code == 200  # asking has changed nothing
    await desk.post("logout", {"refresh_token": third})
    assert await ask(access) == ("revoked", "sign_in", False)
    assert await ask(third) == ("revoked", "sign_in", False)
    late = await desk.login(platform="web")
    desk.clock.wind(8 * DAY)
    assert await ask(late["access_token"]) == ("expired", "sign_in", False)
    assert await ask(late["refresh_token"]) == ("expired", "sign_in", False)


async def test_gateways_of_one_store_share_sessions(store_url: str) -> None:
    """What one gateway began another refreshes, and a third ends."""
    clock = Clock()
    async with Desk(store_url, clock=clock) as one, Desk(store_url, clock=clock) as two:
        first = await one.register()
        second = await two.refreshed(first["refresh_token"])
        assert await one.refreshed(first["refresh_token"]) == second
        assert (await two.get("me", first["access_token"])).json()["username"] == "alice"
        await two.post("logout", token=first["access_token"])
        assert (await one.refresh(second)).status_code == 401
