"""Subject identifiers: by which of them tokens can be told."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.inlets.subjects import Affected, UnknownSubject, affected_by

OURS = frozenset({"https://i.example"})
ALICE = {"format": "iss_sub", "iss": "https://i.example", "sub": "alice"}
STRANGER = ALICE | {"iss": "https://other.example"}
PHONE = {"format": "opaque", "id": "phone"}
MAIL = {"format": "email", "email": "alice@example.org"}


@pytest.mark.parametrize(
    ("event", "subject", "affected"),
    [
        ("credential-change", ALICE, Affected(subject="alice")),
        ("session-revoked", ALICE, Affected(subject="alice")),
        ("credential-change", PHONE, Affected(subject="phone")),
        ("session-revoked", PHONE, Affected(session_id="phone", subject="phone")),
        ("session-revoked", {"format": "jwt_id", "iss": "https://i.example", "jti": "t"}, Affected(token_id="t")),
        ("session-revoked", {"format": "complex", "user": ALICE, "session": PHONE}, Affected(session_id="phone")),
        ("session-revoked", {"format": "complex", "user": ALICE, "device": PHONE}, Affected(subject="alice")),
        ("session-revoked", {"format": "complex", "user": MAIL, "session": PHONE}, Affected(session_id="phone")),
        ("session-revoked", {"user": ALICE, "session": PHONE}, Affected(session_id="phone")),
        ("account-disabled", {"format": "complex", "user": ALICE, "session": PHONE}, Affected(subject="alice")),
        # no user that could be told: the session is what is left
        ("account-disabled", {"format": "complex", "user": MAIL, "session": PHONE}, Affected(session_id="phone")),
        ("account-disabled", {"format": "aliases", "identifiers": [MAIL, ALICE]}, Affected(subject="alice")),
        ("account-disabled", {"format": "aliases", "identifiers": [STRANGER, PHONE]}, Affected(subject="phone")),
    ],
)
def test_whose_tokens_an_event_concerns(event: str, subject: Any, affected: Affected) -> None:
    """A revoked session is the narrowest that is named; everything else concerns the user."""
    assert affected_by(event, subject, OURS) == affected


@pytest.mark.parametrize(
    "subject",
    [
        None,
        "alice",
        [],
        {},
        {"format": ["iss_sub"]},
        {"format": "did", "url": "did:example:123456"},
        MAIL,
        {"format": "account", "uri": "acct:alice@example.org"},
        STRANGER,
        {"format": "iss_sub", "sub": "alice"},
        ALICE | {"sub": ""},
        ALICE | {"sub": 5},
        ALICE | {"sub": "a\nb"},
        {"format": "opaque"},
        {"format": "complex"},
        {"format": "complex", "user": MAIL},
        {"format": "complex", "session": "phone"},
        {"format": "complex", "session": {"format": "opaque", "id": ""}},
        {"format": "complex", "user": {"format": "complex", "session": PHONE}},
        {"format": "aliases"},
        {"format": "aliases", "identifiers": [MAIL, STRANGER]},
        {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [ALICE]}]},
        {"format": "jwt_id", "iss": "https://other.example", "jti": "t"},
    ],
)
def test_what_tells_no_token_is_said_to_be_unknown(subject: Any) -> None:
    """Better than acknowledging a revocation that nothing follows from."""
    with pytest.raises(UnknownSubject):
        affected_by("credential-change", subject, OURS)
