"""Errors as responses: RFC 9457 bodies, RFC 6750 challenges."""

from __future__ import annotations

import json

import pytest

from gateway.errors import (
    ContentTooLarge,
    Denied,
    GatewayError,
    InsufficientScope,
    KeysUnavailable,
    MethodNotAllowed,
    NoRoute,
    TokenExpired,
    TokenMissing,
    TokenRevoked,
)
from gateway.problem import challenge, problem_response
from tests.test_errors import LEAVES, make

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_error_is_a_problem_document(leaf: type[GatewayError]) -> None:
    """Status, code and request id stand in the body; lengths are right; nothing is cached."""
    status, headers, body = problem_response(make(leaf), "r-1", DATE)
    document = json.loads(body)
    assert status == document["status"] == leaf.status
    assert document["code"] == leaf.code
    assert document["type"].endswith(leaf.code)
    assert document["title"] == leaf.title
    assert document["request_id"] == "r-1"
    fields = dict(headers)
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"content-length"] == str(len(body)).encode()
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"date"] == DATE
    assert fields[b"x-request-id"] == b"r-1"


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_a_challenge_comes_with_401_and_403_and_with_nothing_else(leaf: type[GatewayError]) -> None:
    """RFC 9110 §15.5.2: a 401 must carry one; RFC 6750 §3.1 puts insufficient_scope on the 403."""
    assert (challenge(make(leaf)) is not None) == (leaf.status in (401, 403))


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (TokenMissing(), b"Bearer"),
        (TokenExpired(), b'Bearer error="invalid_token", error_description="The access token has expired."'),
        (TokenRevoked(), b'Bearer error="invalid_token", error_description="The access token has been revoked."'),
        (InsufficientScope("a b"), b'Bearer error="insufficient_scope", scope="a b"'),
        (NoRoute(), None),
    ],
)
def test_challenge(error: GatewayError, value: bytes | None) -> None:
    """A request without credentials learns no error; the others learn whether to refresh or to sign in."""
    assert challenge(error) == value


def test_a_claim_that_does_not_suffice_is_told_without_naming_it() -> None:
    """Which claim was wrong is the operator's business."""
    value = challenge(Denied(cause="claim tenant is not as the route requires"))
    assert value is not None
    assert b"tenant" not in value


def test_detail_is_shown_and_cause_is_not() -> None:
    """`detail` is public, `cause` is for the log."""
    _, _, body = problem_response(NoRoute("Nothing lives here.", cause="10.0.0.7"), "r", DATE)
    assert json.loads(body)["detail"] == "Nothing lives here."
    assert b"10.0.0.7" not in body


def test_allow_retry_after_and_close_go_where_they_belong() -> None:
    """405 names the methods, 503 the seconds, and a body that is too large ends the connection."""
    assert (b"allow", b"GET, HEAD") in problem_response(MethodNotAllowed(("GET", "HEAD")), "r", DATE)[1]
    assert (b"retry-after", b"5") in problem_response(KeysUnavailable(), "r", DATE)[1]
    assert (b"connection", b"close") in problem_response(ContentTooLarge(), "r", DATE)[1]
