"""Claims by their path, and what is read leniently because the RFCs say so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.tokens.claims import ABSENT, Token, claim_at
from tests.tokens.mint import NOW, KeysAtHand, claims, header, key_set, rules, signed, verifier

CLAIMS = {
    "email": "user-1@shop.example",
    "empty": None,
    "realm_access": {"roles": ["customer"], "deep": {"er": 7}},
    "https://shop.example/roles": ["eu"],
    "https://shop.example/tenant": {"name": "north", "flags.beta": True},
    "a.b": {"c": "flat prefix"},
    "a": {"b.c": "nested name", "b": {"c": "nested", "d": "only here"}},
    "list": [{"x": 1}],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("email", "user-1@shop.example"),
        ("empty", None),  # null is a value
        ("realm_access.roles", ["customer"]),
        ("realm_access.deep.er", 7),
        ("realm_access", CLAIMS["realm_access"]),
        ("https://shop.example/roles", ["eu"]),  # the whole path is a name
        ("https://shop.example/tenant.name", "north"),
        ("https://shop.example/tenant.flags.beta", True),
        ("a.b.c", "flat prefix"),  # the longest prefix is entered first
        ("a.b.d", "only here"),  # and a shorter one if that leads nowhere
        ("missing", ABSENT),
        ("realm_access.missing", ABSENT),
        ("email.domain", ABSENT),  # a string has no members
        ("list.0.x", ABSENT),  # and a list none either
        ("empty.x", ABSENT),
        ("", ABSENT),
        (".", ABSENT),
        ("realm_access.", ABSENT),
    ],
)
def test_claim_at(path: str, value: Any) -> None:
    """A path finds the claim of that very name first, then goes into objects, the longest name first."""
    assert claim_at(CLAIMS, path) == value


def test_absent_is_false_and_says_so() -> None:
    """ABSENT is told apart from null, is false, and can be read in a log."""
    assert not ABSENT
    assert ABSENT is not None
    assert repr(ABSENT) == "ABSENT"


def token(**changes: Any) -> Token:
    """A verified token with other claims."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    return asyncio.run(gate.verify(signed(header(), claims(**changes)), NOW))


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": " a  b "}, {"a", "b"}),
        ({"scope": ""}, set()),
        ({"scope": ["a", "b c"]}, {"a", "b c"}),
        ({"scope": ..., "scp": "a b"}, {"a", "b"}),
        ({"scope": ..., "scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
        ({"scope": ...}, set()),
    ],
)
def test_scopes(changes: dict[str, Any], scopes: set[str]) -> None:
    """Scopes are a space-separated string (RFC 8693 §4.2) or a list, in `scope`, in `scp` or in both."""
    assert token(**changes).scopes == scopes


@pytest.mark.parametrize(
    ("changes", "client_id"),
    [({}, "app"), ({"azp": "spa"}, "app"), ({"client_id": ..., "azp": "spa"}, "spa"), ({"client_id": ...}, None)],
)
def test_client_id(changes: dict[str, Any], client_id: str | None) -> None:
    """The client is `client_id`, or else `azp`, as OpenID providers name it."""
    assert token(**changes).client_id == client_id


def test_the_memo_is_the_token_s_own() -> None:
    """What others derive from a token is kept with it, and shared with no other."""
    one, other = token(), token()
    one.memo["headers"] = [(b"x-user-id", b"user-1")]
    assert "headers" not in other.memo
