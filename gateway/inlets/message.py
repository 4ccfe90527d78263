"""What an inlet is given and what it answers: one bounded message, one reply. No I/O but reading the body."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

from gateway.denylist.intake import Outcome, Source
from gateway.errors import BadRequest, ContentTooLarge

MAX_BODY_BYTES = 64 * 1024  # a token of 16 KiB, percent-encoded at the worst
_MAX_FIELDS = 32
_RETRY_AFTER_S = b"5"
Receive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One request. `headers` are pairs as received, names in lower case."""

    headers: list[tuple[bytes, bytes]]
    body: bytes
    now: float  # epoch seconds

    def header(self, name: bytes) -> bytes | None:
        """The one value of a field; None if absent. BadRequest if there are several."""
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise BadRequest(f"The request has more than one {name.decode()} field.")
        return found[0] if found else None

    def is_of(self, media_type: bytes) -> bool:
        """Whether the body is said to be of this media type, whatever its parameters."""
        return (self.header(b"content-type") or b"").partition(b";")[0].strip().lower() == media_type


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer and what it stands for in the numbers and in the log."""

    status: int
    outcome: Outcome
    document: Mapping[str, str] | None = None  # JSON; None: no body
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())

    @property
    def code(self) -> str:
        """The standard's word for what is wrong; "" if nothing is."""
        document = self.document or {}
        return document.get("error") or document.get("err") or ""

    @property
    def text(self) -> str:
        """The sentence that goes with it."""
        document = self.document or {}
        return document.get("error_description") or document.get("description") or ""

    def rendered(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Header fields and body; never to be stored by anyone on the way."""
        body = b"" if self.document is None else json.dumps(self.document).encode()
        fields = [(b"cache-control", b"no-store"), (b"content-length", b"%d" % len(body)), *self.headers]
        if body:
            fields.append((b"content-type", b"application/json"))
        if self.status == 503:
            fields.append((b"retry-after", _RETRY_AFTER_S))
        return fields, body


class Inlet(Protocol):
    """One endpoint of one issuer."""

    @property
    def name(self) -> str:
        """`issuer/endpoint`, for log and metrics; no route's name has a slash."""

    @property
    def source(self) -> Source:
        """What it is called where revocations are counted."""

    async def answer(self, message: Message) -> Reply:
        """Deals with one message. Raises only `ClientError` for what is no message at all."""


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
    """The whole body; ContentTooLarge beyond `MAX_BODY_BYTES`. The server bounds the time."""
    for name, value in headers:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise ContentTooLarge
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise BadRequest("The body was cut short.")
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise ContentTooLarge
        if not event.get("more_body", False):
            return bytes(body)


def is_same_secret(known: bytes, given: bytes) -> bool:
    """Whether a secret is the right one; takes as long for each, however much of it is right."""
    return hmac.compare_digest(hashlib.sha256(known).digest(), hashlib.sha256(given).digest())


def read_form(message: Message) -> dict[str, str]:
    """The fields of a form; ValueError with a public reason if it is none, or a field comes twice (RFC 6749 §3.2)."""
    if not message.is_of(b"application/x-www-form-urlencoded"):
        raise ValueError("the body is not application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            message.body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(message.body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:  # UnicodeError too
        raise ValueError("the body is not a form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a parameter is there more than once")
    return {name: value for name, value in fields.items() if value}  # RFC 6749 §3.2: empty is as if left out
