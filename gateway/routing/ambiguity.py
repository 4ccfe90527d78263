"""What a raw path may mean to others.

Servers disagree on paths: one decodes `%2f` before it splits, one merges `//`, one resolves `..`, one cuts `;…` off a
segment, one takes `\\` for `/`. A gateway that checks one reading while the upstream serves another guards the wrong
door. So a path falls into one of three classes:

    plain       every server reads it alike: matched at once, the case of nearly all requests
    ambiguous   of one or more kinds that a route may allow (`Ambiguity`): refused unless allowed
    refused     raw controls, spaces or non-ASCII, a `%` that begins no encoding, an encoded control, bytes that are not
                UTF-8, an encoded unreserved character (RFC 3986 §2.3: "should not be created", and `/%61dmin` would
                dodge a route)

A structural character that is encoded twice (`%252f`) counts like one encoded once, since two hops may decode in turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.config.schema import Ambiguity
from gateway.errors import BadRequest

Segments = tuple[bytes, ...]
"""What stands between the slashes, percent-decoded; the first is empty, and the last too if a slash ends the path."""

_LONGEST = 64  # segments of an ambiguous path; its readings are all compared, so their number and length are bounded
_PRINTABLE = bytes(range(0x21, 0x7F))
_PERCENT: Final = 0x25
_MARKED = bytes(c if c in _PRINTABLE and c not in b"#;?\\" else _PERCENT for c in range(256)).replace(b".", b"/")
_NEVER_RAW = re.compile(rb"[?#]")
# Begins with the literal `%`, which the regex engine finds fast. `(?:25)*` sees through repeated encoding.
_NEVER_ENCODED = re.compile(
    rb"%(?:(?P<malformed>(?![0-9A-Fa-f]{2}))"
    rb"|(?P<control>(?:25)*(?:[01][0-9A-Fa-f]|7[Ff]))"
    rb"|(?P<unreserved>2[Dd]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee]))"
)
_REASONS = {
    "malformed": "The path holds a percent sign that does not begin a percent-encoding.",
    "control": "The path holds an encoded control character.",
    "unreserved": "The path holds a percent-encoded character that needs no encoding.",
}
_SLASH = re.compile(rb"%(?:25)*2[Ff]")
_DOT = re.compile(rb"%(?:25)*2[Ee]")
_BACKSLASH = re.compile(rb"%(?:25)*5[Cc]")
_SEMICOLON = re.compile(rb"%(?:25)*3[Bb]")
_STRUCTURAL = re.compile(rb"%(?:25)*(?:2[EeFf]|5[Cc]|3[Bb])")
_CERTAIN: frozenset[Ambiguity] = frozenset()

PHRASES: dict[Ambiguity, str] = {
    "dot_segments": "dot segments",
    "encoded_slash": "an encoded slash",
    "encoded_dot": "an encoded dot",
    "backslash": "a backslash",
    "empty_segments": "empty segments",
}
"""Each kind in words, for messages."""


def is_plain(raw_path: bytes) -> bool:
    """Whether every server reads a raw path alike without further thought.

    Segments that begin with a dot, empty ones but for the last, parameters (`;`) and anything percent-encoded are left
    to the closer look of `kinds_of`.
    """
    marked = raw_path.translate(_MARKED)
    if _PERCENT in marked or not raw_path.startswith(b"/"):
        return False
    # One search for most paths: where dots count as slashes, only names like `a..b` and `a.` need two more. By
    # `partition`, because `in` and `find` cost several times as much to be called.
    return not marked.partition(b"//")[1] or not (raw_path.partition(b"//")[1] or raw_path.partition(b"/.")[1])


def kinds_of(raw_path: bytes) -> frozenset[Ambiguity]:
    """The kinds of ambiguity in a raw path, none if its segments are certain; BadRequest if it is never acceptable."""
    _refuse_unreadable(raw_path)
    if _is_certain(raw_path):
        return _CERTAIN
    kinds: set[Ambiguity] = set()
    if _SLASH.search(raw_path):
        kinds.add("encoded_slash")
    if _DOT.search(raw_path):
        kinds.add("encoded_dot")
    if b"\\" in raw_path or _BACKSLASH.search(raw_path):
        kinds.add("backslash")
    # `/..;x=y/` and `/;x/` are a dot segment and an empty one to servers that cut parameters off.
    deepest = _without_parameters(tuple(_unfold(raw_path).replace(b"\\", b"/").split(b"/")))
    if b"." in deepest or b".." in deepest:
        kinds.add("dot_segments")
    if b"" in deepest[1:-1]:
        kinds.add("empty_segments")
    if kinds and len(deepest) - 1 > _LONGEST:
        raise BadRequest(f"The path is ambiguous and has more than {_LONGEST} segments.")
    return frozenset(kinds)


def split(raw_path: bytes) -> Segments:
    """The gateway's own reading: split at the slashes that are there, then decode (RFC 3986 §2.4: in this order)."""
    return _decoded(tuple(raw_path.split(b"/")))


def has_parameters(raw_path: bytes) -> bool:
    """Whether some servers would cut `;…` off a segment."""
    return b";" in raw_path or _SEMICOLON.search(raw_path) is not None


def readings(raw_path: bytes) -> set[Segments]:
    """Every way in which a server may read the path, our own among them.

    A server has each of the habits or not: decoding before splitting, once or until nothing is left to decode,
    backslash as slash, cutting parameters off, merging slashes, resolving dots, applied in this order. So the set
    doubles with each that changes anything.
    """
    spellings = {raw_path}
    for pattern, character in ((_SLASH, b"/"), (_DOT, b"."), (_BACKSLASH, b"\\\\"), (_SEMICOLON, b";")):
        plain = b"\\" if pattern is _BACKSLASH else character
        once = {_once(pattern, plain, spelling) for spelling in spellings}
        spellings |= once | {pattern.sub(character, spelling) for spelling in spellings}
    spellings |= {spelling.replace(b"\\", b"/") for spelling in spellings}
    paths: set[Segments] = {tuple(spelling.split(b"/")) for spelling in spellings}
    habits: Iterable[Callable[[Segments], Segments]] = (_without_parameters, _merged, _resolved)
    for habit in habits:
        paths |= {habit(path) for path in paths}
    return {_decoded(path) for path in paths}


def _once(pattern: re.Pattern[bytes], character: bytes, spelling: bytes) -> bytes:
    """What one decoding makes of it: of `%2f` the character, of `%252f` a text that still is encoded."""
    return pattern.sub(lambda found: character if len(found[0]) == 3 else found[0], spelling)


def _refuse_unreadable(raw_path: bytes) -> None:
    if not raw_path.startswith(b"/"):
        raise BadRequest("The request target is not a path.")
    if raw_path.translate(None, _PRINTABLE):
        raise BadRequest("The path holds a character that must be percent-encoded.")
    if _NEVER_RAW.search(raw_path):
        raise BadRequest("The path holds a query or fragment delimiter.")
    found = _NEVER_ENCODED.search(raw_path)
    if found is not None:
        raise BadRequest(_REASONS[found.lastgroup or ""])
    if b"%" in raw_path:
        try:
            unquote_to_bytes(raw_path).decode()
        except UnicodeDecodeError:
            # Overlong forms such as %c0%af, which lenient decoders take for a slash, end here too.
            raise BadRequest("The path is not percent-encoded UTF-8.") from None


def _is_certain(raw_path: bytes) -> bool:
    """Whether no structure is in doubt: so it is with spaces and letters outside ASCII, the usual reason to look."""
    raw = b"//" in raw_path or b"/." in raw_path or b";" in raw_path or b"\\" in raw_path
    return not raw and _STRUCTURAL.search(raw_path) is None


def _unfold(raw_path: bytes) -> bytes:
    if b"%" not in raw_path:
        return raw_path
    raw_path = _SEMICOLON.sub(b";", _DOT.sub(b".", _SLASH.sub(b"/", raw_path)))
    return _BACKSLASH.sub(b"/", raw_path)


def _decoded(segments: Segments) -> Segments:
    return tuple(unquote_to_bytes(segment) if b"%" in segment else segment for segment in segments)


def _without_parameters(segments: Segments) -> Segments:
    return tuple(segment.partition(b";")[0] for segment in segments)


def _merged(segments: Segments) -> Segments:
    return (b"", *(segment for segment in segments[1:-1] if segment), segments[-1])


def _resolved(segments: Segments) -> Segments:
    """RFC 3986 §5.2.4."""
    kept: list[bytes] = []
    for segment in segments[1:]:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b"..") or not kept:
        kept.append(b"")
    return (b"", *kept)
