"""What the client programs of `docs/clients/` talk to: a backend that takes orders, and the gateway in front of it."""

from __future__ import annotations

import asyncio
import html
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from websockets.utils import accept_key

from tests.certificates import make_certificate
from tests.edge import GatewayProcess, RecordingUpstream, SeenRequest
from tests.ports import release_port, reserve_port

DOCS = Path(__file__).parents[2] / "docs"
PASSWORD = "correct horse battery"
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
)
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True)
class Order:
    """One order as the backend got it."""

    user: str
    what: str
    key: str


class Shop(RecordingUpstream):
    """Takes orders, serves the page, an event stream and a WebSocket; may be told to refuse orders."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.orders: list[Order] = []
        self.refusing: dict[str, tuple[int, str]] = {}  # what is ordered → status and further fields

    async def _answer(self, seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = seen.line.decode().split(" ")
        if target == "/api/news":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n")
            await reader.read()
        elif target == "/api/chat":
            [key] = seen.all(b"sec-websocket-key")
            [offer] = seen.all(b"sec-websocket-protocol")
            writer.write(_ACCEPTED % (accept_key(key.decode()).encode(), offer))
            await reader.read()
        elif target == "/api/orders" and method == "POST":
            self._take(seen, writer)
        elif target == "/api/orders":
            _send(writer, 200, "application/json", json.dumps([order.what for order in self.orders]).encode())
        else:
            file = DOCS / "clients/web" / (target.partition("?")[0].lstrip("/") or "index.html")
            found = file.is_file()
            _send(writer, 200 if found else 404, _TYPES.get(file.suffix, ""), file.read_bytes() if found else b"")

    def _take(self, seen: SeenRequest, writer: asyncio.StreamWriter) -> None:
        what = str(json.loads(seen.body)["what"])
        if what in self.refusing:
            status, fields = self.refusing[what]
            _send(writer, status, "text/plain", b"no", fields)
            return
        [user], [key] = seen.all(b"x-user-id"), seen.all(b"idempotency-key")
        self.orders.append(Order(user.decode(), what, key.decode()))
        _send(writer, 201, "application/json", json.dumps({"number": len(self.orders), "what": what}).encode())

    def clear(self) -> None:
        """Forget everything."""
        self.orders.clear()
        self.refusing.clear()

    @property
    def whats(self) -> list[str]:
        """What was ordered, in order of arrival."""
        return [order.what for order in self.orders]


def _send(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes, fields: str = "") -> None:
    head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    writer.write(head.encode() + body)


def _config_text(store: str, denylist: str, shop: Shop, issuer: str, certificate: tuple[Path, Path] | None) -> str:
    tls = "" if certificate is None else f"  tls: {{certificate: {certificate[0]}, key: {certificate[1]}}}\n"
    scheme = "http" if certificate is None else "https"
    return f"""\
server:
  listen: 127.0.0.1:{{port}}
{tls}admin:
  listen: 127.0.0.1:{{admin}}
denylist:
  store: {denylist}
issuer:
  url: {scheme}://127.0.0.1:{{port}}/auth
  store: {store}
  registration: open
  passwords: {{time_cost: 1, memory: 64KiB}}
{issuer}identity:
  headers:
    x-user-id: sub
upstreams:
  shop:
    endpoints: [{shop.url}]
routes:
  - {{name: orders, path: /api/orders, upstream: shop, idempotency: optional}}
  - {{name: live, path: /api/**, upstream: shop}}
  - {{name: page, path: /**, upstream: shop, auth: none}}
"""


@asynccontextmanager
async def gateway_of(
    shop: Shop, folder: Path, denylist: str, *, issuer: str = "", tls: bool = False
) -> AsyncIterator[GatewayProcess]:
    """A running gateway in front of the shop, with registration open; `issuer` is further YAML, indented by two."""
    certificate = make_certificate(folder) if tls else None
    text = _config_text(f"sqlite://{folder}/issuer.db", denylist, shop, issuer, certificate)
    ports = reserve_port(), reserve_port()
    async with GatewayProcess(folder, text, *ports) as gateway:
        yield gateway
    for port in ports:
        release_port(port)


def trusting() -> ssl.SSLContext:
    """For TLS with the test's own certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def form_of(page: str) -> dict[str, str]:
    """The hidden fields of a form."""
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in fields}


class Phone:
    """Another device of the same user, with tokens of its own."""

    def __init__(self, base: str) -> None:
        self.http = httpx2.AsyncClient(base_url=base, trust_env=False, timeout=10, verify=trusting())
        self.name, self.id = "", ""
        self.tokens: dict[str, Any] = {}

    async def __aenter__(self) -> Phone:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def ask(self, method: str, name: str, members: dict[str, Any] | None = None) -> Any:
        """`/auth/<name>` with an access token that has not ended."""
        for _ in range(3):
            headers = {"authorization": f"Bearer {self.tokens['access_token']}"} if self.tokens else {}
            answer = await self.http.request(method, f"/auth/{name}", json=members, headers=headers)
            if "token_expired" not in answer.text:
                break
            given = await self.http.post("/auth/refresh", json={"refresh_token": self.tokens["refresh_token"]})
            self.tokens = given.json()
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def register(self, name: str) -> None:
        """Register and stay signed in."""
        self.name = name
        kind = "email" if "@" in name else "username"
        members = {kind: name, "password": PASSWORD, "platform": "mobile", "device_name": "Phone"}
        self.tokens = await self.ask("POST", "register", members)
        self.id = (await self.ask("GET", "me"))["id"]

    async def worth(self, token: str) -> dict[str, Any]:
        """What the gateway says of any token."""
        answer = await self.http.get("/auth/session", headers={"authorization": f"Bearer {token}"})
        worth: dict[str, Any] = answer.json()
        return worth

    async def devices(self) -> list[dict[str, Any]]:
        """The user's living sessions."""
        devices: list[dict[str, Any]] = (await self.ask("GET", "sessions"))["sessions"]
        return devices

    async def end_others(self) -> None:
        """End every other session of the user."""
        await self.ask("POST", "logout-all", {"keep_current": True})
