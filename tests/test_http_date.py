"""Moments as HTTP writes them."""

from __future__ import annotations

from gateway.http_date import http_date


def test_a_moment_is_written_as_the_rfc_shows_it() -> None:
    """RFC 9110 §5.6.7 has this very example; fractions of a second are cut off."""
    assert http_date(784111777.0) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(784111777.999) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(784111778.0) == b"Sun, 06 Nov 1994 08:49:38 GMT"
    assert http_date(784111777.5) == b"Sun, 06 Nov 1994 08:49:37 GMT"
