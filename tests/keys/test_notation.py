"""Base64url and JSON, read the strict way."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.notation import decode_base64url, parse_object


@given(octets=st.binary(max_size=100))
def test_base64url_round_trip(octets: bytes) -> None:
    """Every octet string has exactly one text, and that text is read."""
    assert decode_base64url(urlsafe_b64encode(octets).rstrip(b"=")) == octets


@given(text=st.text(alphabet="AQgwBz-_+/= \n", max_size=8))
def test_no_text_is_read_that_would_not_be_written(text: str) -> None:
    """What is accepted is the canonical text of its own octets; everything else is refused."""
    try:
        octets = decode_base64url(text.encode())
    except ValueError:
        return
    assert urlsafe_b64encode(octets).rstrip(b"=") == text.encode()


@pytest.mark.parametrize("text", [b"A", b"AAAAA", b"AB", b"AAB", b"AA==", b"AA\n", b"+A", b"/A", "é".encode(), b"\0"])
def test_not_base64url(text: bytes) -> None:
    """Padding, spare bits, impossible lengths and other characters are refused."""
    with pytest.raises(ValueError):
        decode_base64url(text)


@given(
    value=st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=20) | st.lists(st.integers()),
        max_size=5,
    )
)
def test_json_round_trip(value: dict[str, object]) -> None:
    """An ordinary object is read as it was written, escaped or not."""
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@given(
    octets=st.binary(max_size=12) | st.from_regex(r"[ \t\r\n\f\ufeff]*\{[^{}]{0,6}\}[ \t\r\n\f\0}]*").map(str.encode)
)
def test_an_object_is_read_as_python_reads_it(octets: bytes) -> None:
    """White space around it is no matter, anything else is; nothing is accepted that `json` refuses."""
    try:
        expected = json.loads(octets.decode())
    except ValueError:
        expected = None
    try:
        assert parse_object(octets) == expected
    except ValueError:
        assert not isinstance(expected, dict) or octets.count(b":") > len(expected)


_TEXTS = st.text(alphabet='":,{}[] a', max_size=4)
_BLANKS = st.text(alphabet=" \t\r\n", max_size=1)


@st.composite
def _objects(draw: st.DrawFn, depth: int = 2) -> str:
    """JSON objects with few names, so that some come twice, and with texts that look like members."""

    def value() -> str:
        kind = draw(st.sampled_from(("text", "number", "object", "list") if depth else ("text", "number")))
        if kind == "object":
            return draw(_objects(depth - 1))
        if kind == "list":
            return f"[{draw(_objects(depth - 1))}]"
        return json.dumps(draw(_TEXTS)) if kind == "text" else "1"

    names = draw(st.lists(st.sampled_from(("a", "b", "c", ":", '"')), max_size=3))
    members = [f"{json.dumps(name)}{draw(_BLANKS)}:{draw(_BLANKS)}{value()}" for name in names]
    return "{" + ",".join(members) + "}"


def _with_unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("twice")
    return dict(pairs)


@given(text=_objects(), around=_BLANKS)
def test_a_name_that_comes_twice_is_always_seen(text: str, around: str) -> None:
    """Wherever it stands, however it is written, and whatever the texts around it look like."""
    text = around + text + around
    try:
        expected = json.loads(text, object_pairs_hook=_with_unique_names)
    except ValueError:
        with pytest.raises(ValueError, match="duplicate member"):
            parse_object(text.encode())
    else:
        assert parse_object(text.encode()) == expected


@pytest.mark.parametrize("around", [(b" ", b""), (b"", b"\n"), (b"\t", b"\r\n"), (b"\n  ", b" ")])
def test_white_space_around_an_object(around: tuple[bytes, bytes]) -> None:
    """RFC 8259 §2 allows it."""
    assert parse_object(b'{"a": [1]}'.join(around)) == {"a": [1]}


@pytest.mark.parametrize(
    "octets", [b"{}{}", b'{"a":1}}', b'{"a":1},{"b":2}', b"{} x {}", b"{\0}", b'{"a":}', b'{"a":1 }x']
)
def test_nothing_may_follow(octets: bytes) -> None:
    """What stands after the object, or for a value, is not skipped."""
    with pytest.raises(ValueError, match="not JSON"):
        parse_object(octets)


SECRET_TEXT = "do-not-tell"


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "not JSON"),
        (b"{" + SECRET_TEXT.encode(), "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"a":1,"a":2}', "duplicate member"),
        (b'{"o":{"a":1,"\\u0061":2}}', "duplicate member"),
        (b'{"l":[{"a":1,"a":1}]}', "duplicate member"),
        (b'{"n":NaN}', "NaN"),
        (b'{"n":Infinity}', "NaN"),
        (b'{"n":1e400}', "beyond the range"),
        (b'{"n":' + b"1" * 41 + b"}", "too many digits"),
        (b'{"s":"\\ud800"}', "UTF-8"),
        (b'{"s":"\xed\xa0\x80"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff\xfe{\0}\0", "UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        (b'{"d":' + b"[" * 16 + b"]" * 16 + b"}", "deeply"),
        (b'{"d":' + b"[" * 100_000, "deeply"),
        (b'{"d":' * 50 + b"1" + b"}" * 50, "deeply"),
    ],
)
def test_json_with_two_meanings(octets: bytes, reason: str) -> None:
    """What parsers disagree about is refused, with a reason that quotes nothing of the input."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_object(octets)
    assert SECRET_TEXT not in f"{caught.value!r} {vars(caught.value)}"
    assert caught.value.__cause__ is None
