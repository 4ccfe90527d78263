"""What a route asks of the caller, and what it answers to those who do not have it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.schema import Auth
from gateway.errors import Denied, InsufficientScope, TokenMissing
from gateway.policy import Policy
from gateway.tokens.claims import Token


def token(scopes: str = "", **claims: Any) -> Token:
    """A verified token with these scopes and claims."""
    return Token(
        issuer="main",
        alg="ES256",
        kid="k",
        claims=claims,
        subject="u",
        token_id=None,
        session_id=None,
        client_id=None,
        issued_at=1.0,
        expires_at=2.0,
        not_before=None,
        audience=frozenset({"api"}),
        scopes=frozenset(scopes.split()),
    )


def policy(**auth: Any) -> Policy:
    """A policy as the YAML would give it."""
    return Policy(Auth.model_validate(auth))


def test_required_needs_a_token() -> None:
    """Without a credential a route that requires one answers that it is missing."""
    with pytest.raises(TokenMissing):
        policy().authorize(None)
    caller = token()
    assert policy().authorize(caller).token is caller


def test_optional_may_be_absent_never_insufficient() -> None:
    """An optional token may be left out; one that is sent must suffice."""
    optional = policy(mode="optional", scopes=["read"])
    assert optional.authorize(None).token is None
    assert optional.authorize(caller := token("read")).token is caller
    with pytest.raises(InsufficientScope):
        optional.authorize(token("write"))


def test_none_looks_at_no_token() -> None:
    """A public route knows nobody, whoever is there."""
    public = policy(mode="none")
    assert public.authorize(None).token is None
    assert public.authorize(token()).token is None


@pytest.mark.parametrize(
    ("scopes", "held", "challenge"),
    [
        (["a", "b"], "b a", None),
        (["a", "b"], "a b c", None),
        (["a", "b"], "a", "a b"),
        (["a"], "", "a"),
        (["a"], "A ab", "a"),
        ({"any": ["a", "b"]}, "b", None),
        ({"any": ["a", "b"]}, "c", "a b"),
        ({"all": ["x"], "any": ["a", "b"]}, "x a", None),
        ({"all": ["x"], "any": ["a", "b"]}, "x", "x a b"),
        ({"all": ["x"], "any": ["x", "b"]}, "b", "x b"),
        ([], "", None),
    ],
)
def test_scopes(scopes: Any, held: str, challenge: str | None) -> None:
    """All of `all` and one of `any` are needed; the refusal names what the route asks for."""
    if challenge is None:
        policy(scopes=scopes).authorize(token(held))
        return
    with pytest.raises(InsufficientScope) as caught:
        policy(scopes=scopes).authorize(token(held))
    assert caught.value.scope == challenge


# Rule, claims, whether they hold.
RULES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"tenant": {"equals": "acme"}}, {"tenant": "acme"}, True),
    ({"tenant": {"equals": "acme"}}, {"tenant": "Acme"}, False),
    ({"tenant": {"equals": "acme"}}, {"tenant": ["acme"]}, False),
    ({"tenant": {"equals": "acme"}}, {"tenant": {"acme": 1}}, False),
    ({"tenant": {"equals": "acme"}}, {"tenant": None}, False),
    ({"tenant": {"equals": "acme"}}, {}, False),
    ({"tenant": {"equals": ""}}, {}, False),
    # JSON's types: a boolean is no number, a number no string; 1 and 1.0 are one number
    ({"admin": {"equals": True}}, {"admin": True}, True),
    ({"admin": {"equals": True}}, {"admin": 1}, False),
    ({"admin": {"equals": True}}, {"admin": "true"}, False),
    ({"admin": {"equals": False}}, {"admin": 0}, False),
    ({"admin": {"equals": False}}, {"admin": None}, False),
    ({"admin": {"equals": False}}, {}, False),
    ({"level": {"equals": 1}}, {"level": 1}, True),
    ({"level": {"equals": 1}}, {"level": 1.0}, True),
    ({"level": {"equals": 1}}, {"level": True}, False),
    ({"level": {"equals": 1}}, {"level": "1"}, False),
    ({"level": {"equals": "1"}}, {"level": 1}, False),
    ({"level": {"equals": 0}}, {"level": False}, False),
    ({"level": {"equals": 1.5}}, {"level": 1.5}, True),
    ({"plan": {"one_of": ["pro", "team"]}}, {"plan": "team"}, True),
    ({"plan": {"one_of": ["pro", "team"]}}, {"plan": "free"}, False),
    ({"plan": {"one_of": ["pro", 1]}}, {"plan": True}, False),
    ({"plan": {"one_of": ["pro", 1]}}, {"plan": 1}, True),
    ({"plan": {"one_of": ["pro"]}}, {"plan": ["pro"]}, False),
    ({"roles": {"contains": "admin"}}, {"roles": ["user", "admin"]}, True),
    ({"roles": {"contains": "admin"}}, {"roles": ["administrator"]}, False),
    ({"roles": {"contains": "admin"}}, {"roles": []}, False),
    ({"roles": {"contains": "admin"}}, {"roles": "admin"}, False),
    ({"roles": {"contains": "admin"}}, {"roles": "user admin"}, False),
    ({"roles": {"contains": "admin"}}, {"roles": {"admin": True}}, False),
    ({"roles": {"contains": "admin"}}, {"roles": [["admin"], {"a": "admin"}]}, False),
    ({"roles": {"contains": 1}}, {"roles": [True, "1"]}, False),
    ({"roles": {"contains": 1}}, {"roles": [1.0]}, True),
    # nested, and named with dots
    ({"realm_access.roles": {"contains": "x"}}, {"realm_access": {"roles": ["x"]}}, True),
    ({"realm_access.roles": {"contains": "x"}}, {"realm_access": {"roles": ["y"]}}, False),
    ({"a.b": {"equals": 1}}, {"a.b": 1, "a": {"b": 2}}, True),
    # all rules together
    ({"a": {"equals": 1}, "b": {"equals": 2}}, {"a": 1, "b": 2}, True),
    ({"a": {"equals": 1}, "b": {"equals": 2}}, {"a": 1, "b": 3}, False),
]


@pytest.mark.parametrize(("rules", "claims", "holds"), RULES)
def test_claims(rules: dict[str, Any], claims: dict[str, Any], holds: bool) -> None:
    """A claim meets a rule by its JSON type and value; absent claims, lists and objects equal nothing."""
    if holds:
        policy(claims=rules).authorize(token(**claims))
        return
    with pytest.raises(Denied):
        policy(claims=rules).authorize(token(**claims))


def test_a_refusal_tells_the_log_which_claim_and_nobody_its_value() -> None:
    """The client learns that it may not; the log learns which claim; the claim's value stays in the token."""
    with pytest.raises(Denied) as caught:
        policy(claims={"tenant": {"equals": "acme"}}).authorize(token(tenant="secret-tenant"))
    assert caught.value.detail is None
    assert caught.value.cause == "claim tenant is not as the route requires"


def test_a_missing_scope_is_told_before_a_missing_claim() -> None:
    """A scope is something the client can go and ask for, so it is named first."""
    with pytest.raises(InsufficientScope):
        policy(scopes=["a"], claims={"tenant": {"equals": "acme"}}).authorize(token())
