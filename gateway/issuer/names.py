"""User names and e-mail addresses as they are compared: one spelling for each, so that no two accounts look alike."""

from __future__ import annotations

import re
import unicodedata

_USERNAME = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}")
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f.]+(?:\.[^\s@\x00-\x1f\x7f.]+)*")
_LONGEST_EMAIL = 254  # RFC 5321 §4.5.3.1.3, less the brackets


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def canonical_username(text: str) -> str:
    """The user name as compared (NFKC, case-folded); ValueError with a public reason."""
    name = _folded(text)
    if _USERNAME.fullmatch(name) is None or any(unicodedata.category(char) in ("Cc", "Cf", "Co") for char in name):
        raise ValueError("a user name has 1 to 64 characters, without spaces and without @")
    return name


def canonical_email(text: str) -> str:
    """The e-mail address as compared; ValueError with a public reason.

    The part before the @ could differ by case alone (RFC 5321 §2.4), but no provider gives both to different people.
    """
    address = _folded(text)
    if len(address) > _LONGEST_EMAIL or _EMAIL.fullmatch(address) is None:
        raise ValueError("this is not an e-mail address")
    return address


def canonical_login(text: str) -> tuple[str, str]:
    """What somebody typed to log in, as (`username` or `email`, canonical name); ValueError with a public reason."""
    return ("email", canonical_email(text)) if "@" in text else ("username", canonical_username(text))
