"""Whom a security event is about (RFC 9493 subject identifiers), as far as tokens can be told by it.

Tokens are told by `sub`, `sid` and `jti`. So `iss_sub`, `opaque`, `jwt_id`, `complex` and `aliases` can be followed; an
e-mail address, a phone number or an account URI cannot, and whoever sends one is told so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SESSION_REVOKED = "session-revoked"


class UnknownSubject(Exception):
    """Nobody whose tokens could be told; the text is public and quotes nothing."""


class ForeignSubject(UnknownSubject):
    """Somebody of another issuer, about whom this transmitter has no say."""


@dataclass(frozen=True, slots=True)
class Affected:
    """What the tokens of the subject carry; what is there denies, each by itself."""

    session_id: str | None = None
    subject: str | None = None
    token_id: str | None = None


def affected_by(event: str, subject: Any, issuers: frozenset[str]) -> Affected:
    """Whose tokens an event concerns; `issuers` are the `iss` values whose subjects are ours. Raises UnknownSubject.

    A revoked session is the narrowest that is named; every other event concerns the user, if one is named.
    """
    named = _read(subject, issuers, event)
    if event == _SESSION_REVOKED and named.session_id is not None:
        # An opaque id may be that of a session or of a user; denying both is the safe reading.
        both = named.subject if named.subject == named.session_id else None
        return Affected(session_id=named.session_id, subject=both)
    if named.subject is not None:
        return Affected(subject=named.subject)
    return named


def _read(subject: Any, issuers: frozenset[str], event: str) -> Affected:
    if not isinstance(subject, dict):
        raise UnknownSubject("the event has no subject identifier")
    form = subject.get("format", subject.get("subject_type"))  # `subject_type` in drafts that are still spoken
    if form is None and {"user", "session"} & set(subject):
        form = "complex"
    match form:
        case "iss_sub" | "iss-sub":
            _check_issuer(subject, issuers)
            return Affected(subject=_text(subject, "sub"))
        case "jwt_id" | "jwt-id":
            _check_issuer(subject, issuers)
            return Affected(token_id=_text(subject, "jti"))
        case "opaque":
            ident = _text(subject, "id")
            return Affected(session_id=ident if event == _SESSION_REVOKED else None, subject=ident)
        case "complex":
            return _read_complex(subject, issuers)
        case "aliases":
            return _read_aliases(subject, issuers, event)
    raise UnknownSubject("tokens cannot be told by a subject of this format")


def _read_complex(subject: Mapping[str, Any], issuers: frozenset[str]) -> Affected:
    """The session's id and the user's `sub`, each as far as it is named; members that narrow further are left out."""
    session = subject.get("session")
    session_id = None
    if isinstance(session, dict) and session.get("format") == "opaque":
        session_id = _text(session, "id")
    user = subject.get("user")
    sub = None
    if isinstance(user, dict) and user.get("format") != "complex":
        try:
            sub = _read(user, issuers, event="").subject
        except UnknownSubject:
            if session_id is None:
                raise
    if session_id is None and sub is None:
        raise UnknownSubject("neither user nor session can be told by this subject")
    return Affected(session_id, sub)


def _read_aliases(subject: Mapping[str, Any], issuers: frozenset[str], event: str) -> Affected:
    """The first identifier that tokens can be told by: all of them name the same subject."""
    identifiers = subject.get("identifiers")
    for identifier in identifiers if isinstance(identifiers, list) else ():
        # RFC 9493 §3.2.8: "MUST NOT be nested".
        if isinstance(identifier, dict) and identifier.get("format") != "aliases":
            try:
                return _read(identifier, issuers, event)
            except UnknownSubject:
                continue
    raise UnknownSubject("tokens cannot be told by any of the aliases")


def _check_issuer(subject: Mapping[str, Any], issuers: frozenset[str]) -> None:
    if subject.get("iss") not in issuers:
        raise ForeignSubject("the subject is another issuer's")


def _text(subject: Mapping[str, Any], name: str) -> str:
    value = subject.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UnknownSubject(f"the subject's {name} is not text")
    return value
