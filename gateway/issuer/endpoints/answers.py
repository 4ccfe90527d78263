"""What goes out: JSON that nobody keeps, problems, and errors in OAuth's words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError, MethodNotAllowed, Overloaded
from gateway.http_date import http_date
from gateway.issuer.clients import OAuthError
from gateway.issuer.refusals import NotFound, StoreDown
from gateway.problem import problem_response

# RFC 6749 §5.1; and nothing that a user wrote, a device's name for one, is to be taken for a page.
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache", "x-content-type-options": "nosniff"}


def json_answer(members: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    """A JSON object, in one line with a line end."""
    body = json.dumps(members, ensure_ascii=False).encode() + b"\n"
    return Response(body, status, headers, "application/json")


def nothing() -> Response:
    """204."""
    return Response(status_code=204, headers=NO_STORE)


def problem(request: Request, error: GatewayError) -> Response:
    """The problem document of an error."""
    status, fields, body = problem_response(error, request.scope["state"]["request_id"], http_date(time.time()))
    response = Response(body, status)
    own = (b"date", b"x-request-id")  # added to every answer anyway
    response.raw_headers = [pair for pair in fields if pair[0] not in own]
    if status == 401 and all(name != b"www-authenticate" for name, _ in fields):
        response.raw_headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §15.5.2
    return response


def oauth_error(error: OAuthError) -> Response:
    """RFC 6749 §5.2."""
    members = {"error": error.error} | ({"error_description": error.description} if error.description else {})
    response = json_answer(members, error.status)
    if error.status == 401:
        response.headers["www-authenticate"] = 'Basic realm="clients"'
    return response


async def on_gateway_error(request: Request, exc: Exception) -> Response:
    """For Starlette: an error of ours."""
    assert isinstance(exc, GatewayError)
    return problem(request, exc)


async def on_oauth_error(_: Request, exc: Exception) -> Response:
    """For Starlette: an error in OAuth's words."""
    assert isinstance(exc, OAuthError)
    return oauth_error(exc)


async def on_store_unavailable(request: Request, exc: Exception) -> Response:
    """For Starlette: the store does not answer."""
    return problem(request, StoreDown(cause=str(exc)))


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """For Starlette: no such path, or not with this method."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 405:
        allow = (exc.headers or {}).get("Allow", "")
        return problem(request, MethodNotAllowed(tuple(sorted(allow.replace(" ", "").split(",")))))
    return problem(request, NotFound() if exc.status_code == 404 else Overloaded())
