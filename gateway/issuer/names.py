"""User names and e-mail addresses as they are compared: one spelling for each, so that no two accounts look alike.

Width, case and composition make no difference (NFKC, case-folded). What cannot be seen is refused, and so is a user
name that mixes scripts whose letters look the same: "admin" with a Cyrillic first letter, say. Two names in one script
may still look alike in some fonts; to tell people apart, applications show more than a name.
"""

from __future__ import annotations

import re
import unicodedata

_USERNAME = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}")
# RFC 5321 §4.1.2 without quoted strings and address literals, and RFC 6531 beyond ASCII: nothing that a mail program
# could take for a second address, a comment or a line of its own.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LABEL = r"[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\u0080-\U0010ffff-]*[A-Za-z0-9\u0080-\U0010ffff])?"
_EMAIL = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@{_LABEL}(?:\.{_LABEL})*")
_LONGEST_LOCAL = 64
_LONGEST_EMAIL = 254  # RFC 5321 §4.5.3.1.3, less the brackets

_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
# Letters and marks that are drawn as nothing (Unicode's Default_Ignorable_Code_Point, beyond those categories).
_UNSEEN = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_ALIKE_SCRIPTS = frozenset({"ARMENIAN", "CHEROKEE", "CYRILLIC", "GREEK", "LATIN"})


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def _is_seen(text: str) -> bool:
    """Whether every character can be seen."""
    return _UNSEEN.search(text) is None and not any(unicodedata.category(char) in _UNSEEN_CATEGORIES for char in text)


def _mixes_scripts(text: str) -> bool:
    # Python knows no scripts, but a letter's name begins with its own.
    names = (unicodedata.name(char, "").partition(" ")[0] for char in text if char.isalpha())
    return len(_ALIKE_SCRIPTS.intersection(names)) > 1


def canonical_username(text: str) -> str:
    """The user name as compared; ValueError with a public reason."""
    name = _folded(text)
    if _USERNAME.fullmatch(name) is None or not _is_seen(name):
        raise ValueError("a user name has 1 to 64 characters, without spaces and without @")
    if _mixes_scripts(name):
        raise ValueError("a user name does not mix letters of Latin, Greek, Cyrillic, Armenian or Cherokee")
    return name


def canonical_email(text: str) -> str:
    """The e-mail address as compared; ValueError with a public reason.

    The part before the @ could differ by case alone (RFC 5321 §2.4), but no provider gives both to different people.
    """
    address = _folded(text)
    match = _EMAIL.fullmatch(address)
    if match is None or len(match["local"]) > _LONGEST_LOCAL or len(address) > _LONGEST_EMAIL or not _is_seen(address):
        raise ValueError("this is not an e-mail address")
    return address


def canonical_login(text: str) -> tuple[str, str]:
    """What somebody typed to log in, as (`username` or `email`, canonical name); ValueError with a public reason."""
    return ("email", canonical_email(text)) if "@" in text else ("username", canonical_username(text))
