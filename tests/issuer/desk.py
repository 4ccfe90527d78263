"""An issuer in process for tests: a clock wound by hand, a denylist and mailbox that remember, HTTP without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2

from gateway.config.issuance import Issuance
from gateway.denylist.contract import StoreUnavailable
from gateway.denylist.grammar import Entry
from gateway.issuer.endpoints import create_endpoints
from gateway.issuer.service import Issuer
from gateway.redis.masters import MasterLinks

URL = "https://api.example/auth"
START = 1_800_000_000.0
PASSWORD = "correct horse battery"
CHEAP = {"time_cost": 1, "memory": "64KiB"}  # argon2id that takes no time


@dataclass
class Clock:
    """The wall clock."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    def wind(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class RecordingDenylist:
    """Takes entries, unless it is down."""

    entries: list[Entry] = field(default_factory=list)
    is_down: bool = False

    async def add(self, entry: Entry) -> None:
        """Remember it."""
        if self.is_down:
            raise StoreUnavailable("no contact")
        self.entries.append(entry)

    @property
    def keys(self) -> list[str]:
        """Their keys, in order, without repetitions."""
        return list(dict.fromkeys(entry.key for entry in self.entries))


def issuance(store_url: str, **settings: Any) -> Issuance:
    """An `issuer` section with cheap hashes and open registration; settings as in YAML."""
    given = {"url": URL, "store": store_url, "registration": "open", "passwords": CHEAP, **settings}
    return Issuance.model_validate(given)


class Desk:
    """One issuer and a client in front of it."""

    def __init__(
        self, store_url: str, *, clock: Clock | None = None, redis: MasterLinks | None = None, **settings: Any
    ) -> None:
        self.clock = clock or Clock()
        self.denylist = RecordingDenylist()
        self.mail: list[dict[str, Any]] = []
        self.config = issuance(store_url, **settings)
        mailer = httpx2.MockTransport(self._post)
        self.issuer = Issuer(
            self.config, self.denylist, redis=redis, transport=mailer, wall=self.clock, chance=lambda: 0.0
        )
        endpoints = create_endpoints(self.issuer)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await endpoints({**scope, "state": {"request_id": "r1"}}, receive, send)

        transport = httpx2.ASGITransport(app=app)
        self.client = httpx2.AsyncClient(transport=transport, base_url="https://api.example")

    def _post(self, request: httpx2.Request) -> httpx2.Response:
        self.mail.append({**json.loads(request.content), "signature": request.headers.get("x-gateway-signature")})
        return httpx2.Response(204)

    async def __aenter__(self) -> Desk:
        await self.issuer.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.issuer.close()

    # --- the client's side -------------------------------------------------------------------------------------------

    async def post(self, name: str, members: Any = None, token: str | None = None) -> httpx2.Response:
        """`POST /auth/<name>` with JSON."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if members is None:
            return await self.client.post(f"/auth/{name}", headers=headers)
        headers["content-type"] = "application/json"
        return await self.client.post(f"/auth/{name}", headers=headers, content=json.dumps(members))

    async def get(self, name: str, token: str | None = None) -> httpx2.Response:
        """`GET /auth/<name>`."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return await self.client.get(f"/auth/{name}", headers=headers)

    async def form(self, name: str, fields: dict[str, str], client: tuple[str, str] | None = None) -> httpx2.Response:
        """`POST /auth/<name>` with a form, as this client if given."""
        auth = None if client is None else httpx2.BasicAuth(*client)
        return await self.client.post(f"/auth/{name}", data=fields, auth=auth or httpx2.USE_CLIENT_DEFAULT)

    async def register(self, name: str = "alice", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        """Register and be signed in; the answer."""
        answer = await self.post("register", {"username": name, "password": password, **more})
        assert answer.status_code == 201, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def login(self, name: str = "alice", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        """Log in; the answer."""
        answer = await self.post("login", {"username": name, "password": password, **more})
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def refresh(self, refresh_token: str) -> httpx2.Response:
        """Refresh."""
        return await self.post("refresh", {"refresh_token": refresh_token})

    async def refreshed(self, refresh_token: str) -> str:
        """The next refresh token."""
        answer = await self.refresh(refresh_token)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["refresh_token"])
