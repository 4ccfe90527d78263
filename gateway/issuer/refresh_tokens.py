"""Refresh tokens: their form, and what a presented one means. Rules only, no I/O.

A token names its session and its place in the session's chain, holds 256 secret bits, and ends with a tag that only we
can make. So a token of ours is recognised however old it is, while the store keeps two hashes per session: of the one
live token and of the one before it. To clients it is opaque.

    login ──▶ R1 ──▶ R2 ──▶ R3 …        R3 is live: current
                      └ R2 is one step behind: its owner may never have got R3

    presented   current    a step behind, soon      a step behind, later             anything older
    answer      the next   the current one again    another one in current's place   the session ends

The current one can be given again without being kept: it is derived from its predecessor and a salt. Later than the
grace period it is replaced rather than repeated, so that of two who hold the same old token the second one to come back
with what it got is noticed. At no time are two tokens live.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import secrets
from dataclasses import dataclass

_PREFIX = "gwr_"  # lets secret scanners know it
_ID_BYTES, _SEQUENCE_BYTES, _SECRET_BYTES, _TAG_BYTES = 16, 4, 32, 16
_BODY_BYTES = _ID_BYTES + _SEQUENCE_BYTES + _SECRET_BYTES
SALT_BYTES = 16
_LENGTH = len(_PREFIX) + (_BODY_BYTES + _TAG_BYTES) * 4 // 3 + 1


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One token that we have made."""

    session_id: str  # 32 hex digits
    sequence: int
    secret: bytes

    def __repr__(self) -> str:
        return f"<RefreshToken {self.sequence} of session {self.session_id}>"

    @property
    def body(self) -> bytes:
        """What the tag protects."""
        return bytes.fromhex(self.session_id) + self.sequence.to_bytes(_SEQUENCE_BYTES, "big") + self.secret

    @property
    def hash(self) -> bytes:
        """What is kept; plain SHA-256 is enough for 256 random bits."""
        return hashlib.sha256(self.body).digest()


class Mint:
    """Makes and recognises refresh tokens with the key that all gateways of one store share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def first(self, session_id: str) -> RefreshToken:
        """The token of a new session."""
        return RefreshToken(session_id, 1, secrets.token_bytes(_SECRET_BYTES))

    def successor(self, token: RefreshToken, salt: bytes) -> RefreshToken:
        """The token after `token`; the same for the same salt."""
        secret = hmac.digest(self._key, b"successor" + salt + token.body, "sha256")
        return RefreshToken(token.session_id, token.sequence + 1, secret)

    def write(self, token: RefreshToken) -> str:
        """The text for the client."""
        octets = token.body + self._tag(token.body)
        return _PREFIX + base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

    def read(self, text: str) -> RefreshToken | None:
        """The token that this text is; None if we did not make it."""
        if len(text) != _LENGTH or not text.startswith(_PREFIX) or not text.isascii():
            return None
        try:
            octets = base64.b64decode(text[len(_PREFIX) :] + "=", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, tag = octets[:_BODY_BYTES], octets[_BODY_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            return None
        sequence = int.from_bytes(body[_ID_BYTES : _ID_BYTES + _SEQUENCE_BYTES], "big")
        return RefreshToken(body[:_ID_BYTES].hex(), sequence, body[_ID_BYTES + _SEQUENCE_BYTES :])

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, b"refresh" + body, "sha256")[:_TAG_BYTES]


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a session's chain stands. Moments are epoch seconds."""

    sequence: int
    current_hash: bytes
    previous_hash: bytes | None
    rotated_at: float
    expires_at: float  # the sooner of idle and absolute
    ended_at: float | None


class Verdict(enum.Enum):
    """What a presented token leads to."""

    ROTATE = "the next one"
    REPEAT = "the current one again"
    REPLACE = "another one in the current one's place"
    REUSED = "the session ends"
    EXPIRED = "the session is too old"
    ENDED = "the session has ended before"

    @property
    def is_served(self) -> bool:
        """Whether the client gets tokens."""
        return self in (Verdict.ROTATE, Verdict.REPEAT, Verdict.REPLACE)


def judge(token: RefreshToken, chain: Chain, now: float, grace_s: float) -> Verdict:
    """The verdict about a token of this chain's session."""
    if chain.ended_at is not None:
        return Verdict.ENDED
    if now >= chain.expires_at:
        return Verdict.EXPIRED
    if token.sequence == chain.sequence and hmac.compare_digest(token.hash, chain.current_hash):
        return Verdict.ROTATE
    is_previous = token.sequence == chain.sequence - 1 and chain.previous_hash is not None
    if is_previous and hmac.compare_digest(token.hash, chain.previous_hash or b""):
        return Verdict.REPEAT if now - chain.rotated_at <= grace_s else Verdict.REPLACE
    return Verdict.REUSED
