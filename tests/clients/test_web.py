"""The web page of `docs/clients/web/` in a real browser: its queue outlives the network, the session and the user."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from docs.clients.desktop import Desktop, FileStore, Queue
from tests.browser import Browser
from tests.clients.shop import DOCS, PASSWORD, Phone, Shop, gateway_of, trusting
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ACCESS, REFRESH = "__Host-gateway-access", "__Host-gateway-refresh"
ISSUER = """\
  web: {}
  clients:
    desktop: {redirect_uris: ["http://127.0.0.1/callback"], scopes: [openid]}
"""
# What an app's own functions would be; the examples of the manual call them.
FUNCTIONS = """
    window.called = [];
    window.signIn = () => called.push("signIn");
    window.refresh = async () => called.push("refresh");
    window.open = () => called.push("open");
"""


async def eventually(is_so: Callable[[], Any], deadline_s: float = 20) -> None:
    """Wait until it is so, in another process."""
    async with asyncio.timeout(deadline_s):
        while not is_so():
            await asyncio.sleep(0.02)


class Page:
    """The page as its user sees it."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.url = url

    async def sign_in(self, name: str) -> None:
        """Fill in the form and wait until it worked."""
        await self.browser.fill("#name", name)
        await self.browser.fill("#password", PASSWORD)
        await self.browser.click("#sign-in button")
        await self.shows("#who", f"Signed in as {name}")

    async def order(self, what: str) -> None:
        """Fill in the other one, and wait until the page has taken it."""
        await self.browser.fill("#what", what)
        await self.browser.click("#order button")
        await self.browser.wait_for("document.querySelector('#what').value === ''")

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element says this."""
        await self.browser.wait_for(f"document.querySelector({selector!r}).innerText === {text!r}")

    async def has_sent(self, shop: Shop, *whats: str) -> None:
        """Wait until the shop has these orders, and the page knows."""
        await eventually(lambda: shop.whats == list(whats))
        await self.browser.wait_for("!document.querySelector('#waiting > li:not(:has(button))')")
        await self.shows("#status", "Everything is sent.")
        assert shop.whats == list(whats)  # and nothing twice

    async def waiting(self) -> list[str]:
        """The lines of the list of what is not sent."""
        text = await self.browser.text("#waiting")
        return text.splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    open_shop: Shop, tmp_path_factory: pytest.TempPathFactory, redis_session: RedisServer
) -> AsyncIterator[str]:
    """A gateway for browsers, over TLS; its origin."""
    folder = tmp_path_factory.mktemp("web")
    async with gateway_of(open_shop, folder, redis_session.url, issuer=ISSUER, tls=True) as gateway:
        yield f"https://127.0.0.1:{gateway.port}"


@pytest_asyncio.fixture(loop_scope="module")
async def phone(url: str) -> AsyncIterator[Phone]:
    """Another device, on which alice has registered."""
    async with Phone(url) as phone:
        await phone.register(f"alice-{uuid.uuid4().hex}")
        yield phone


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, phone: Phone, url: str, shop: Shop) -> Page:
    """The page with alice signed in."""
    page = Page(browser, url + "/")
    await browser.goto(page.url)
    await page.sign_in(phone.name)
    return page


async def test_what_is_written_offline_arrives_once(page: Page, phone: Phone, shop: Shop) -> None:
    """Online at once; offline it waits, also over a reload; back online it goes out in order, and only once."""
    await page.order("tea")
    await page.has_sent(shop, "tea")
    await page.browser.set_offline(True)
    await page.order("milk")
    await page.shows("#status", "1 waiting for a connection.")
    await page.browser.reload()  # the worker has the page's files
    await page.shows("#who", f"Signed in as {phone.name}")
    await page.order("sugar")
    await page.shows("#status", "2 waiting for a connection.")
    assert await page.waiting() == ["milk", "sugar"]
    assert shop.whats == ["tea"]
    await page.browser.set_offline(False)
    await page.has_sent(shop, "tea", "milk", "sugar")
    assert len({order.key for order in shop.orders}) == 3
    assert len({order.user for order in shop.orders}) == 1
    assert await page.waiting() == []


async def test_an_order_whose_answer_was_lost_is_carried_out_once(page: Page, shop: Shop) -> None:
    """The page cannot know whether it was carried out, so it asks again; the key tells that it is the same."""
    await page.browser.lose_answers("*/api/orders")
    await page.order("tea")
    await page.shows("#status", "1 waiting for a connection.")
    assert page.browser.lost
    await page.browser.lose_answers("")
    await page.has_sent(shop, "tea")  # the gateway knew the key


async def test_no_script_sees_a_token_and_a_refresh_goes_unnoticed(page: Page, shop: Shop) -> None:
    """The page has no token code: when the access token's cookie has ended, the gateway refreshes for it."""
    kept = await page.browser.cookies()
    assert all(kept[name]["httpOnly"] and kept[name]["secure"] for name in (ACCESS, REFRESH))
    assert await page.browser.evaluate("document.cookie") == ""
    await page.browser.set_offline(True)
    await page.order("tea")
    await page.shows("#status", "1 waiting for a connection.")
    await page.browser.delete_cookie(ACCESS)
    await page.browser.set_offline(False)
    await page.has_sent(shop, "tea")
    assert (await page.browser.cookies())[REFRESH]["value"] != kept[REFRESH]["value"]


async def test_a_queue_waits_for_its_own_user(page: Page, phone: Phone, shop: Shop, url: str) -> None:
    """A revoked session asks for a sign-in and keeps the queue; another user's sign-in neither sends nor shows it."""
    async with Phone(url) as other:
        await other.register(f"bob-{uuid.uuid4().hex}")
    await page.browser.set_offline(True)
    await page.order("tea")
    await page.shows("#status", "1 waiting for a connection.")
    await phone.end_others()
    await page.browser.set_offline(False)
    await page.shows("#status", "You are signed out.")
    assert shop.orders == []
    await page.sign_in(other.name)
    await page.order("milk")
    await page.has_sent(shop, "milk")
    assert [(order.user, order.what) for order in shop.orders] == [(other.id, "milk")]
    assert await page.waiting() == []
    await page.shows("#others", "1 not sent: whoever wrote them has to sign in again.")
    await page.browser.click("#sign-out")
    await page.shows("#status", "You are signed out.")
    await page.sign_in(phone.name)
    await page.has_sent(shop, "milk", "tea")
    assert shop.orders[1].user == phone.id


async def test_a_sign_out_counts_although_it_is_offline(page: Page, phone: Phone) -> None:
    """Nobody is shown as signed in from then on; the gateway hears of it later, and the cookies go."""
    assert len(await phone.devices()) == 2
    await page.browser.set_offline(True)
    await page.browser.click("#sign-out")
    await page.shows("#status", "You are signed out.")
    await page.browser.reload()
    await page.shows("#status", "You are signed out.")
    assert {ACCESS, REFRESH} <= set(await page.browser.cookies())
    await page.browser.set_offline(False)
    async with asyncio.timeout(20):
        while set(await page.browser.cookies()):
            await asyncio.sleep(0.02)  # another process: nothing to wait on
    assert len(await phone.devices()) == 1


async def test_a_refused_write_is_shown_and_a_passing_trouble_is_waited_for(page: Page, shop: Shop) -> None:
    """What can never succeed stays, with the reason, and lets others pass; 503 stops the queue for a while."""
    shop.refusing = {"stale bread": (422, ""), "tea": (503, "Retry-After: 1\r\n")}
    await page.order("stale bread")
    await page.browser.wait_for("document.querySelector('#waiting').innerText.includes('refused')")
    await page.order("tea")
    await page.shows("#status", "1 waiting for a connection.")
    await page.order("milk")
    assert shop.orders == []
    del shop.refusing["tea"]
    await page.has_sent(shop, "tea", "milk")
    await page.browser.click("#waiting button")
    await page.browser.wait_for("document.querySelector('#waiting').children.length === 0")


# --- what else of the manual a browser does ---------------------------------------------------------------------------


def example(beginning: str) -> str:
    """The script in the manual that begins so."""
    text = (DOCS / "clients.md").read_text(encoding="utf-8")
    [script] = [
        found for found in re.findall(r"^```text\n(.*?)^```$", text, re.M | re.S) if found.startswith(beginning)
    ]
    return str(script)


async def test_an_event_stream_tells_of_a_revocation(page: Page, phone: Phone) -> None:
    """The manual's example asks for a sign-in, and does not connect again."""
    await page.browser.evaluate(FUNCTIONS + "window.source = new EventSource('/api/news')")
    await page.browser.evaluate("new Promise((resolve) => source.onmessage = () => resolve(1))")
    await page.browser.evaluate(example("source.addEventListener"))
    await phone.end_others()
    await page.browser.wait_for("called.length")
    assert await page.browser.evaluate("[called, source.readyState]") == [["signIn"], 2]


async def test_a_web_socket_tells_of_a_revocation(browser: Browser, phone: Phone, url: str) -> None:
    """The manual's example, of a page with a token of its own, asks for a sign-in; the token is not answered."""
    await browser.goto(url)
    address, token = f"{url.replace('http', 'ws')}/api/chat", phone.tokens["access_token"]
    await browser.evaluate(f"{FUNCTIONS}; window.url = '{address}'; window.token = '{token}'")
    await browser.evaluate(example("const socket"))
    await browser.wait_for("socket.readyState === 1")
    assert await browser.evaluate("socket.protocol") == "chat.v1"
    await phone.ask("DELETE", f"sessions/{phone.tokens['session_id']}")
    await browser.wait_for("called.length")
    assert await browser.evaluate("called") == ["signIn"]


async def test_the_log_in_page_brings_a_desktop_program_its_code(
    browser: Browser, phone: Phone, url: str, tmp_path: Path
) -> None:
    """The system's browser shows the issuer's page and comes back to the port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    visits = []

    async def visit(address: str) -> None:
        await browser.goto(address)
        await browser.fill("#username", phone.name)
        await browser.fill("#password", PASSWORD)
        await browser.click("button")
        await browser.wait_for("document.body.innerText === 'You can close this window.'")

    def opened(address: str) -> None:
        visits.append(asyncio.run_coroutine_threadsafe(visit(address), loop))

    with closing(Queue(tmp_path / "queue.db")) as queue, httpx2.Client(base_url=url, verify=trusting()) as http:
        app = Desktop(http, FileStore(tmp_path / "tokens.json"), queue, opened)
        await asyncio.to_thread(app.sign_in)
        await asyncio.gather(*map(asyncio.wrap_future, visits))
        assert app.user == phone.id
