"""Claims as headers: faithful, and never able to break a message."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Auth, Identity
from gateway.errors import TokenInvalid
from gateway.identity import IdentityHeaders
from gateway.policy import Permit, Policy
from tests.test_policy import token

FIELD_VALUE = re.compile(rb"(?:[!-~](?:[ \t!-~]*[!-~])?)?")  # RFC 9110 §5.5 without obs-text


def permit(**claims: Any) -> Permit:
    """A permit for a token with these claims."""
    return Policy(Auth()).authorize(token(**claims))


def headers(mapping: dict[str, Any], **claims: Any) -> list[tuple[bytes, bytes]]:
    """What the YAML's `identity.headers` gives for these claims."""
    return IdentityHeaders(Identity.model_validate({"headers": mapping})).render(permit(**claims))


def value(claim: Any, form: str = "comma") -> bytes:
    """The one value that a claim becomes."""
    [(_, rendered)] = headers({"x-c": {"claim": "c", "format": form}}, c=claim)
    return rendered


def test_headers_come_in_the_order_of_the_configuration() -> None:
    """Names are lower-case; nested and dotted claims are found; absent and null ones give no header."""
    mapping = {"X-User-Id": "sub", "x-roles": "realm.roles", "x-none": "absent", "x-null": "nothing", "x-dot": "a.b"}
    claims: dict[str, Any] = {"realm": {"roles": ["a", "b"]}, "sub": "u1", "nothing": None, "a.b": True}
    assert headers(mapping, **claims) == [(b"x-user-id", b"u1"), (b"x-roles", b"a,b"), (b"x-dot", b"true")]


@pytest.mark.parametrize(
    ("claim", "comma", "as_json"),
    [
        ("u1", b"u1", b'"u1"'),
        ("", b"", b'""'),
        ("Doe, John", b"Doe, John", b'"Doe, John"'),
        ("a\tb", b"a\tb", b'"a\\tb"'),
        (7, b"7", b"7"),
        (-1.5, b"-1.5", b"-1.5"),
        (1e300, b"1e+300", b"1e+300"),
        (True, b"true", b"true"),
        (False, b"false", b"false"),
        (0, b"0", b"0"),
        ([], b"", b"[]"),
        (["a"], b"a", b'["a"]'),
        (["a", "b c", 3, True, None], b"a,b c,3,true,null", b'["a","b c",3,true,null]'),
        (["a,b", "c"], b"a%2Cb,c", b'["a,b","c"]'),
        (["x", {"k": [1, 2]}], b'x,{"k":[1%2C2]}', b'["x",{"k":[1,2]}]'),
        ({"k": [1, "é"]}, b'{"k":[1,"\\u00e9"]}', b'{"k":[1,"\\u00e9"]}'),
        ({"k": "50%"}, b'{"k":"50%25"}', b'{"k":"50%"}'),
        # what a header cannot hold
        ("José", b"Jos%C3%A9", b'"Jos\\u00e9"'),
        ("李", b"%E6%9D%8E", b'"\\u674e"'),
        ("\U0001f600", b"%F0%9F%98%80", b'"\\ud83d\\ude00"'),
        ("a\r\nx-admin: 1", b"a%0D%0Ax-admin: 1", b'"a\\r\\nx-admin: 1"'),
        ("a\x00b", b"a%00b", b'"a\\u0000b"'),
        ("a\x7fb", b"a%7Fb", b'"a\\u007fb"'),
        ("a\x85\u2028b", b"a%C2%85%E2%80%A8b", b'"a\\u0085\\u2028b"'),
        # a receiver trims spaces, and would decode what looks encoded
        (" a ", b"%20a%20", b'" a "'),
        ("  ", b"%20%20", b'"  "'),
        ("\ta", b"%09a", b'"\\ta"'),
        ("%0A%41", b"%250A%2541", b'"%0A%41"'),
        (["\n", " a", "é,"], b"%0A,%20a,%C3%A9%2C", b'["\\n"," a","\\u00e9,"]'),
    ],
)
def test_values(claim: Any, comma: bytes, as_json: bytes) -> None:
    """Each JSON type has one form in each format; base64url is the JSON without padding."""
    assert value(claim) == comma
    assert value(claim, "json") == as_json
    encoded = value(claim, "base64url")
    assert b"=" not in encoded
    assert urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)) == as_json


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@given(JSON.filter(lambda claim: claim is not None), st.sampled_from(["comma", "json", "base64url"]))
def test_no_claim_breaks_a_header(claim: Any, form: str) -> None:
    """Whatever the claim, the value is one that RFC 9110 §5.5 allows and that no receiver trims."""
    assert FIELD_VALUE.fullmatch(value(claim, form))


@given(TEXT)
def test_a_text_can_be_decoded(text: str) -> None:
    """Percent-decoding gives the text back, so no two texts share a value."""
    assert unquote(value(text).decode(), errors="strict") == text


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_a_list_can_be_decoded(items: list[str]) -> None:
    """Splitting at commas, then percent-decoding, gives the items back: none can pass for two."""
    assert [unquote(item, errors="strict") for item in value(items).decode().split(",")] == items


@given(JSON.filter(lambda claim: claim is not None))
def test_json_can_be_parsed(claim: Any) -> None:
    """The JSON format is the claim."""
    assert json.loads(value(claim, "json")) == claim


@pytest.mark.parametrize("form", ["comma", "json", "base64url"])
def test_a_value_has_a_limit(form: str) -> None:
    """A claim longer than 8 KiB as a header makes the token unusable here rather than losing part of an identity."""
    assert value("x" * 6000, form)
    with pytest.raises(TokenInvalid) as caught:
        value("x" * 9000, form)
    assert caught.value.cause == "claim c is longer than a header may be"


def test_the_limit_counts_what_is_sent() -> None:
    """Percent-encoding counts: 3,000 letters of two bytes are 18,000 bytes."""
    assert len(value("x" * 8192)) == 8192
    with pytest.raises(TokenInvalid):
        value("é" * 3000)


@pytest.mark.parametrize(
    "claim",
    ["\ud800", ["a\udfff"], float("inf"), [float("nan")], {"a": float("-inf")}, [10**5000]],
    ids=["surrogate", "surrogate item", "infinity", "not a number", "minus infinity", "endless digits"],
)
def test_what_is_no_text_is_refused(claim: Any) -> None:
    """A lone surrogate or a number without end cannot be told faithfully, so the token is refused."""
    with pytest.raises(TokenInvalid, match="not valid here"):
        value(claim)


def test_a_long_run_of_spaces_costs_no_more_than_its_length() -> None:
    """Spaces within a text are passed over once; a search that restarts at each would take minutes here."""
    with pytest.raises(TokenInvalid):
        value("a" + " " * 1_000_000 + "b")


def test_nobody_in_particular_has_no_headers() -> None:
    """An anonymous caller is told by the absence of every identity header."""
    identity = IdentityHeaders(Identity.model_validate({"headers": {"x-user-id": "sub"}}))
    assert identity.render(Policy(Auth.model_validate({"mode": "none"})).authorize(None)) == []


def test_rendered_once_per_token_and_configuration() -> None:
    """A warm token's headers are remembered, and a new configuration does not show those of the old."""
    old = IdentityHeaders(Identity.model_validate({"headers": {"x-user-id": "sub"}}))
    new = IdentityHeaders(Identity.model_validate({"headers": {"x-user-id": "email"}}))
    caller = permit(sub="u1", email="u@example.com")
    assert old.render(caller) == [(b"x-user-id", b"u1")]
    assert old.render(caller) is old.render(caller)
    assert new.render(caller) == [(b"x-user-id", b"u@example.com")]
    assert old.render(caller) == [(b"x-user-id", b"u1")]
    assert caller.token is not None
    assert len(caller.token.memo) == 1  # tokens outlive configurations and must not collect their headers


def test_names_that_no_client_may_send() -> None:
    """All identity headers and the further ones to strip, folded as received names are to be folded."""
    identity = IdentityHeaders(
        Identity.model_validate({"headers": {"X-User-Id": "sub"}, "strip": ["X-Internal-Role", "x-user-id"]})
    )
    assert identity.stripped == {b"x-user-id", b"x-internal-role"}
