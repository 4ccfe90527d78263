"""Whole gateways with the built-in issuer, and a client that asks again when an answer does not come."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.edge import GatewayProcess

PASSWORD = "correct horse battery"


def config_text(
    store: str, denylist: str, upstream: str, *, issuer: str = "", routes: str = "", port: str = "{port}"
) -> str:
    """A configuration; `issuer` and `routes` are further YAML, indented by two. `port` is the public one."""
    return f"""\
server:
  listen: 127.0.0.1:{{port}}
admin:
  listen: 127.0.0.1:{{admin}}
denylist:
  store: {denylist}
issuer:
  url: http://127.0.0.1:{port}/auth
  store: {store}
  registration: open
  passwords: {{time_cost: 1, memory: 64KiB}}
  throttle: {{account: 100000, address: 100000}}
{issuer}identity:
  headers:
    x-user-id: sub
    x-user-email: email
    x-user-roles: roles
upstreams:
  app:
    endpoints: [{upstream}]
routes:
  - name: api
    path: /api/**
    upstream: app
{routes}"""


class AnswerLost(Exception):
    """The request may or may not have been carried out."""


@dataclass
class App:
    """One device of one user. Keeps its last refresh token until it has the next, as `docs/clients.md` says."""

    http: httpx2.AsyncClient
    gateways: list[GatewayProcess]
    chance: random.Random
    access: str = ""
    refresh_token: str = ""
    sid: str = ""

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.chance.choice(self.gateways).port}{path}"

    async def post(self, name: str, members: dict[str, Any], token: str | None = None) -> httpx2.Response:
        """`POST /auth/<name>` at any gateway; AnswerLost where there is none."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            return await self.http.post(self._url(f"/auth/{name}"), json=members, headers=headers)
        except httpx2.HTTPError as exc:
            raise AnswerLost from exc

    async def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """`GET` with the access token."""
        return await self.http.get(self._url(path), headers={"authorization": f"Bearer {token or self.access}"})

    def take(self, answer: httpx2.Response) -> None:
        """Keep the tokens of an answer."""
        tokens = answer.json()
        self.access, self.refresh_token, self.sid = (
            tokens["access_token"],
            tokens["refresh_token"],
            tokens["session_id"],
        )

    async def register(self, name: str, **more: Any) -> None:
        """Register and keep the tokens."""
        answer = await self.post("register", {"username": name, "password": PASSWORD, **more})
        assert answer.status_code == 201, answer.text
        self.take(answer)

    async def login(self, name: str, **more: Any) -> None:
        """Log in and keep the tokens."""
        answer = await self.post("login", {"username": name, "password": PASSWORD, **more})
        assert answer.status_code == 200, answer.text
        self.take(answer)

    async def refresh(self) -> int:
        """Refresh, asking again as long as answers are lost or it is told to try later; the final status."""
        while True:
            try:
                answer = await self.post("refresh", {"refresh_token": self.refresh_token})
            except AnswerLost:
                continue
            if answer.status_code == 503:
                continue
            if answer.status_code == 200:
                self.take(answer)
            return answer.status_code
