"""Where a word of our own fits into an event stream."""

import pytest

from gateway.upstream.events import EventStream

TYPE = (b"content-type", b"text/event-stream")


@pytest.mark.parametrize(
    ("headers", "is_events"),
    [
        ([TYPE], True),
        ([(b"content-type", b"Text/Event-Stream; charset=utf-8")], True),
        ([(b"content-type", b"text/plain")], False),
        ([(b"content-type", b"application/json"), (b"x", b"text/event-stream")], False),
        ([], False),
    ],
)
def test_the_media_type_says_what_it_is(headers: list[tuple[bytes, bytes]], is_events: bool) -> None:
    """Parameters and case do not matter; other types are no event streams."""
    assert (EventStream.of(headers) is not None) is is_events


@pytest.mark.parametrize(
    ("headers", "pieces", "fits"),
    [
        ([], [], True),  # nothing was sent yet
        ([], [b"data: a\n\n"], True),
        ([], [b"data: a\r\n\r\n"], True),
        ([], [b"data: a\r\r"], True),
        ([], [b"data: a\n", b"\n"], True),
        ([], [b"data: a\r", b"\n\r", b"\n"], True),
        ([], [b"data: a\n\n", b""], True),
        ([], [b": comment\n\n"], True),
        ([], [b"data: a\n"], False),  # the event may go on: ours would become a part of it
        ([], [b"data: a\n\ndata: b"], False),
        ([], [b"data: a\r\n"], False),
        ([], [b"d"], False),
        ([(b"content-encoding", b"gzip")], [b"\n\n"], False),
        ([(b"content-encoding", b"Identity")], [b"\n\n"], True),
        ([(b"content-length", b"100")], [b"\n\n"], False),
    ],
)
def test_an_event_fits_between_two_others_only(
    headers: list[tuple[bytes, bytes]], pieces: list[bytes], fits: bool
) -> None:
    """After an empty line, however it is spelled and split, in a body whose bytes mean what they say."""
    stream = EventStream.of([TYPE, *headers])
    assert stream is not None
    for piece in pieces:
        stream.pass_on(piece)
    assert stream.takes_another is fits
