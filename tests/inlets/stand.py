"""Inlets in front of an application that stands for everything else, with their store, their numbers and their log."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

from gateway.config.schema import Config
from gateway.denylist.intake import Intake
from gateway.inlets.mount import Mount, build_inlets
from gateway.keys.source import KeySource
from gateway.telemetry.exchange import Exchange
from gateway.tokens.verifier import IssuerRules
from gateway.upstream.peer import Peers
from tests.denylist.scripted_store import ScriptedStore
from tests.tokens.mint import ISSUER, NOW, KeysAtHand, claims, header, key_set, signed, verifier

SECRET = "a password of the client"
FORM = (b"content-type", b"application/x-www-form-urlencoded")
EVENT_TOKEN = (b"content-type", b"application/secevent+jwt")
REVOCATION: dict[str, Any] = {
    "remember": "1h",
    "clients": {"app": {"secret": SECRET}, "backend": {"secret": SECRET + "!", "tokens": "any"}},
    "backchannel_logout": {"audience": ["app"]},
    "shared_signals": {"audience": ["https://gateway.example"]},
}


class Answer:
    """One response."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        start, body = events
        self.status: int = start["status"]
        self.headers: list[tuple[bytes, bytes]] = start["headers"]
        self.body: bytes = body["body"]
        assert not body["more_body"]

    @property
    def document(self) -> dict[str, str]:
        """The body as JSON; {} if empty."""
        found: dict[str, str] = json.loads(self.body) if self.body else {}
        return found

    @property
    def code(self) -> str:
        """The error's word, of whichever standard."""
        return self.document.get("error") or self.document.get("err") or self.document.get("code") or ""

    def header(self, name: bytes) -> bytes | None:
        """The one value of a field."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2
        return values[0] if values else None


class Stand:
    """One issuer, `main`, whose keys are at hand; everything is at `NOW`."""

    def __init__(
        self, *, keys: KeysAtHand | None = None, transmitter: KeysAtHand | None = None, **revocation: Any
    ) -> None:
        self.store = ScriptedStore()
        self.intake = Intake(self.store, lambda: NOW)
        self.records: list[Exchange] = []
        self.passed: list[str] = []  # what went on to the application
        config = Config.model_validate(
            {
                "denylist": {"store": "redis://127.0.0.1:1/0"},
                "issuers": {
                    "main": {
                        "issuer": ISSUER,
                        "jwks_uri": f"{ISSUER}/jwks",
                        "audience": ["api"],
                        "algorithms": ["ES256"],
                        "revocation": {**REVOCATION, **revocation},
                    },
                    "quiet": {
                        "issuer": "https://quiet.example",
                        "jwks_uri": "https://quiet.example/jwks",
                        "audience": ["api"],
                        "algorithms": ["ES256"],
                    },
                },
                "upstreams": {"app": {"endpoints": ["http://127.0.0.1:1"]}},
                "routes": [{"name": "all", "path": "/**", "upstream": "app"}],
            }
        )
        source = keys or KeysAtHand(key_set("p256"))
        sources = {"main": source, "quiet": source}
        rules = [IssuerRules.of(name, issuer, sources[name]) for name, issuer in config.issuers.items()]
        transmitters: dict[str, KeySource] = {"main": transmitter} if transmitter is not None else {}
        self.inlets = build_inlets(config, sources, verifier(*rules), self.intake, transmitters)
        self.mount = Mount(self.inlets, self._application, self.intake, Peers(()), self.records.append, lambda: NOW)

    async def _application(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.passed.append(scope["path"])
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(
        self, path: str, body: bytes = b"", *fields: tuple[bytes, bytes], method: str = "POST", chunk: int = 2**20
    ) -> Answer:
        """One request; the body comes in pieces of `chunk` bytes."""
        pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)] or [b""]
        events = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return events.pop(0) if events else {"type": "http.disconnect"}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "server": ("127.0.0.1", 8080),
            "client": ("192.0.2.9", 4711),
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"edge.example"), *fields],
        }
        await self.mount(scope, receive, send)
        return Answer(sent)

    async def revoke(self, form: dict[str, str] | bytes, *fields: tuple[bytes, bytes]) -> Answer:
        """A request to the revocation endpoint."""
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        return await self.send("/.gateway/main/revoke", body, FORM, *fields)

    async def logout(self, token: bytes) -> Answer:
        """A back-channel logout."""
        body = urlencode({"logout_token": token.decode()}).encode()
        return await self.send("/.gateway/main/backchannel-logout", body, FORM)

    async def push(self, token: bytes, *fields: tuple[bytes, bytes]) -> Answer:
        """A pushed event."""
        return await self.send("/.gateway/main/events", token, *(fields or (EVENT_TOKEN,)))

    def received(self) -> dict[tuple[str, str], float]:
        """What was counted, by source and outcome."""
        return {
            (sample.labels["source"], sample.labels["outcome"]): sample.value
            for sample in self.intake.samples()
            if sample.name == "gateway_revocations_received_total"
        }


def basic(client: str = "app", secret: str = SECRET) -> tuple[bytes, bytes]:
    """A Basic credential; the parts are form-encoded already."""
    return b"authorization", b"Basic " + b64encode(f"{client}:{secret}".encode())


def access_token(**changes: Any) -> str:
    """A genuine access token of `app`."""
    return signed(header(), claims(**changes)).decode()


def statement(typ: str, kid: str = "p256", **payload: Any) -> bytes:
    """A genuine statement of the issuer; claims given as `...` are left out."""
    return signed(header(typ=typ, kid=kid), {name: value for name, value in payload.items() if value is not ...}, kid)
