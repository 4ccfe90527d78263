"""Where a request's credential may stand, and how it is removed from what is forwarded."""

from __future__ import annotations

import pytest

from gateway.config.schema import Credentials
from gateway.errors import BadRequest, GatewayError, TokenInvalid
from gateway.tokens.bearer import CredentialSources, find_token, from_subprotocols, without_query

SOURCES = CredentialSources(frozenset({b"session"}), frozenset({b"access_token"}))
NAMES = frozenset({b"session", b"id"})

FOUND = [
    # headers, query, sources, token
    ({}, b"", None, None),
    ({"authorization": b"Bearer abc"}, b"", None, b"abc"),
    ({"authorization": b"bearer abc"}, b"", None, b"abc"),
    ({"authorization": b"BEARER abc"}, b"", None, b"abc"),
    ({"authorization": b"Bearer   abc "}, b"", None, b"abc"),
    ({"authorization": b"Basic dXNlcjpwYXNz"}, b"", None, None),
    ({"authorization": b"Bearerabc"}, b"", None, None),  # another scheme
    ({"authorization": b""}, b"", None, None),
    ({"x-authorization": b"Bearer abc"}, b"", None, None),
    # places that nobody has configured do not count
    ({"cookie": b"session=abc"}, b"access_token=abc", None, None),
    ({"authorization": b"Bearer abc", "cookie": b"session=x"}, b"access_token=y", None, b"abc"),
    # cookies
    ({"cookie": b"session=abc"}, b"", SOURCES, b"abc"),
    ({"cookie": b"a=1; session=abc; b=2"}, b"", SOURCES, b"abc"),
    ({"cookie": b"a=1;session=abc"}, b"", SOURCES, b"abc"),
    ({"cookie": b"a=1; xsession=abc; session2=x"}, b"", SOURCES, None),
    ({"cookie": b"Session=abc"}, b"", SOURCES, None),
    ({"cookie": b'session="abc"'}, b"", SOURCES, b'"abc"'),  # no token has quotes: the verifier refuses it
    # query
    ({}, b"access_token=abc", SOURCES, b"abc"),
    ({}, b"a=1&access_token=abc&b=2", SOURCES, b"abc"),
    ({}, b"acc%65ss_token=abc", SOURCES, b"abc"),
    ({}, b"access_token=a%2Eb", SOURCES, b"a.b"),
    ({}, b"Access_Token=abc", SOURCES, None),
    ({}, b"a=access_token=abc", SOURCES, None),
    ({"authorization": b"Basic dXNlcjpwYXNz"}, b"access_token=abc", SOURCES, b"abc"),
]


@pytest.mark.parametrize(("headers", "query", "sources", "token"), FOUND)
def test_found(headers: dict[str, bytes], query: bytes, sources: CredentialSources | None, token: bytes | None) -> None:
    """The one credential of a request is found; other schemes and places that are not configured do not count."""
    pairs = [(b"host", b"shop.example"), *((name.encode(), value) for name, value in headers.items())]
    assert find_token(pairs, query, sources) == token


A, C = b"authorization", b"cookie"
REFUSED: list[tuple[list[tuple[bytes, bytes]], bytes, type[GatewayError]]] = [
    ([(A, b"Bearer")], b"", BadRequest),
    ([(A, b"Bearer ")], b"", BadRequest),
    ([(A, b"Bearer\tabc")], b"", BadRequest),
    ([(A, b"Bearer abc def")], b"", BadRequest),
    ([(A, b"Bearer abc, Bearer def")], b"", BadRequest),
    ([(A, b"Bearer abc,def")], b"", BadRequest),
    ([(A, b"Bearer abc\tdef")], b"", BadRequest),
    ([(A, b"Bearer abc"), (A, b"Bearer abc")], b"", BadRequest),
    ([(A, b"Bearer abc"), (A, b"Basic abc")], b"", BadRequest),
    ([(A, b"Basic abc"), (A, b"Basic abc")], b"", BadRequest),
    ([(A, b"Bearer abc"), (C, b"session=abc")], b"", BadRequest),
    ([(A, b"Bearer abc")], b"access_token=abc", BadRequest),
    ([(C, b"session=abc")], b"access_token=abc", BadRequest),
    ([(C, b"session=abc; session=abc")], b"", BadRequest),
    ([(C, b"session=abc"), (C, b"session=def")], b"", BadRequest),
    ([], b"access_token=abc&access_token=abc", BadRequest),
    ([], b"access_token=abc&access%5Ftoken=def", BadRequest),
    ([(A, b"Bearer abc"), (C, b"session=")], b"", BadRequest),
    ([(C, b"session=")], b"", TokenInvalid),
    ([(C, b"session")], b"", TokenInvalid),
    ([], b"access_token=", TokenInvalid),
    ([], b"access_token", TokenInvalid),
]


@pytest.mark.parametrize(("headers", "query", "error"), REFUSED)
def test_refused(headers: list[tuple[bytes, bytes]], query: bytes, error: type[GatewayError]) -> None:
    """Two credentials are refused even if they are equal; a credential that is there but empty is not an absent one."""
    with pytest.raises(error):
        find_token(headers, query, SOURCES)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"a=1&b=2", b"a=1&b=2"),
        (b"session=x", b""),
        (b"a=1&session=x&b=%7E", b"a=1&b=%7E"),
        (b"a=1&s%65ssion=x", b"a=1"),
        (b"session&a=+", b"a=+"),
        (b"a=1&&b", b"a=1&&b"),
        (b"xid=1&id=2&ID=3", b"xid=1&ID=3"),
        (b"", b""),
    ],
)
def test_without_query(query: bytes, left: bytes) -> None:
    """The named parameters go, in every encoding of their names, and every other octet stays."""
    assert without_query(query, NAMES) == left


def test_sources_of_the_configuration() -> None:
    """The places of several issuers come together; if none names one, there is nothing to search."""
    assert CredentialSources.of([Credentials(), Credentials()]) is None
    assert CredentialSources.of([]) is None
    found = CredentialSources.of([Credentials(cookie="session"), Credentials(), Credentials(query="access_token")])
    assert found == SOURCES


@pytest.mark.parametrize(
    ("offered", "tokens", "others"),
    [
        ([], [], []),
        (["chat.v1", "chat.v2"], [], ["chat.v1", "chat.v2"]),
        (["bearer", "a.b.c"], [b"a.b.c"], []),
        (["chat.v1", "Bearer", "a.b.c", "chat.v2"], [b"a.b.c"], ["chat.v1", "chat.v2"]),
        (["bearer"], [b""], []),  # refused, like an Authorization field without a token
        (["bearer", "a", "bearer", "b"], [b"a", b"b"], []),  # refused, like two Authorization fields
        (["bearer", "bearer"], [b"bearer"], []),
        (["bearer.v1", "a.b.c"], [], ["bearer.v1", "a.b.c"]),
    ],
)
def test_a_websocket_may_bring_its_token_as_a_subprotocol(
    offered: list[str], tokens: list[bytes], others: list[str]
) -> None:
    """What stands behind `bearer` is a token and no subprotocol; order is kept."""
    assert from_subprotocols(offered) == (tokens, others)
