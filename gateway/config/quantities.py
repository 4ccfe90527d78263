"""Durations and sizes as people write them: `250ms`, `30s`, `10m`; `16KiB`, `10MiB`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")


def parse_duration(text: Any) -> float:
    """Seconds of a text such as `250ms`, `30s`, `10m`, `1h`, `7d`; a plain number is refused, `0s` is allowed."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("a duration is a number with a unit: ms, s, m, h or d, for example 250ms or 30s")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: Any) -> int:
    """Bytes of a text such as `512B`, `16KiB`, `10MiB`, `1GiB`; a plain number is refused."""
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("a size is a whole number with a unit: B, KiB, MiB or GiB, for example 16KiB")
    return int(match[1]) * _BYTES[match[2]]


def format_duration(seconds: float) -> str:
    """Text that `parse_duration` reads as `seconds`, to the millisecond; up to two minutes in seconds: `75s`."""
    if seconds and seconds < 1:
        return f"{round(seconds * 1000)}ms"
    for unit in ("d", "h", "m"):
        if seconds > 120 and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def format_size(count: int) -> str:
    """The shortest text that `parse_size` reads as `count` bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return f"{count}B"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "type": "string",
            "format": "duration-with-unit",
            "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$",
            "examples": ["250ms", "30s", "10m"],
        }
    ),
]
"""Seconds, written with a unit."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "type": "string",
            "format": "size-with-unit",
            "pattern": r"^[0-9]+(B|KiB|MiB|GiB)$",
            "examples": ["16KiB", "10MiB"],
        }
    ),
]
"""Bytes, written with a unit."""
