"""The field as clients send it, and names that tell nobody who they belong to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.idempotency.key import LONGEST, find_key, fingerprint, record_name


@pytest.mark.parametrize(
    ("field", "key"),
    [
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b' "a b" ', "a b"),
        (b'"a\\"b\\\\c"', 'a"b\\c'),
        (b'"a"; x=1; y="z;"', "a"),
        (b"q83vEg==", "q83vEg=="),
        (b"k" * LONGEST, "k" * LONGEST),
    ],
)
def test_a_key_is_read(field: bytes, key: str) -> None:
    """RFC 9651 strings unescaped, bare tokens as they are."""
    assert find_key([(b"accept", b"*/*"), (b"idempotency-key", field)]) == key


@pytest.mark.parametrize(
    "field", [b"", b'""', b'"a', b'a"', b'"a\\b"', b'"\xc3\xa4"', b"a b", b"a,b", b'"a", "b"', b"k" * 256, b'"a" b']
)
def test_what_cannot_be_read_is_refused(field: bytes) -> None:
    """Nothing is guessed: a key that is read in two ways would not protect."""
    with pytest.raises(BadRequest):
        find_key([(b"idempotency-key", field)])


def test_two_keys_are_none() -> None:
    """Even if they agree; and no field is no key."""
    with pytest.raises(BadRequest):
        find_key([(b"idempotency-key", b"a"), (b"idempotency-key", b"a")])
    assert find_key([(b"accept", b"*/*")]) is None


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=LONGEST))
def test_every_string_of_the_rfc_is_a_key(key: str) -> None:
    """As RFC 9651 section 4.1.6 writes it."""
    written = b'"' + key.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
    assert find_key([(b"idempotency-key", written)]) == key


def test_names_differ_in_every_part() -> None:
    """However the parts are cut, and nothing of them shows."""
    parts = [
        ("orders", "main", "alice", "k"),
        ("order", "smain", "alice", "k"),
        ("orders", "main", "alicek", ""),
        ("orders", "main", "", "alicek"),
        ("orders", "other", "alice", "k"),
        ("orders", "main", "1:a", "k"),
        ("orders", "main", "1", ":ak"),
    ]
    names = {record_name(*part) for part in parts}
    assert len(names) == len(parts)
    assert all(len(name) == 64 and "alice" not in name for name in names)


def test_fingerprints_differ_in_every_part() -> None:
    """Method, target and body; always 32 bytes."""
    requests = [
        (b"POST", b"/a", b""),
        (b"PUT", b"/a", b""),
        (b"POST", b"/a?", b""),
        (b"POST", b"/a", b"x" * 100_000),
        (b"POST", b"/a\n", b""),
    ]
    prints = {fingerprint(*request) for request in requests}
    assert len(prints) == len(requests)
    assert {len(one) for one in prints} == {32}
