"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.quantities import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30.0), ("1.5s", 1.5), ("10m", 600.0), ("2h", 7200.0), ("7d", 604800.0), ("0s", 0.0)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    """Every unit is read as seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", 30, 30.0, "", "s", "-1s", "1 s", "1S", "1w", "1m30s", "1e3s", "٣s", None, True])
def test_anything_else_is_no_duration(text: object) -> None:
    """A plain number is refused: nobody could tell whether it means seconds or milliseconds."""
    with pytest.raises(ValueError, match="a duration is a number with a unit"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "count"), [("512B", 512), ("16KiB", 16384), ("10MiB", 10 * 2**20), ("1GiB", 2**30)])
def test_a_size_is_a_whole_number_with_a_binary_unit(text: str, count: int) -> None:
    """Every unit is read as bytes."""
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["10", 10, "10MB", "1.5MiB", "10 MiB", "10mib", "", "-1B", None])
def test_anything_else_is_no_size(text: object) -> None:
    """Decimal units are refused: they would be confused with the binary ones."""
    with pytest.raises(ValueError, match="a size is a whole number with a unit"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_what_is_shown_reads_as_the_same_duration(milliseconds: int) -> None:
    """Formatting and parsing are each other's inverse, to the millisecond."""
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.integers(min_value=0, max_value=10**12 - 1))
def test_what_is_shown_reads_as_the_same_size(count: int) -> None:
    """Formatting and parsing are each other's inverse."""
    assert parse_size(format_size(count)) == count
