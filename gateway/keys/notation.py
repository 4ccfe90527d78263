"""How JOSE writes octets and objects, read strictly: canonical base64url, and JSON without two meanings.

Two parsers that disagree about one token are a way around both, so everything that lenient parsers repair is refused
here: padding, non-zero spare bits, duplicate members, `NaN`, numbers beyond a double, lone surrogates, deep nesting.
All functions raise `ValueError` with a reason that holds nothing of the input.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from math import isfinite
from typing import Any, NoReturn

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MAX_DEPTH = 16  # objects and lists inside one another; real claims stay below 6

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
# RFC 4648 §3.5: the spare bits of the last character must be zero, else several texts decode to the same octets.
_LAST_OF_TWO = frozenset(b"AQgw")
_LAST_OF_THREE = frozenset(b"AEIMQUYcgkosw048")


def decode_base64url(text: bytes) -> bytes:
    """The octets of canonical, unpadded base64url (RFC 7515 §2); the empty text gives no octets."""
    if text.translate(None, ALPHABET):
        raise ValueError("a character outside the base64url alphabet")
    return decode_alphabet(text)


def decode_alphabet(text: bytes) -> bytes:
    """As `decode_base64url`, for a text already known to hold nothing but the alphabet."""
    tail = len(text) & 3
    if tail:
        if tail == 1:
            raise ValueError("a base64url text of impossible length")
        if text[-1] not in (_LAST_OF_TWO if tail == 2 else _LAST_OF_THREE):
            raise ValueError("a base64url text with spare bits set")
    return a2b_base64(text.translate(_TO_STANDARD) + b"==")


def parse_object(octets: bytes) -> dict[str, Any]:
    """The JSON object (RFC 8259) in UTF-8 `octets`: members unique at every level, numbers finite, strings UTF-8."""
    try:
        value = _DECODER.decode(octets.decode())
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        # The shortcuts hold because depth needs brackets, and a surrogate in UTF-8 needs an escape.
        if octets.count(b"{") + octets.count(b"[") > MAX_DEPTH:
            _refuse_depth(value, MAX_DEPTH)
        if b"\\u" in octets:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise ValueError("not JSON") from None  # its message and `doc` would carry the input
    except UnicodeError:
        raise ValueError("text that is not UTF-8") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
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


def _refuse_depth(value: Any, left: int) -> None:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    if not left:
        raise ValueError("JSON nested too deeply")
    for inner in value:
        _refuse_depth(inner, left - 1)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_constant)
