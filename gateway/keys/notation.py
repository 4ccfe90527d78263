"""How JOSE writes octets and objects, read strictly: canonical base64url, and JSON without two meanings.

Two parsers that disagree about one token are a way around both, so everything that lenient parsers repair is refused
here: padding, non-zero spare bits, duplicate members, `NaN`, numbers beyond a double, lone surrogates, deep nesting.
All functions raise `ValueError` with a reason that holds nothing of the input.
"""

from __future__ import annotations

import binascii
import json
from binascii import a2b_base64
from collections.abc import Iterable
from json.scanner import make_scanner
from math import isfinite
from typing import Any, NoReturn

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MAX_DEPTH = 16  # objects and lists inside one another; real claims stay below 6

# RFC 4648 §3.5: the spare bits of the last character must be zero, else several texts decode to the same octets.
_LAST_OF_TWO = frozenset(b"AQgw")
_LAST_OF_THREE = frozenset(b"AEIMQUYcgkosw048")


def decode_base64url(text: bytes) -> bytes:
    """The octets of canonical, unpadded base64url (RFC 7515 §2); the empty text gives no octets."""
    # Refused before the characters that stand for them are put in their place.
    if b"+" in text or b"/" in text or b"=" in text:
        raise ValueError("a character outside the base64url alphabet")
    if b"-" in text:
        text = text.replace(b"-", b"+")
    if b"_" in text:
        text = text.replace(b"_", b"/")
    tail = len(text) & 3
    padding = b"==" if tail == 2 else b"=" if tail == 3 else b""
    try:
        octets = a2b_base64(text + padding, strict_mode=True)  # refuses every other character
    except binascii.Error:
        if text.translate(None, ALPHABET + b"+/"):
            raise ValueError("a character outside the base64url alphabet") from None
        raise ValueError("a base64url text of impossible length") from None
    if tail and text[-1] not in (_LAST_OF_TWO if tail == 2 else _LAST_OF_THREE):
        raise ValueError("a base64url text with spare bits set")
    return octets


def parse_object(octets: bytes) -> dict[str, Any]:
    """The JSON object (RFC 8259) in UTF-8 `octets`: members unique at every level, numbers finite, strings UTF-8."""
    try:
        text = octets.decode()
        if octets.startswith(b"{") and octets.endswith(b"}"):
            value, end = _SCAN(text, 0)
            if end != len(text):
                raise ValueError("not JSON")
        else:  # no object, or white space around it, which costs the decoder as much as reading an object
            value = _DECODER.decode(text)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
        members: dict[str, Any] = value
        _refuse_depth(members.values(), MAX_DEPTH - 1)
        if b"\\" in octets and b"\\u" in octets:  # a surrogate in UTF-8 needs an escape
            json.dumps(members, ensure_ascii=False).encode()
    except (json.JSONDecodeError, StopIteration):
        raise ValueError("not JSON") from None  # its message and `doc` would carry the input
    except UnicodeError:
        raise ValueError("text that is not UTF-8") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = {}
    for name, value in pairs:  # compiled, it takes half as long as `dict(pairs)`
        members[name] = value
    if len(members) != len(pairs):
        raise ValueError("a JSON object with a duplicate member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("a JSON number beyond the range of a double")
    return number


def _whole(text: str) -> int:
    if len(text) > 40:  # beyond any claim's meaning, and long conversions cost quadratic time
        raise ValueError("a JSON number with too many digits")
    return int(text)


def _constant(_: str) -> NoReturn:
    raise ValueError("NaN or Infinity, which JSON does not have")


def _refuse_depth(values: Iterable[Any], left: int) -> None:
    for value in values:
        if isinstance(value, (dict, list)):
            if not left:
                raise ValueError("JSON nested too deeply")
            _refuse_depth(value.values() if isinstance(value, dict) else value, left - 1)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_constant)
# What the decoder reads with; StopIteration where a value is missing.
_SCAN = make_scanner(_DECODER)  # type: ignore[arg-type]  # the type stubs ask for a scanner in place of a decoder
