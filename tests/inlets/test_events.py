"""Pushed security events: what each means for tokens, and RFC 8935's answer to each mistake."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.schema import SECURITY_EVENTS
from gateway.inlets.events import EVENTS
from tests.inlets.stand import EVENT_TOKEN, Stand, access_token, statement
from tests.tokens.mint import ISSUER, NOW, KeysAtHand, NoKeys, header, key_set, signed

pytestmark = pytest.mark.asyncio

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
ALICE = {"format": "iss_sub", "iss": ISSUER, "sub": "alice"}
PHONE = {"format": "opaque", "id": "phone"}
HAPPENED = int(NOW) - 40
BY_USER = {"subject:main:alice": str(HAPPENED).encode()}
BY_SESSION = {"session:main:phone": f"{NOW:.3f}".encode()}


def event_token(
    uri: str = f"{CAEP}session-revoked",
    event: Any = None,
    *,
    typ: str = "secevent+jwt",
    kid: str = "p256",
    **changes: Any,
) -> bytes:
    """A security event token about alice; claims given as `...` are left out."""
    ordinary = {
        "iss": ISSUER,
        "aud": "https://gateway.example",
        "iat": int(NOW) - 5,
        "jti": "event-1",
        "sub_id": ALICE,
        "events": {uri: {"event_timestamp": HAPPENED} if event is None else event},
    }
    return statement(typ, kid, **(ordinary | changes))


@pytest.mark.parametrize(
    ("token", "entries"),
    [
        # each event, about a user
        (event_token(f"{CAEP}session-revoked"), BY_USER),
        (event_token(f"{CAEP}credential-change"), BY_USER),
        (event_token(f"{CAEP}token-claims-change"), BY_USER),
        (event_token(f"{RISC}account-disabled"), BY_USER),
        (event_token(f"{RISC}account-purged"), BY_USER),
        (event_token(f"{RISC}sessions-revoked"), BY_USER),
        # about a session
        (event_token(sub_id={"format": "complex", "user": ALICE, "session": PHONE}), BY_SESSION),
        (event_token(sub_id={"format": "complex", "session": PHONE}), BY_SESSION),
        (
            event_token(f"{CAEP}credential-change", sub_id={"format": "complex", "user": ALICE, "session": PHONE}),
            BY_USER,
        ),
        # an opaque id may be either, so both are denied
        (event_token(sub_id=PHONE), BY_SESSION | {"subject:main:phone": str(HAPPENED).encode()}),
        (event_token(f"{RISC}account-purged", sub_id=PHONE), {"subject:main:phone": str(HAPPENED).encode()}),
        # about a token
        (
            event_token(f"{CAEP}token-claims-change", sub_id={"format": "jwt_id", "iss": ISSUER, "jti": "t"}),
            {"token:main:t": f"{NOW:.3f}".encode()},
        ),
        # when it happened: the event's own time, else `toe`, else `iat`
        (event_token(event={}, toe=int(NOW) - 20), {"subject:main:alice": b"%d" % (NOW - 20)}),
        (event_token(event={}), {"subject:main:alice": b"%d" % (NOW - 5)}),
        # drafts that are still spoken: the subject inside the event
        (event_token(event={"subject": ALICE, "event_timestamp": HAPPENED}, sub_id=...), BY_USER),
        (
            event_token(
                event={
                    "subject": {"subject_type": "iss-sub", "iss": ISSUER, "sub": "alice"},
                    "event_timestamp": HAPPENED,
                },
                sub_id=...,
            ),
            BY_USER,
        ),
        (event_token(event={"subject": {"user": ALICE, "session": PHONE}}, sub_id=...), BY_SESSION),
        # several events at once
        (
            event_token(events={f"{CAEP}credential-change": {"event_timestamp": HAPPENED}, "https://x.example/e": {}}),
            BY_USER,
        ),
    ],
)
async def test_what_an_event_denies(token: bytes, entries: dict[str, bytes]) -> None:
    """It is in the store, for as long as tokens live, before it is acknowledged with an empty 202."""
    stand = Stand()
    answer = await stand.push(token)
    assert (answer.status, answer.body) == (202, b"")
    assert stand.store.values == entries
    assert set(stand.store.lives.values()) == {3600.0}
    assert stand.received() == {("shared_signals", "accepted"): 1}


@pytest.mark.parametrize(
    ("token", "settings"),
    [
        (event_token("https://schemas.openid.net/secevent/ssf/event-type/verification", {"state": "x"}), {}),
        (event_token(f"{CAEP}device-compliance-change"), {}),
        (event_token(f"{RISC}account-enabled"), {}),
        (event_token(f"{CAEP}credential-change"), {"events": ["session-revoked"]}),
        # not even its subject need be understood
        (event_token(f"{RISC}identifier-changed", sub_id={"format": "email", "email": "a@example.org"}), {}),
    ],
)
async def test_other_events_are_acknowledged_and_change_nothing(token: bytes, settings: dict[str, Any]) -> None:
    """The transmitter need not send them again."""
    stand = Stand(shared_signals={"audience": ["https://gateway.example"], **settings})
    assert (await stand.push(token)).status == 202
    assert stand.store.values == {}
    assert stand.received() == {("shared_signals", "ignored"): 1}


@pytest.mark.parametrize(
    ("token", "err"),
    [
        (b"", "invalid_request"),
        (b"a.b.c", "invalid_request"),
        (access_token().encode(), "invalid_request"),
        (event_token(typ="JWT"), "invalid_request"),
        (event_token(typ="logout+jwt"), "invalid_request"),
        (event_token(iss="https://other.example"), "invalid_issuer"),
        (event_token(iss=...), "invalid_issuer"),
        (event_token(aud="https://other.example"), "invalid_audience"),
        (event_token(kid="p256-other"), "invalid_key"),
        (signed(header(typ="secevent+jwt", alg="none"), {}), "invalid_key"),
        (
            signed(header(typ="secevent+jwt"), {"iss": ISSUER, "aud": "https://gateway.example", "iat": 1}, "p256-x"),
            "invalid_key",
        ),
        (event_token(iat=...), "invalid_request"),
        (event_token(iat=NOW + 60), "invalid_request"),
        (event_token(exp=NOW - 60), "invalid_request"),
        (event_token(jti=...), "invalid_request"),
        (event_token(events=...), "invalid_request"),
        (event_token(events={}), "invalid_request"),
        (event_token(events=[f"{CAEP}session-revoked"]), "invalid_request"),
        (event_token(event="now"), "invalid_request"),
        # milliseconds, and moments to come: they would deny the user's next login
        (event_token(event={"event_timestamp": HAPPENED * 1000}), "invalid_request"),
        (event_token(event={"event_timestamp": NOW + 60}), "invalid_request"),
        (event_token(event={"event_timestamp": "yesterday"}), "invalid_request"),
        (event_token(toe=True), "invalid_request"),
        # subjects by which no token can be told
        (event_token(sub_id=...), "invalid_request"),
        (event_token(sub_id="alice"), "invalid_request"),
        (event_token(sub_id={"format": "email", "email": "a@example.org"}), "invalid_request"),
        (event_token(sub_id=ALICE | {"iss": "https://other.example"}), "access_denied"),
        (event_token(sub_id=ALICE | {"sub": "x" * 5000}), "invalid_request"),
        # one of two cannot be followed: neither is
        (
            event_token(
                events={
                    f"{CAEP}session-revoked": {"subject": ALICE},
                    f"{RISC}account-purged": {"subject": {"format": "email"}},
                },
                sub_id=...,
            ),
            "invalid_request",
        ),
    ],
)
async def test_each_mistake_has_rfc_8935s_name(token: bytes, err: str) -> None:
    """400 with `err` and `description` in English; nothing is denied."""
    stand = Stand()
    answer = await stand.push(token)
    assert (answer.status, answer.document["err"]) == (400, err)
    assert answer.document["description"]
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"content-language") == b"en"
    assert stand.store.values == {}
    assert stand.received() == {("shared_signals", "refused"): 1}


@pytest.mark.parametrize("media_type", [b"application/jwt", b"application/json", b""])
async def test_the_body_is_an_event_token(media_type: bytes) -> None:
    """And says so."""
    stand = Stand()
    answer = await stand.push(event_token(), (b"content-type", media_type))
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_transmitter_may_have_to_say_a_password() -> None:
    """`secret`: before anything is read; RFC 8935's word for it is authentication_failed."""
    stand = Stand(shared_signals={"audience": ["https://gateway.example"], "secret": "a long password!!"})
    for value in (b"", b"Bearer", b"Bearer wrong", b"Basic a long password!!", b"a long password!!"):
        answer = await stand.push(event_token(), EVENT_TOKEN, (b"authorization", value))
        assert (answer.status, answer.code) == (400, "authentication_failed")
    assert (await stand.push(event_token())).code == "authentication_failed"
    assert stand.store.values == {}
    assert (await stand.push(event_token(), EVENT_TOKEN, (b"authorization", b"bearer a long password!!"))).status == 202


async def test_a_transmitter_may_have_a_name_of_its_own() -> None:
    """`issuer`: the `iss` of event tokens, where it is spelled otherwise; subjects of both names are ours."""
    stand = Stand(shared_signals={"audience": ["https://gateway.example"], "issuer": f"{ISSUER}/"})
    assert (await stand.push(event_token())).code == "invalid_issuer"
    for subject in (ALICE, ALICE | {"iss": f"{ISSUER}/"}):
        assert (await stand.push(event_token(iss=f"{ISSUER}/", sub_id=subject))).status == 202


async def test_a_transmitter_may_have_keys_of_its_own() -> None:
    """Its keys and algorithms count for its events, those of access tokens do not."""
    signals = {
        "audience": ["https://gateway.example"],
        "issuer": "https://signals.example",
        "jwks_uri": "https://signals.example/jwks",
        "algorithms": ["EdDSA"],
    }
    stand = Stand(transmitter=KeysAtHand(key_set("ed")), shared_signals=signals)
    claims = {"iss": "https://signals.example", "aud": "https://gateway.example", "iat": int(NOW) - 5, "jti": "1"}
    claims |= {"sub_id": ALICE, "events": {f"{CAEP}session-revoked": {"event_timestamp": HAPPENED}}}
    genuine = signed(header(alg="EdDSA", kid="ed", typ="secevent+jwt"), claims, "ed")
    assert (await stand.push(genuine)).status == 202
    assert stand.store.values == BY_USER
    by_issuer = signed(header(typ="secevent+jwt"), claims)
    assert (await stand.push(by_issuer)).code == "invalid_key"


async def test_a_repeated_event_is_acknowledged_and_moves_nothing() -> None:
    """A login between the two stays good."""
    stand = Stand()
    for _ in range(2):
        assert (await stand.push(event_token())).status == 202
        assert stand.store.values == BY_USER


async def test_an_older_event_does_not_shorten_a_denial() -> None:
    """Events may overtake each other; what is denied stays denied, also what an operator denied for ever."""
    stand = Stand()
    stand.store.values["subject:main:alice"] = str(HAPPENED + 10).encode()
    assert (await stand.push(event_token())).status == 202
    assert stand.store.values["subject:main:alice"] == str(HAPPENED + 10).encode()
    for value in (b"all", b"%d" % (NOW + 1000)):
        stand.store.values["subject:main:alice"] = value
        stand.store.lives.clear()
        assert (await stand.push(event_token())).status == 202
        assert (stand.store.values["subject:main:alice"], stand.store.lives) == (value, {})


async def test_unacknowledged_until_stored() -> None:
    """503 while the store or the keys are away, so that the transmitter sends it again."""

    broken = Stand()
    broken.store.broken = True
    for stand in (broken, Stand(keys=NoKeys())):
        answer = await stand.push(event_token())
        assert (answer.status, answer.body) == (503, b"")
        assert answer.header(b"retry-after")
        assert stand.received() == {("shared_signals", "failed"): 1}


async def test_the_configuration_can_name_every_event() -> None:
    """The names of the settings are those of the table."""
    assert set(SECURITY_EVENTS) == set(EVENTS.values())
