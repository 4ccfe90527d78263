"""Secrets at rest: sealed with AES-256-GCM if the operator gave a key, plain otherwise; the first byte tells which."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PLAIN, _SEALED = b"\x00", b"\x01"
_NONCE_BYTES = 12


class SealBroken(Exception):
    """A sealed secret cannot be opened: the encryption key is another one, or is missing. Text for the operator."""


class Sealer:
    """Seals and opens small secrets; each is bound to its name, so that none can be put in another's place."""

    def __init__(self, key: bytes | None) -> None:
        """`key` is the operator's, 32 random bytes or more in any form."""
        self._aead = None if key is None else AESGCM(HKDF(SHA256(), 32, None, b"gateway issuer store").derive(key))

    @property
    def has_key(self) -> bool:
        """Whether what it seals is encrypted."""
        return self._aead is not None

    @staticmethod
    def is_plain(stored: bytes) -> bool:
        """Whether a stored secret is not encrypted; one that has been erased is nothing at all."""
        return stored[:1] == _PLAIN

    def seal(self, name: str, secret: bytes) -> bytes:
        """What to store for the secret of this name."""
        if self._aead is None:
            return _PLAIN + secret
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _SEALED + nonce + self._aead.encrypt(nonce, secret, name.encode())

    def open(self, name: str, stored: bytes) -> bytes:
        """The secret. Plain ones are still read when a key was added later. Raises SealBroken."""
        if stored[:1] == _PLAIN:
            return stored[1:]
        if self._aead is None:
            raise SealBroken("the issuer's keys are encrypted, and `issuer.signing.encryption_key` is not given")
        nonce, sealed = stored[1 : 1 + _NONCE_BYTES], stored[1 + _NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, sealed, name.encode())
        except InvalidTag as exc:
            raise SealBroken(
                "`issuer.signing.encryption_key` is not the one that the issuer's keys were sealed with"
            ) from exc
