"""What servers read differently, and what no path may hold."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.routing.ambiguity import has_parameters, is_plain, kinds_of, readings, split

# Path → its kinds. Letters stand for: d dot segments, s encoded slash, e encoded dot, b backslash, m empty segments.
LETTERS = {"d": "dot_segments", "s": "encoded_slash", "e": "encoded_dot", "b": "backslash", "m": "empty_segments"}
KINDS = {
    # certain
    b"/": "",
    b"/a": "",
    b"/a/": "",
    b"/a/b.c/..d/e../...": "",
    b"/.well-known/jwks.json": "",
    b"/.hidden": "",
    b"/a;v=1/b": "",
    b"/caf%C3%A9/%20": "",
    b"/a%3Fb%23c%40": "",
    b"/100%25": "",
    b"/100%2540": "",
    b'/a[1]|b^{c}"<>`': "",
    b"/:/@!$&'()*+,=~_-": "",
    # dot segments, as they are
    b"/.": "d",
    b"/..": "d",
    b"/./a": "d",
    b"/a/..": "d",
    b"/a/../b": "d",
    b"/a/./b": "d",
    # with parameters behind the dots, as servlet containers cut them off
    b"/a/..;/b": "d",
    b"/a/.;x=y/b": "d",
    b"/a/..;": "d",
    b"/a/..%3bx/b": "d",
    # encoded dots, in and out of dot segments, once and twice
    b"/a%2etxt": "e",
    b"/a%252Etxt": "e",
    b"/%2e": "de",
    b"/a/%2e%2E/b": "de",
    b"/a/.%2e/b": "de",
    b"/a/%252e%252e/b": "de",
    b"/a/%2e%2e;/b": "de",
    # encoded slashes
    b"/a%2fb": "s",
    b"/a%2Fb": "s",
    b"/a%252fb": "s",
    b"/a%25252fb": "s",
    b"/a%2f": "s",
    b"/a/..%2fb": "ds",
    b"/a%2f../b": "ds",
    b"/a%2f%2e%2e%2fb": "dse",
    b"/%2fb": "sm",
    b"/a/%2fb": "sm",
    # backslashes, raw and encoded
    b"/a\\b": "b",
    b"/a%5cb": "b",
    b"/a%255Cb": "b",
    b"/a\\..\\b": "bd",
    b"/a/..%5cb": "bd",
    b"/\\b": "bm",
    # empty segments; a parameter alone leaves one
    b"//": "m",
    b"//a": "m",
    b"/a//b": "m",
    b"/a//": "m",
    b"/;x/a": "m",
    b"/a/;/b": "m",
    b"/a/%3b/b": "m",
    b"//../a": "md",
}

REFUSED = {
    b"": "not a path",
    b"a": "not a path",
    b"http://h/a": "not a path",
    b"example.com:443": "not a path",
    b"/a b": "must be percent-encoded",
    b"/a\tb": "must be percent-encoded",
    b"/a\x00": "must be percent-encoded",
    b"/a\r\nb": "must be percent-encoded",
    b"/a\x7f": "must be percent-encoded",
    b"/caf\xc3\xa9": "must be percent-encoded",
    b"/\xe9": "must be percent-encoded",
    b"/a?b": "query or fragment",
    b"/a#b": "query or fragment",
    b"/%": "does not begin",
    b"/a%": "does not begin",
    b"/a%2": "does not begin",
    b"/a%zz": "does not begin",
    b"/a%u002e": "does not begin",
    b"/a%%32f": "does not begin",
    b"/%2g": "does not begin",
    b"/a%00": "control character",
    b"/a%0d%0ab": "control character",
    b"/a%1F": "control character",
    b"/a%7f": "control character",
    b"/a%2500": "control character",
    b"/a%25250a": "control character",
    b"/%61dmin": "needs no encoding",
    b"/%41": "needs no encoding",
    b"/%7A": "needs no encoding",
    b"/a%30": "needs no encoding",
    b"/a%2Db": "needs no encoding",
    b"/a%5fb": "needs no encoding",
    b"/%7euser": "needs no encoding",
    b"/%e9": "UTF-8",
    b"/%ff": "UTF-8",
    b"/a/%c0%ae%c0%ae/b": "UTF-8",
    b"/a%c0%afb": "UTF-8",
    b"/a%e0%80%afb": "UTF-8",
    b"/%ed%a0%80": "UTF-8",
}


@pytest.mark.parametrize(("raw_path", "letters"), KINDS.items())
def test_kinds(raw_path: bytes, letters: str) -> None:
    """Each way in which a path can be read differently has its kind, and a path may have several."""
    assert kinds_of(raw_path) == {LETTERS[letter] for letter in letters}


@pytest.mark.parametrize(("raw_path", "reason"), REFUSED.items())
def test_refused_whatever_a_route_allows(raw_path: bytes, reason: str) -> None:
    """A path that should never have been sent is a bad request, and the public reason says what it holds."""
    with pytest.raises(BadRequest, match=reason):
        kinds_of(raw_path)
    assert not is_plain(raw_path)


@pytest.mark.parametrize("character", string.ascii_letters + string.digits + "-_~")
@pytest.mark.parametrize("spelling", ["%{:02x}", "%{:02X}"])
def test_every_unreserved_character_must_be_written_plainly(character: str, spelling: str) -> None:
    """RFC 3986 §2.3: an encoded letter, digit, hyphen, underscore or tilde is refused in either case."""
    with pytest.raises(BadRequest, match="needs no encoding"):
        kinds_of(b"/" + spelling.format(ord(character)).encode())


@pytest.mark.parametrize(
    "octet", [*range(0x20, 0x2D), 0x3A, 0x3C, 0x3D, 0x3E, 0x3F, 0x40, 0x5B, 0x5D, 0x5E, 0x60, 0x7B]
)
def test_other_encoded_characters_are_certain(octet: int) -> None:
    """A reserved character or a space may be encoded: every server decodes it inside its segment."""
    assert kinds_of(b"/a%%%02Xb" % octet) == set()


def test_an_ambiguous_path_is_short() -> None:
    """The readings of a path are compared one by one, so an ambiguous one has at most 64 segments."""
    assert kinds_of(b"/a" * 5000) == set()
    assert kinds_of(b"/a" * 62 + b"//") == {"empty_segments"}
    with pytest.raises(BadRequest, match="64 segments"):
        kinds_of(b"/a" * 64 + b"//")
    with pytest.raises(BadRequest, match="64 segments"):
        kinds_of(b"/a" + b"%2f" * 64)


@pytest.mark.parametrize(
    ("raw_path", "found"),
    [
        (b"/a%20b/c", (b"", b"a b", b"c")),
        (b"/a%2Fb/", (b"", b"a/b", b"")),  # decoded after the split, so the slash does not separate
        (b"/100%2525", (b"", b"100%25")),  # decoded once
    ],
)
def test_own_reading(raw_path: bytes, found: tuple[bytes, ...]) -> None:
    """The gateway splits first and decodes once."""
    assert split(raw_path) == found


@pytest.mark.parametrize(
    ("raw_path", "texts"),
    [
        (b"/a", {"/a"}),
        (b"/a/../b", {"/a/../b", "/b"}),
        (b"/a/b/..", {"/a/b/..", "/a/"}),
        (b"/..", {"/..", "/"}),
        (b"//a", {"//a", "/a"}),
        (b"/a//../b", {"/a//../b", "/a/../b", "/a/b", "/b"}),  # merged before or after the dots
        (b"/a;x/b", {"/a;x/b", "/a/b"}),
        (b"/a%3Bx/b", {"/a;x/b", "/a/b"}),
        (b"/a\\b", {"/a\\b", "/a/b"}),
        (b"/x/..;/b", {"/x/..;/b", "/x/../b", "/b"}),
        (b"/x%252fb", {"/x%2fb", "/x/b"}),
    ],
)
def test_readings(raw_path: bytes, texts: set[str]) -> None:
    """Each habit of servers, and each combination, gives one reading."""
    assert {b"/".join(reading).decode() for reading in readings(raw_path)} == texts


def test_an_encoded_slash_is_two_readings() -> None:
    """The slash separates for servers that decode first, and belongs to the name for those that split first."""
    assert readings(b"/a%2Fb") == {(b"", b"a/b"), (b"", b"a", b"b")}


# Pieces that meet in attacks, in any order.
SEPARATORS = [b"/", b"\\", b"%2f", b"%2F", b"%252f", b"%5c", b";", b"%3b", b"%253B"]
NAMES = [b"a", b"admin", b".", b"..", b"%2e", b"%252E", b"x=1", b"%20", b"%C3%A9", b"%25", b"~"]
HOSTILE = st.lists(
    st.sampled_from(SEPARATORS + NAMES),
    max_size=12,
).map(lambda pieces: b"/" + b"".join(pieces))


@given(HOSTILE)
def test_a_plain_path_is_certain(raw_path: bytes) -> None:
    """What takes the short way has one reading, and it is the path split at its slashes."""
    if is_plain(raw_path):
        assert kinds_of(raw_path) == set()
        assert not has_parameters(raw_path)
        assert readings(raw_path) == {tuple(raw_path.split(b"/"))}


@given(st.binary(max_size=12))
def test_whatever_the_short_way_takes_the_closer_look_takes_too(noise: bytes) -> None:
    """No octet slips past the refusals because a path looks plain."""
    if is_plain(b"/" + noise):
        assert kinds_of(b"/" + noise) == set()
        assert b"%" not in noise
        assert b";" not in noise


@given(HOSTILE)
def test_dot_and_empty_segments_are_found_in_every_reading(raw_path: bytes) -> None:
    """If any server could see a dot segment or an empty one, the path has that kind."""
    kinds = kinds_of(raw_path)
    found = readings(raw_path)
    if any(segment in (b".", b"..") for reading in found for segment in reading):
        assert "dot_segments" in kinds
    if any(b"" in reading[1:-1] for reading in found):
        assert "empty_segments" in kinds


@given(HOSTILE)
def test_a_certain_path_has_one_reading(raw_path: bytes) -> None:
    """Without any kind and without parameters, all servers agree with the gateway's reading."""
    if not kinds_of(raw_path) and not has_parameters(raw_path):
        assert readings(raw_path) == {split(raw_path)}


@given(st.text(max_size=8))
def test_any_text_can_be_asked_for(text: str) -> None:
    """A segment encoded by the book (RFC 3986 §2) is read as the text that was encoded, unless it holds structure."""
    unreserved = (string.ascii_letters + string.digits + "-._~").encode()
    encoded = b"".join(
        bytes((octet,)) if octet in unreserved else b"%%%02X" % octet for octet in text.encode("utf-8", "ignore")
    )
    try:
        certain = not kinds_of(b"/x" + encoded)
    except BadRequest:
        certain = False
        assert any(ord(character) < 0x20 or ord(character) == 0x7F or character == "%" for character in text)
    if certain:
        assert split(b"/x" + encoded) == (b"", b"x" + text.encode("utf-8", "ignore"))


_PLAIN = re.compile(rb"(?:/(?!\.)[!\"$&-.0-:<->@-\[\]-~]+)+/?|/")


@given(
    st.binary(max_size=12)
    | HOSTILE
    | st.text('/.ab;%\\"#?', max_size=12).map(str.encode)
    | st.lists(st.sampled_from([b"a", b"a.b", b"a..b", b".", b"..", b".a", b"a.", b""])).map(b"/".join)
)
def test_the_short_way_is_as_wide_as_its_grammar(raw_path: bytes) -> None:
    """A plain path is segments of plain characters that do not begin with a dot, and none is empty but the last."""
    assert is_plain(raw_path) == bool(_PLAIN.fullmatch(raw_path))
    assert is_plain(b"/" + raw_path) == bool(_PLAIN.fullmatch(b"/" + raw_path))


def test_every_octet_is_judged_as_the_grammar_says() -> None:
    """In the middle of a name, and as the only one of its segment."""
    for octet in range(256):
        for raw_path in (b"/a%cb" % octet, b"/a/%c" % octet, b"%c" % octet):
            assert is_plain(raw_path) == bool(_PLAIN.fullmatch(raw_path)), raw_path
