"""The conversation of a phone in `docs/clients.md` takes place as it is printed there, on real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.shop import DOCS, Phone, Shop, gateway_of
from tests.edge import Answer, GatewayProcess

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_PLACEHOLDER = re.compile(r"[A-Z]+(?:-\d+)?")
_IN_REQUEST = re.compile(r"\b(?:ACCESS|REFRESH|KEY)-\d+\b")
_ANYTHING = "…"


@dataclass(frozen=True)
class Exchange:
    """A request as it is printed, and its answer; none if it is to be lost."""

    chapter: str
    request: str
    answer: str

    @property
    def title(self) -> str:
        """For a failure's message."""
        return f"{self.chapter}: {self.request.splitlines()[0]}"


def printed() -> list[Exchange]:
    """Every exchange of the page, in order."""
    text = (
        (DOCS / "clients.md").read_text(encoding="utf-8").partition("## A phone, step by step")[2].partition("\n## ")[0]
    )
    found = []
    for chapter in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        for block in re.findall(r"^```text\n(.*?)^```$", chapter, flags=re.MULTILINE | re.DOTALL):
            request, _, answer = block.partition("\n\nHTTP/1.1 ")
            found.append(
                Exchange(chapter.splitlines()[0], request.rstrip("\n"), answer and f"HTTP/1.1 {answer}".rstrip("\n"))
            )
    return found


class Conversation:
    """Carries out exchanges; the values behind the names are learnt from the first answer that shows them."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self.values: dict[str, str] = {}

    async def hold(self, exchange: Exchange) -> None:
        """One exchange; AssertionError where the answer is another one than is printed."""
        request = _IN_REQUEST.sub(lambda found: self._sent(found[0]), exchange.request)
        head, _, body = request.partition("\n\n")
        octets = body.encode()
        fields = [f"Host: 127.0.0.1:{self._gateway.port}", f"Content-Length: {len(octets)}"]
        lines = [*head.split("\n"), *(fields if body else fields[:1])]
        got = await self._gateway.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + octets)
        if exchange.answer:
            self._compare(exchange, got)

    def _sent(self, name: str) -> str:
        if name.startswith("KEY"):
            return self.values.setdefault(name, str(uuid.uuid4()))
        return self.values[name]

    def _compare(self, exchange: Exchange, got: Answer) -> None:
        head, _, body = exchange.answer.partition("\n\n")
        status, *fields = head.split("\n")
        context = f"{exchange.title}\n{got.raw.decode()}"
        assert int(status.split(" ")[1]) == got.status, context
        for field in fields:
            name, _, value = field.partition(": ")
            pattern = ".*".join(map(re.escape, value.split(_ANYTHING)))
            [found] = got.all(name.lower().encode())
            assert re.fullmatch(pattern, found.decode()), context
        if body:
            self._members(json.loads(body), json.loads(got.body), context)
        else:
            assert got.body == b"", context

    def _members(self, shown: dict[str, Any], got: dict[str, Any], context: str) -> None:
        named = set(shown) - {_ANYTHING}
        assert named == set(got) or (_ANYTHING in shown and named <= set(got)), context
        for name in named:
            value = shown[name]
            if isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
                assert self.values.setdefault(value, got[name]) == got[name], f"{value}: {context}"
            elif isinstance(value, int | float) and name in ("expires_in", "until", "server_time"):
                assert isinstance(got[name], int | float), context  # moments are examples
            elif value != _ANYTHING:
                assert got[name] == value, context


class World:
    """What happens around the app between its requests."""

    def __init__(self, shop: Shop, elsewhere: Phone, conversation: Conversation) -> None:
        self._shop = shop
        self._elsewhere = elsewhere
        self._conversation = conversation
        self.at: dict[str, Callable[[], Awaitable[None]]] = {
            "Come back after a gap": self.time_passes,
            "Try later": shop.close,
            "Be signed out elsewhere": self.user_signs_out_elsewhere,
        }

    async def time_passes(self) -> None:
        """Until the access token has ended."""
        async with asyncio.timeout(20):
            while (await self._elsewhere.worth(self._conversation.values["ACCESS-1"]))["token"] != "expired":
                await asyncio.sleep(0.05)  # another process: nothing to wait on

    async def user_signs_out_elsewhere(self) -> None:
        """The backend is back too; and until the gateway knows of the revocation."""
        await self._shop.listen()
        await self._elsewhere.end_others()


async def test_the_conversation_takes_place_as_it_is_printed(
    tmp_path: Path, redis_url: str, open_shop: Shop, shop: Shop
) -> None:
    """Each answer is the one on the page, and the backend has seen each write once."""
    exchanges = printed()
    assert len(exchanges) == 18
    async with (
        gateway_of(shop, tmp_path, redis_url, issuer="  access_token: 2s\n") as gateway,
        Phone(f"http://127.0.0.1:{gateway.port}") as elsewhere,
    ):
        await elsewhere.register("alice@example.org")
        conversation = Conversation(gateway)
        world = World(shop, elsewhere, conversation)
        chapter = ""
        for exchange in exchanges:
            if exchange.chapter != chapter:
                chapter = exchange.chapter
                if chapter in world.at:
                    await world.at.pop(chapter)()
            await conversation.hold(exchange)
        assert world.at == {}
    names = conversation.values
    assert len(set(names.values())) == len(names)
    assert [(order.what, order.key) for order in shop.orders] == [
        ("tea", names["KEY-1"]),
        ("milk", names["KEY-2"]),
        ("sugar", names["KEY-3"]),
    ]
    assert {order.user for order in shop.orders} == {names["ALICE"]}
