"""Answers at rest: which are kept, what of them, and how they come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fields import FieldLines
from gateway.idempotency.answer import Answer, decides, is_event_stream

FIELDS = FieldLines(
    b"content-type: application/json\r\nlocation: /orders/1\r\nset-cookie: a=b\r\ncontent-length: 2\r\n"
    b"date: then\r\nx-request-id: first\r\nvia: 1.1 gateway\r\nidempotent-replayed: maybe\r\netag: W/x\r\n",
    2,
)


@pytest.mark.parametrize(
    ("status", "decided"),
    [(200, True), (201, True), (204, True), (303, True), (400, True), (404, True), (409, True), (422, True)]
    + [(status, False) for status in (401, 403, 408, 425, 429, 500, 502, 503, 504, 599)],
)
def test_which_answers_decide(status: int, decided: bool) -> None:
    """Not those about the moment or the credential, nor failures."""
    assert decides(status) is decided


def test_an_answer_comes_back_with_its_own_moment() -> None:
    """Its fields without cookies, with the repetition's id and date, each once."""
    answer = Answer.unpack(Answer.of(201, FIELDS, b"{}").pack())
    fields = answer.replayed(b"second", b"now")
    assert (answer.status, answer.body, fields.length) == (201, b"{}", 2)
    assert list(fields) == [
        (b"content-type", b"application/json"),
        (b"location", b"/orders/1"),
        (b"via", b"1.1 gateway"),
        (b"etag", b"W/x"),
        (b"date", b"now"),
        (b"x-request-id", b"second"),
        (b"idempotent-replayed", b"true"),
        (b"content-length", b"2"),
    ]


def test_a_head_alone_says_that_it_is_alone() -> None:
    """Nothing describes a body that is not there."""
    fields = dict(Answer.unpack(Answer.of(200, FIELDS, None).pack()).replayed(b"r", b"d"))
    assert fields[b"idempotent-body"] == b"omitted"
    assert fields[b"content-length"] == b"0"
    assert fields[b"location"] == b"/orders/1"
    assert b"content-type" not in fields


def test_an_answer_without_content_has_no_length() -> None:
    """RFC 9110 section 8.6: none on a 204."""
    fields = Answer.of(204, FieldLines(b"", -1), b"").replayed(b"r", b"d")
    assert fields.length == -1
    assert b"content-length" not in dict(fields)


@given(st.integers(200, 599), st.binary(max_size=2000), st.booleans())
def test_bytes_survive(status: int, body: bytes, has_body: bool) -> None:
    """Whatever the body holds."""
    answer = Answer(status, b"a: b\r\n", body if has_body else None)
    assert Answer.unpack(answer.pack()) == answer


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x01\x00",
        b"\x02" + Answer(200, b"", b"").pack()[1:],
        Answer(200, b"a: b\r\n", None).pack()[:-1],
        Answer(99, b"", b"").pack(),
        Answer(200, b"a: b\r\nc: d\ne: f\r\n", b"").pack(),
        Answer(200, b"a: \x00\r\n", b"").pack(),
        Answer(200, b"a: b", b"").pack(),
    ],
)
def test_what_no_gateway_has_written_is_refused(packed: bytes) -> None:
    """A store that others can write to must not be able to write a response head."""
    with pytest.raises(ValueError, match="answer"):
        Answer.unpack(packed)


def test_event_streams_are_known_by_their_type() -> None:
    """Parameters and case do not matter."""
    assert is_event_stream(FieldLines(b"content-type: Text/Event-Stream; charset=utf-8\r\n", -1))
    assert not is_event_stream(FIELDS)
