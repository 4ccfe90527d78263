"""Token Status List (draft-ietf-oauth-status-list): what a token says of its status, and the list where that stands.

A token refers to a list by address and to its place in it by number. The list is a compressed array of 1, 2, 4 or 8
bits per token, signed by the issuer. Rules only; `gateway.tokens.status_cache` fetches and keeps the lists.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import TokenInvalid
from gateway.keys.notation import decode_base64url

VALID: Final = 0
"""The one status that lets a token pass: INVALID (1), SUSPENDED (2) and those of applications do not."""

STATUSES: Final = {VALID: "VALID", 1: "INVALID", 2: "SUSPENDED"}
"""The draft's names (§7.1)."""

MAX_LIST_OCTETS = 8 * 2**20  # 64 million tokens at one bit each; a compressed one of 8 KiB could claim as much
_LARGEST_INDEX = 2**40
_LONGEST_ADDRESS = 2048


@dataclass(frozen=True, slots=True)
class StatusReference:
    """Where a token's status stands (draft §6.2)."""

    uri: str
    index: int


@dataclass(frozen=True, slots=True)
class StatusList:
    """The statuses of many tokens."""

    bits: int  # per token: 1, 2, 4 or 8
    octets: bytes = field(repr=False)

    def at(self, index: int) -> int:
        """The status of one token, `VALID` or another; IndexError beyond the end."""
        position = index * self.bits
        # Draft §4.1: "the bits within the byte are counted from the least significant bit".
        return self.octets[position >> 3] >> (position & 7) & (1 << self.bits) - 1

    def is_valid(self, index: int) -> bool:
        """Whether a token passes; not beyond the end."""
        try:
            return self.at(index) == VALID
        except IndexError:
            return False


def reference_of(claims: Mapping[str, Any]) -> StatusReference | None:
    """What a token's `status` refers to, None if it has no status list; TokenInvalid if it is malformed."""
    status = claims.get("status")
    if status is None:
        return None
    if not isinstance(status, dict):
        raise TokenInvalid(cause="status is not an object")
    reference = status.get("status_list")
    if reference is None:
        return None  # another mechanism, which is not asked for here
    if not isinstance(reference, dict):
        raise TokenInvalid(cause="status_list is not an object")
    index, uri = reference.get("idx"), reference.get("uri")
    if type(index) is not int or not 0 <= index < _LARGEST_INDEX:
        raise TokenInvalid(cause="status_list.idx is not a non-negative integer")
    if type(uri) is not str or not 0 < len(uri) <= _LONGEST_ADDRESS or not uri.isprintable():
        raise TokenInvalid(cause="status_list.uri is not an address")
    return StatusReference(uri, index)


def read_status_list(claims: Mapping[str, Any], uri: str) -> StatusList:
    """The list of a verified Status List Token fetched from `uri`; ValueError with a public reason (draft §8.3)."""
    if claims.get("sub") != uri:
        raise ValueError("its sub is another address")
    status_list = claims.get("status_list")
    if not isinstance(status_list, dict):
        raise ValueError("it has no status_list")
    bits, text = status_list.get("bits"), status_list.get("lst")
    if type(bits) is not int or bits not in (1, 2, 4, 8):
        raise ValueError("its bits are not 1, 2, 4 or 8")
    if type(text) is not str or not text.isascii():
        raise ValueError("its lst is not base64url")
    return StatusList(bits, _inflate(decode_base64url(text.encode())))


def lifetime_s(claims: Mapping[str, Any], now: float) -> float | None:
    """How long the list may be used: `ttl`, but not beyond `exp`; None if it says neither. ValueError for a bad ttl."""
    limits = []
    ttl, expires_at = claims.get("ttl"), claims.get("exp")
    if ttl is not None:
        if (type(ttl) is not int and type(ttl) is not float) or ttl <= 0:
            raise ValueError("its ttl is not a positive number")
        limits.append(float(ttl))
    if expires_at is not None:
        limits.append(max(float(expires_at) - now, 0.0))
    return min(limits, default=None)


def _inflate(octets: bytes) -> bytes:
    """What was compressed with zlib (RFC 1950); at most `MAX_LIST_OCTETS`, so that a small list cannot fill memory."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(octets, MAX_LIST_OCTETS)
    except zlib.error:
        raise ValueError("its lst is not a zlib stream") from None
    if stream.unconsumed_tail:
        raise ValueError(f"its lst is larger than {MAX_LIST_OCTETS // 2**20} MiB")
    if not stream.eof or stream.unused_data:
        raise ValueError("its lst is cut short, or followed by something else")
    return found
