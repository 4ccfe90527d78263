"""What comes in: bounded bodies, JSON and forms read strictly, the bearer token."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from gateway.errors import BadRequest, ContentTooLarge, TokenMissing
from gateway.issuer.refusals import InvalidRequest, UnsupportedMedia

MAX_BODY_BYTES = 64 * 1024
_LONGEST_TEXT = 4096


async def read_body(request: Request) -> bytes:
    """The whole body. ContentTooLarge beyond 64 KiB."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ContentTooLarge
    except ClientDisconnect as exc:
        raise BadRequest("The body broke off.") from exc
    return body


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The members of a JSON object; with `optional`, nothing at all is an empty one.

    Only `application/json`: no form of another site can send that, so no cookie of ours can be used through one.
    """
    body = await read_body(request)
    if optional and not body:
        return {}
    if _media_type(request) != "application/json":
        raise UnsupportedMedia("Send application/json.")
    try:
        members = json.loads(body.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("The body is not a JSON object.") from exc
    if not isinstance(members, dict):
        raise InvalidRequest("The body is not a JSON object.")
    return members


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


async def read_form(request: Request) -> dict[str, str]:
    """The parameters of a form; each once (RFC 6749 §3.2), empty ones as if left out (§3.1)."""
    body = await read_body(request)
    if _media_type(request) != "application/x-www-form-urlencoded":
        raise UnsupportedMedia("Send application/x-www-form-urlencoded.")
    return parse_parameters(body)


def parse_parameters(encoded: bytes) -> dict[str, str]:
    """The parameters of a form or a query. InvalidRequest for one that stands twice or is not text."""
    try:
        pairs = parse_qsl(encoded.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as exc:
        raise InvalidRequest("The parameters are malformed.") from exc
    if len({name for name, _ in pairs}) != len(pairs):
        raise InvalidRequest("A parameter appears twice.")
    for _, value in pairs:
        _check_text("A parameter", value, _LONGEST_TEXT)
    return {name: value for name, value in pairs if value}


def text(members: dict[str, Any], name: str, *, longest: int = _LONGEST_TEXT) -> str:
    """A member that must be there and be text."""
    value = optional_text(members, name, longest=longest)
    if value is None:
        raise InvalidRequest(f"`{name}` is missing.")
    return value


def optional_text(members: dict[str, Any], name: str, *, longest: int = _LONGEST_TEXT) -> str | None:
    """A member that may be left out or null, and is text otherwise."""
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"`{name}` is not a string.")
    _check_text(f"`{name}`", value, longest)
    return value


def _check_text(name: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise InvalidRequest(f"{name} is too long.")
    # PostgreSQL has no NUL, and a lone surrogate has no UTF-8.
    if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidRequest(f"{name} holds a character that is not text.")


def bearer(request: Request) -> str:
    """The token of `Authorization: Bearer`. TokenMissing if there is none, BadRequest if there are two."""
    found = request.headers.getlist("authorization")
    if len(found) > 1:
        raise BadRequest("Two Authorization headers.")
    scheme, _, token = (found[0] if found else "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenMissing
    return token.strip()
