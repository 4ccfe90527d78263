"""The web page of `docs/clients/web/` in a real browser: its queue outlives the network, the session and the user."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.browser import Browser
from tests.clients.shop import PASSWORD, Phone, Shop, gateway_of
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ACCESS, REFRESH = "__Host-gateway-access", "__Host-gateway-refresh"


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
    async with gateway_of(open_shop, folder, redis_session.url, issuer="  web: {}\n", tls=True) as gateway:
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
    await page.shows("#status", "Everything is sent.")
    assert shop.whats == ["tea"]
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
    await page.shows("#status", "Everything is sent.")
    assert shop.whats == ["tea", "milk", "sugar"]
    assert len({order.key for order in shop.orders}) == 3
    assert len({order.user for order in shop.orders}) == 1
    assert await page.waiting() == []


async def test_an_order_whose_answer_was_lost_is_sent_with_the_same_key(page: Page, shop: Shop) -> None:
    """The page cannot know whether it was carried out, so it asks again; the key tells that it is the same."""
    await page.browser.lose_answers("*/api/orders")
    await page.order("tea")
    await page.shows("#status", "1 waiting for a connection.")
    assert page.browser.lost
    await page.browser.lose_answers("")
    await page.shows("#status", "Everything is sent.")
    assert len({(order.what, order.key) for order in shop.orders}) == 1


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
    await page.shows("#status", "Everything is sent.")
    assert shop.whats == ["tea"]
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
    await page.shows("#status", "Everything is sent.")
    assert [(order.user, order.what) for order in shop.orders] == [(other.id, "milk")]
    assert await page.waiting() == []
    await page.shows("#others", "1 not sent: whoever wrote them has to sign in again.")
    await page.browser.click("#sign-out")
    await page.shows("#status", "You are signed out.")
    await page.sign_in(phone.name)
    await page.shows("#status", "Everything is sent.")
    assert shop.whats == ["milk", "tea"]
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
    await eventually(lambda: shop.whats == ["tea", "milk"])
    await page.shows("#status", "Everything is sent.")
    await page.browser.click("#waiting button")
    await page.browser.wait_for("document.querySelector('#waiting').children.length === 0")
