"""Names, addresses, header names, origins."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.values import Listen, Method, Name, Origin, PlainName, Scope, Url, field_name

_CASES: tuple[tuple[Any, list[str], list[str]], ...] = (
    (
        Listen,
        ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:8080", "localhost:65535"],
        ["8080", ":8080", "127.0.0.1", "127.0.0.1:65536", "::1:8080", "127.0.0.1:http", "a b:1"],
    ),
    (
        Origin,
        ["http://127.0.0.1:9001", "https://orders.internal", "http://[::1]:80"],
        ["127.0.0.1:9001", "http://a/", "http://a/x", "http://user:pw@a", "ftp://a", "http://a:0", "http://a:70000"],
    ),
    (
        Url,
        ["https://issuer.example/jwks.json", "http://127.0.0.1:9/a?b=c"],
        ["issuer.example", "file:///keys", "https://user:pw@a/", "https://a/#x", "https://a b"],
    ),
    (Scope, ["admin", "orders:read", "https://a/b"], ["", "a b", 'a"', "a\\", "é"]),
    (Method, ["GET", "PATCH", "PROPFIND"], ["get", "", "G T", "CONNECT"]),
    (PlainName, ["session", "__Host-token"], ["", "a b", "a=b", "a;b"]),
    (Name, ["main", "eu-1.prod_2"], ["", "a:b", "-a", "a b", "é", "a" * 65]),
)


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, good, _ in _CASES for text in good], ids=lambda value: str(value)[:40]
)
def test_what_fits_the_grammar_is_taken_as_it_is(kind: Any, text: str) -> None:
    """Valid text is not changed."""
    assert TypeAdapter(kind).validate_python(text) == text


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, _, bad in _CASES for text in bad], ids=lambda value: str(value)[:40]
)
def test_what_does_not_fit_is_refused(kind: Any, text: str) -> None:
    """Text outside the grammar is a problem, never silently repaired."""
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize("name", ["X-User-Id", "x-roles", "Tenant"])
def test_header_names_become_lower_case(name: str) -> None:
    """Header names have no case, so they get one."""
    assert field_name(name) == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        *("x_user_id", "x user", "", "é", "x:y", "Connection", "transfer-encoding", "Host", "Content-Length", "cookie"),
        *("Authorization", "x-forwarded-for", "Forwarded", "via", "te", "upgrade", "trailer", "keep-alive", "expect"),
    ],
)
def test_headers_that_frame_or_route_a_message_carry_no_identity(name: str) -> None:
    """Hop-by-hop, framing and routing headers, names that are no token, and underscores are refused."""
    with pytest.raises(ValueError, match=r"header|underscore"):
        field_name(name)
