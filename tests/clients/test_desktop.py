"""The desktop client of `docs/clients/desktop.py`: the system's browser, one refresh for all threads, a kept queue."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import stat
import sys
import threading
import types
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from docs.clients import desktop
from docs.clients.desktop import Desktop, FileStore, Queue, SignInNeeded, TryLater, main
from tests.clients.shop import DOCS, PASSWORD, Phone, Shop, form_of, gateway_of
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CLIENTS = """\
  access_token: 2s
  clients:
    desktop: {redirect_uris: ["http://127.0.0.1/callback"], scopes: [openid]}
"""
NEVER = 1e12  # a moment that a wrong clock takes for the end of a token


class Line(httpx2.BaseTransport):
    """A network that can be cut, and that loses the answers it is told to lose."""

    def __init__(self) -> None:
        self.is_cut = False
        self.losing: list[str] = []  # paths; each loses one answer
        self.seen: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None  # happens before the next answer is read
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.is_cut:
            raise httpx2.ConnectError("no network")
        answer = self._inner.handle_request(request)
        self.seen.append(request.url.path)
        self.meanwhile()
        if request.url.path in self.losing:
            self.losing.remove(request.url.path)
            answer.close()
            raise httpx2.ReadError("cut off")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._inner.close()


class Desk:
    """One user's desktop: the app may be closed and opened again, and its browser signs in who sits there."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.line = Line()
        self.person = ""
        self._open = contextlib.ExitStack()
        self.app = self.start()

    def start(self) -> Desktop:
        """Open the app on what the one before has kept."""
        self.close()
        self.line = Line()
        http = self._open.enter_context(httpx2.Client(base_url=self.url, transport=self.line, timeout=10))
        queue = self._open.enter_context(contextlib.closing(Queue(self.folder / "queue.db")))
        self.app = Desktop(http, FileStore(self.folder / "tokens.json"), queue, self.browse)
        return self.app

    def close(self) -> None:
        """Close the app."""
        self._open.close()

    def browse(self, url: str) -> None:
        """The system's browser, and the person in front of it: on a thread of its own, as `webbrowser.open` returns."""
        threading.Thread(target=self._visit, args=(url,)).start()

    def _visit(self, url: str) -> None:
        with httpx2.Client(trust_env=False, timeout=10) as browser:
            fields = form_of(browser.get(url).text) | {"username": self.person, "password": PASSWORD}
            answer = browser.post(url.partition("?")[0], data=fields)
            stranger = httpx2.URL(answer.headers["location"]).copy_set_param("state", "guessed")
            assert browser.get(stranger).status_code == 404
            assert browser.get(answer.headers["location"]).text == "You can close this window."

    async def sign_in(self, phone: Phone) -> None:
        """Sign in as the phone's user."""
        self.person = phone.name
        await asyncio.to_thread(self.app.sign_in)

    def order(self, what: str) -> None:
        """Write."""
        self.app.write("/api/orders", {"what": what})

    def waiting(self) -> list[str]:
        """What waits of whoever is signed in."""
        return [write.body["what"] for write in self.app.queue.waiting(self.app.user)]

    def keep(self, **changes: Any) -> None:
        """Change what is kept."""
        store = FileStore(self.folder / "tokens.json")
        store.save({**store.load(), **changes})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    open_shop: Shop, tmp_path_factory: pytest.TempPathFactory, redis_session: RedisServer
) -> AsyncIterator[str]:
    """A gateway's origin."""
    folder = tmp_path_factory.mktemp("desktop")
    async with gateway_of(open_shop, folder, redis_session.url, issuer=CLIENTS) as gateway:
        yield f"http://127.0.0.1:{gateway.port}"


@pytest_asyncio.fixture(loop_scope="module")
async def phone(url: str) -> AsyncIterator[Phone]:
    """Another device, on which alice has registered."""
    async with Phone(url) as phone:
        await phone.register(f"alice-{uuid.uuid4().hex}")
        yield phone


@pytest.fixture
def new_desk(url: str, tmp_path: Path) -> Iterator[Desk]:
    """A desktop where nobody has signed in."""
    desk = Desk(url, tmp_path)
    yield desk
    desk.close()


@pytest_asyncio.fixture(loop_scope="module")
async def desk(new_desk: Desk, phone: Phone, shop: Shop) -> Desk:
    """A desktop where alice has signed in."""
    await new_desk.sign_in(phone)
    return new_desk


async def test_the_browser_signs_in_and_the_app_orders(desk: Desk, phone: Phone, shop: Shop) -> None:
    """The session is one of the user's devices, the order is the user's, and nobody else can read the tokens."""
    desk.order("tea")
    assert await asyncio.to_thread(desk.app.catch_up) == 1
    assert [(order.user, order.what) for order in shop.orders] == [(desk.app.user, "tea")]
    assert desk.app.user == phone.id
    devices = await phone.devices()
    assert sorted(device["platform"] for device in devices) == ["desktop", "mobile"]
    assert stat.S_IMODE((desk.folder / "tokens.json").stat().st_mode) == 0o600


async def test_what_is_written_offline_arrives_once(desk: Desk, shop: Shop) -> None:
    """It waits, also while the app is closed, and goes out in order."""
    desk.line.is_cut = True
    for what in ("tea", "milk"):
        desk.order(what)
        with pytest.raises(TryLater):
            await asyncio.to_thread(desk.app.catch_up)
    desk.start()
    assert desk.waiting() == ["tea", "milk"]
    assert await asyncio.to_thread(desk.app.catch_up) == 2
    assert await asyncio.to_thread(desk.app.catch_up) == 0
    assert shop.whats == ["tea", "milk"]


async def test_an_order_whose_answer_was_lost_is_carried_out_once(desk: Desk, shop: Shop) -> None:
    """The app cannot know whether it was carried out, so it asks again; the key tells that it is the same."""
    desk.order("tea")
    desk.line.losing = ["/api/orders"]
    with pytest.raises(TryLater):
        await asyncio.to_thread(desk.app.catch_up)
    assert shop.whats == ["tea"]
    assert desk.waiting() == ["tea"]
    assert await asyncio.to_thread(desk.app.catch_up) == 1
    assert shop.whats == ["tea"]  # the gateway knew the key


async def test_threads_that_come_together_refresh_once(desk: Desk) -> None:
    """Whoever comes second finds the new token."""
    desk.keep(expires_at=0)
    used = FileStore(desk.folder / "tokens.json").load()["access_token"]
    got = await asyncio.gather(*(asyncio.to_thread(desk.app.refresh, used) for _ in range(8)))
    assert len(set(got)) == 1
    assert used not in got
    assert desk.line.seen.count("/auth/token") == 2  # the code, and the refresh


async def test_a_lost_refresh_answer_costs_nothing(
    desk: Desk, phone: Phone, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same refresh token is sent again, at once or after the app was opened again, and the session goes on."""
    monkeypatch.setattr(desktop, "REPEATS_S", (0.0, 0.0, 0.0))
    desk.order("tea")
    desk.keep(expires_at=0)
    desk.line.losing = ["/auth/token"]
    assert await asyncio.to_thread(desk.app.catch_up) == 1
    desk.keep(expires_at=0)
    desk.line.losing = ["/auth/token"] * 3
    desk.order("milk")
    with pytest.raises(TryLater):
        await asyncio.to_thread(desk.app.catch_up)
    desk.start()
    assert await asyncio.to_thread(desk.app.catch_up) == 1
    assert len(await phone.devices()) == 2


async def test_an_expired_token_is_refreshed_whatever_the_clock_says(desk: Desk, phone: Phone) -> None:
    """The gateway's answer decides, the clock only avoids asking in vain."""
    desk.keep(expires_at=NEVER)
    kept = FileStore(desk.folder / "tokens.json").load()
    async with asyncio.timeout(20):
        while (await phone.worth(kept["access_token"]))["token"] != "expired":
            await asyncio.sleep(0.05)  # its two seconds have to pass
    answer = await asyncio.to_thread(desk.app.send, "GET", "/auth/me", desk.app.user)
    assert answer.json()["username"] == phone.name


async def test_a_queue_waits_for_its_own_user(
    desk: Desk, phone: Phone, shop: Shop, url: str, ended_by: Callable[[Phone, Desk], Any]
) -> None:
    """A session that was ended elsewhere asks for a sign-in and keeps the queue; another user does not send it."""
    desk.order("tea")
    await ended_by(phone, desk)
    with pytest.raises(SignInNeeded):
        await asyncio.to_thread(desk.app.catch_up)
    with pytest.raises(SignInNeeded):
        desk.order("bread")
    async with Phone(url) as other:
        await other.register(f"bob-{uuid.uuid4().hex}")
        await desk.sign_in(other)
    desk.order("milk")
    assert await asyncio.to_thread(desk.app.catch_up) == 1
    assert [(order.user, order.what) for order in shop.orders] == [(other.id, "milk")]
    await asyncio.to_thread(desk.app.sign_out)
    await desk.sign_in(phone)
    assert desk.waiting() == ["tea"]
    assert await asyncio.to_thread(desk.app.catch_up) == 1
    assert [(order.user, order.what) for order in shop.orders[1:]] == [(phone.id, "tea")]


async def test_another_window_signs_in_while_the_queue_is_sent(
    desk: Desk, phone: Phone, shop: Shop, url: str, tmp_path: Path
) -> None:
    """The rest of the first user's writes does not go out under the other name."""
    (tmp_path / "other").mkdir()
    other = Desk(url, tmp_path / "other")
    async with Phone(url) as bob:
        await bob.register(f"bob-{uuid.uuid4().hex}")
        await other.sign_in(bob)
    other.close()
    for what in ("tea", "milk"):
        desk.order(what)
    desk.line.meanwhile = lambda: desk.keep(**FileStore(tmp_path / "other/tokens.json").load())
    with pytest.raises(SignInNeeded):
        await asyncio.to_thread(desk.app.flush, phone.id)
    assert [(order.user, order.what) for order in shop.orders] == [(phone.id, "tea")]
    assert [write.body["what"] for write in desk.app.queue.waiting(phone.id)] == ["milk"]


async def _by_the_phone(phone: Phone, _: Desk) -> None:
    await phone.end_others()


async def _by_the_phone_before_a_refresh(phone: Phone, desk: Desk) -> None:
    await phone.end_others()
    # As if it had been known to be alive a moment ago: the refresh finds out.
    desk.keep(expires_at=0)
    with pytest.raises(SignInNeeded):
        await asyncio.to_thread(desk.app.flush, desk.app.user)


@pytest.fixture(params=[_by_the_phone, _by_the_phone_before_a_refresh])
def ended_by(request: pytest.FixtureRequest) -> Any:
    """How the session comes to its end."""
    return request.param


async def test_a_sign_out_counts_although_it_is_offline(desk: Desk, phone: Phone) -> None:
    """The app forgets the user at once; the gateway hears of it later, and the session ends there too."""
    desk.line.is_cut = True
    await asyncio.to_thread(desk.app.sign_out)
    with pytest.raises(SignInNeeded):
        _ = desk.app.user
    assert len(await phone.devices()) == 2
    desk.start()
    with pytest.raises(SignInNeeded):
        await asyncio.to_thread(desk.app.catch_up)
    assert [device["platform"] for device in await phone.devices()] == ["mobile"]
    assert FileStore(desk.folder / "tokens.json").load() == {"leaving": []}


async def test_the_command_line(desk: Desk, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command does what it says, and its exit code tells whether to wait or to sign in."""
    shop.refusing = {"stale bread": (422, ""), "tea": (503, "Retry-After: 1\r\n")}

    async def run(*words: str) -> tuple[int, str]:
        arguments = ["--gateway", desk.url, "--folder", str(desk.folder / "own"), *words]
        code = await asyncio.to_thread(main, arguments, desk.browse)
        return code, capsys.readouterr().out

    assert await run("order", "tea") == (3, "Sign in first. What you wrote is kept.\n")
    assert await run("sign-in") == (0, "0 sent.\n")
    assert await run("order", "milk") == (0, "1 sent.\n")
    refused = """Refused: {"what": "stale bread"} (422)\n"""
    assert await run("order", "stale bread") == (0, "0 sent.\n" + refused)
    assert await run("order", "tea") == (1, "No connection. What you wrote is kept and sent later.\n")
    shop.refusing = {}
    assert await run("sync") == (0, "1 sent.\n" + refused)
    assert shop.whats == ["milk", "tea"]
    assert await run("sign-out") == (0, "")
    assert (await run("sync"))[0] == 3


async def test_the_commands_of_the_manual(desk: Desk, shop: Shop) -> None:
    """They work as they are printed, for another gateway."""
    text = (DOCS / "clients.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python desktop.py (.*)$", text, flags=re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line.replace("https://app.example", desk.url))
        assert await asyncio.to_thread(main, ["--folder", str(desk.folder / "own"), *words], desk.browse) == 0
    assert shop.whats == ["a pound of tea"]


async def test_a_keyring_is_used_where_there_is_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then no file holds a token."""
    kept: dict[tuple[str, str], str] = {}
    keyring: Any = types.ModuleType("keyring")
    keyring.get_password = lambda service, name: kept.get((service, name))
    keyring.set_password = lambda service, name, value: kept.__setitem__((service, name), value)
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    own = desk.folder / "own"
    command = ["--gateway", desk.url, "--folder", str(own), "sign-in"]
    assert await asyncio.to_thread(main, command, desk.browse) == 0
    [(place, secret)] = kept.items()
    assert place == (desk.url, "desktop")
    assert "gwr_" in secret
    assert list(own.rglob("*.json")) == []
