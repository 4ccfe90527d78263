"""The denylist by hand, on the admin address: list, look up, add, remove.

    GET    /denylist?kind=&issuer=&limit=    the entries, as the store has them
    GET    /denylist/KIND/ISSUER[/ID]        one entry; 404 if there is none
    POST   /denylist                         {kind, issuer, id, ttl, who, why}: deny from now on
    DELETE /denylist/KIND/ISSUER[/ID]        {who, why}: deny no more; 404 if there was none

There only with a password of the configuration, because entries name users and adding one is an act of power. Every
change says who and why, and leaves an audit line. Bodies are JSON and must say so: a web page cannot send that to
another origin without being allowed to, and nobody allows it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.config.quantities import parse_duration
from gateway.denylist.contract import Store, StoreError
from gateway.denylist.grammar import Entry, key_for, make_entry, parse_key
from gateway.denylist.intake import Intake, Word

_NO_STORE = {"cache-control": "no-store"}
_MAX_BODY_BYTES = 16 * 1024
_DEFAULT_TTL_S = 86_400.0
_MOST_LISTED = 10_000
_DEFAULT_LISTED = 1_000
_LONGEST_TEXT = 500

Endpoint = Callable[[Request], Awaitable[Response]]


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class DenylistApi:
    """The four requests on one store."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        secret: bytes,
        issuers: Callable[[], frozenset[str]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`issuers` gives the names that are in the configuration at the moment of asking."""
        self._store = store
        self._intake = intake
        self._credential = hashlib.sha256(b"Bearer " + secret).digest()
        self._issuers = issuers
        self._wall = wall

    def routes(self) -> list[BaseRoute]:
        """For the admin application."""
        one = ("/denylist/{kind}/{issuer}", "/denylist/{kind}/{issuer}/{ident:path}")
        return [
            Route("/denylist", self._guarded(self._list), methods=["GET"]),
            Route("/denylist", self._guarded(self._add), methods=["POST"]),
            *(Route(path, self._guarded(self._look_up), methods=["GET"]) for path in one),
            *(Route(path, self._guarded(self._remove), methods=["DELETE"]) for path in one),
        ]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            try:
                self._check_caller(request)
                return await endpoint(request)
            except _Refused as refusal:
                headers = {**_NO_STORE, "www-authenticate": "Bearer"} if refusal.status == 401 else _NO_STORE
                return JSONResponse({"error": str(refusal)}, refusal.status, headers)
            except StoreError as fault:
                return JSONResponse({"error": str(fault)}, 503, {**_NO_STORE, "retry-after": "5"})

        return guarded

    def _check_caller(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        shown = f"Bearer {token}" if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(hashlib.sha256(shown.encode()).digest(), self._credential):
            raise _Refused(401, "the password of `admin.secret` is needed")

    # --- the requests ------------------------------------------------------------------------------------------------

    async def _list(self, request: Request) -> Response:
        kind, issuer = request.query_params.get("kind"), request.query_params.get("issuer")
        text = request.query_params.get("limit", str(_DEFAULT_LISTED))
        if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= _MOST_LISTED:
            raise _Refused(400, f"limit is a number from 1 to {_MOST_LISTED}")
        found: dict[str, dict[str, Any]] = {}  # by key: a store may give one twice
        async for entry in self._store.entries(kind, issuer):
            if len(found) == int(text):
                return JSONResponse({"entries": list(found.values()), "complete": False}, headers=_NO_STORE)
            found[entry.key] = entry_document(entry)
        return JSONResponse({"entries": list(found.values()), "complete": True}, headers=_NO_STORE)

    async def _look_up(self, request: Request) -> Response:
        key = _key(request)
        value = await self._intake.value_of(key)
        if value is None:
            raise _Refused(404, "there is no such entry")
        document = _named(key) | {"value": value.decode("utf-8", "replace")}
        return JSONResponse(document, headers=_NO_STORE)

    async def _add(self, request: Request) -> Response:
        body = await _body(request)
        known = {"kind", "issuer", "id", "ttl", "who", "why"}
        if not known.issuperset(body):
            raise _Refused(400, f"unknown members; use {', '.join(sorted(known))}")
        word = _word(body)
        kind, issuer, ident = (_text(body, name) for name in ("kind", "issuer", "id"))
        if issuer not in self._issuers():
            raise _Refused(400, "no issuer of the configuration has this name")
        try:
            ttl_s = parse_duration(_text(body, "ttl")) if "ttl" in body else _DEFAULT_TTL_S
            entry = make_entry(kind, issuer, ident, now=self._wall(), ttl_s=ttl_s)
        except ValueError as exc:
            raise _Refused(400, str(exc)) from None
        try:
            await self._intake.put([entry], word)
        except StoreError:
            self._intake.count("admin_api", "failed")
            raise
        self._intake.count("admin_api", "accepted")
        return JSONResponse(entry_document(entry), 201, _NO_STORE)

    async def _remove(self, request: Request) -> Response:
        word = _word(await _body(request))
        if not await self._intake.take_out(_key(request), word):
            raise _Refused(404, "there is no such entry")
        return Response(status_code=204, headers=_NO_STORE)


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry as JSON: its parts, its value, and the seconds it has left (null: for ever)."""
    return _named(entry.key) | {"value": entry.value, "ttl_s": None if entry.ttl_s is None else round(entry.ttl_s, 3)}


def _named(key: str) -> dict[str, Any]:
    parsed = parse_key(key)
    assert parsed is not None
    kind, issuer, ident = parsed
    return {"key": key, "kind": kind, "issuer": issuer, "id": ident}


def _key(request: Request) -> str:
    params = request.path_params
    try:
        return key_for(params["kind"], params["issuer"], params.get("ident", ""))
    except ValueError as exc:
        raise _Refused(400, str(exc)) from None


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refused(415, "the body is application/json")
    octets = bytearray()
    async for chunk in request.stream():
        octets += chunk
        if len(octets) > _MAX_BODY_BYTES:
            raise _Refused(413, "the body is too long")
    try:
        body = json.loads(octets)
    except (ValueError, RecursionError):
        raise _Refused(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise _Refused(400, "the body is not an object")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise _Refused(400, f"{name} is not text")
    return value


def _word(body: dict[str, Any]) -> Word:
    who, why = _text(body, "who").strip(), _text(body, "why").strip()
    if not who or not why:
        raise _Refused(400, "say who does it and why: `who` and `why`")
    return Word("admin_api", who[:_LONGEST_TEXT], why[:_LONGEST_TEXT])
