"""What the client programs run against: the shop, a gateway with its own issuer, a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.browser import Browser, why_not
from tests.clients.shop import Shop

# Starting costs seconds, so what is started is shared by a module's tests; each has users, and a profile, of its own.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_shop() -> AsyncIterator[Shop]:
    """The backend."""
    shop = Shop()
    await shop.listen()
    yield shop
    await shop.close()


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    """The backend, without orders."""
    open_shop.clear()
    return open_shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    async with Browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def browser(open_browser: Browser) -> Browser:
    """A headless Chromium with an empty profile."""
    await open_browser.renew()
    return open_browser
