"""What a scalar without quotes means, and which ones could mean two things."""

from __future__ import annotations

import re

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_TRAPS = (
    (re.compile(r"(?i:y|yes|on)"), "write true, or put it in quotes if text is meant: YAML 1.1 reads it as true"),
    (re.compile(r"(?i:n|no|off)"), "write false, or put it in quotes if text is meant: YAML 1.1 reads it as false"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        "put it in quotes, or write a duration with its unit: YAML 1.1 reads it as a number to base 60",
    ),
    (re.compile(r"[-+]?0[0-9_]+"), "drop the leading zero, or put it in quotes: YAML 1.1 reads it as octal"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write a decimal number, or put it in quotes"),
    (re.compile(r"[-+]?[0-9]+_[0-9_]*(?:\.[0-9_]*)?"), "leave out the underscores, or put it in quotes"),
    (re.compile(r"[-+]?\.(?i:inf|nan)"), "write a finite number, or put it in quotes"),
)
_TRAP_STARTS = frozenset("0123456789+-.yYnNoO")  # what any of them begins with: most scalars need no closer look


def trap(text: str) -> str | None:
    """The remedy, if YAML 1.1 and 1.2 read `text` differently."""
    if text[:1] not in _TRAP_STARTS:
        return None
    return next((remedy for pattern, remedy in _TRAPS if pattern.fullmatch(text)), None)


def plain_value(text: str) -> str | int | float | bool | None:
    """The value of a scalar that is no trap."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
