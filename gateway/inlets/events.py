"""Shared Signals: the issuer pushes security event tokens (RFC 8417) by HTTP (RFC 8935), in the words of CAEP and RISC.

    session-revoked                                     the session, or all of the user's up to the event
    credential-change, token-claims-change,             the user's tokens up to the event: whoever still may,
    account-disabled, account-purged                    gets new ones

Every event denies up to its own moment, so the same token sent again changes nothing, and is acknowledged again
(RFC 8935 §2: a recipient responds to a duplicate as if it had not been received). Acknowledged means stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from gateway.config.schema import Issuer, SharedSignals
from gateway.denylist.contract import StoreError
from gateway.denylist.grammar import Entry, make_entry
from gateway.denylist.intake import Intake, Source, Word, denial_up_to
from gateway.errors import KeysUnavailable, TokenInvalid
from gateway.inlets.message import Message, Reply, is_same_secret
from gateway.inlets.subjects import Affected, ForeignSubject, UnknownSubject, affected_by
from gateway.keys.jwks import accepted_algorithms
from gateway.keys.source import KeySource
from gateway.tokens.claims import identifier, moment
from gateway.tokens.statement import Fault, StatementInvalid, StatementRules, verify_statement

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
EVENTS: Final = {
    f"{_CAEP}session-revoked": "session-revoked",
    f"{_CAEP}credential-change": "credential-change",
    f"{_CAEP}token-claims-change": "token-claims-change",
    f"{_RISC}account-disabled": "account-disabled",
    f"{_RISC}account-purged": "account-purged",
    f"{_RISC}sessions-revoked": "session-revoked",  # what RISC called it before CAEP
}
"""Event type → its name in the configuration."""

_ERR: Final[dict[Fault, str]] = {
    "request": "invalid_request",
    "issuer": "invalid_issuer",
    "audience": "invalid_audience",
    "key": "invalid_key",
}
_ACCEPTED: Final = Reply(202, "accepted")
_IGNORED: Final = Reply(202, "ignored")


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event of a token: what happened, to whom, and when (epoch seconds)."""

    name: str
    subject: Any
    at: float


def read_events(claims: dict[str, Any], wanted: frozenset[str], latest: float) -> Iterator[SecurityEvent]:
    """The events of a verified security event token that are acted on; StatementInvalid if it is none.

    `latest` is the last moment that counts as past: an event of the future would deny logins to come.
    """
    try:
        token_id, toe, issued_at = identifier(claims, "jti"), moment(claims, "toe"), moment(claims, "iat")
    except TokenInvalid as exc:
        raise StatementInvalid("request", exc.cause or "malformed") from None
    events = claims.get("events")
    if token_id is None:
        raise StatementInvalid("request", "jti is missing")
    if not isinstance(events, dict) or not events or not all(isinstance(event, dict) for event in events.values()):
        raise StatementInvalid("request", "events is not an object of objects")
    for uri, payload in events.items():
        name = EVENTS.get(uri)
        if name is None or name not in wanted:
            continue
        try:
            at = moment(payload, "event_timestamp")
        except TokenInvalid as exc:
            raise StatementInvalid("request", exc.cause or "malformed") from None
        at = at or toe or issued_at or 0.0
        if at > latest:
            raise StatementInvalid("request", "the event lies in the future; its time is in seconds")
        yield SecurityEvent(name, claims.get("sub_id", payload.get("subject")), at)


class EventsEndpoint:
    """`POST …/events` of one issuer."""

    source: Source = "shared_signals"

    def __init__(self, name: str, issuer: Issuer, settings: SharedSignals, keys: KeySource, intake: Intake) -> None:
        """`name` is the issuer's in the YAML; `keys` are those that the transmitter signs with."""
        self.name = f"{name}/events"
        self._issuer = name
        self._remember_s = issuer.revocation.remember
        self._wanted = frozenset(settings.events)
        self._secret = settings.secret.get_secret_value() if settings.secret is not None else None
        self._intake = intake
        transmitter = settings.issuer or issuer.issuer
        self._issuers = frozenset({issuer.issuer, transmitter})
        self._rules = StatementRules(
            issuer=transmitter,
            audience=frozenset(settings.audience),
            algorithms=accepted_algorithms(settings.algorithms or issuer.algorithms),
            token_type="secevent+jwt",  # noqa: S106 - a `typ`
            leeway_s=issuer.leeway,
            keys=keys,
        )

    async def answer(self, message: Message) -> Reply:
        """202 once the store has it; 400 with a code of RFC 8935 §2.4; 503 to come again."""
        if self._secret is not None and not is_same_secret(b"Bearer " + self._secret, _credential(message)):
            return _refused("authentication_failed", "the transmitter is not known")
        if not message.is_of(b"application/secevent+jwt"):
            return _refused("invalid_request", "the body is not application/secevent+jwt")
        try:
            claims = await verify_statement(message.body.strip(), self._rules, message.now)
            latest = message.now + self._rules.leeway_s
            events = list(read_events(claims, self._wanted, latest))
            entries = [entry for event in events for entry in self._entries(event, message.now)]
        except StatementInvalid as exc:
            return _refused(_ERR[exc.fault], str(exc))
        except ForeignSubject as exc:
            return _refused("access_denied", str(exc))
        except (UnknownSubject, ValueError) as exc:
            return _refused("invalid_request", str(exc))
        except KeysUnavailable:
            return Reply(503, "failed")
        if not entries:
            return _IGNORED
        why = ", ".join(event.name for event in events)
        try:
            await self._intake.put(entries, Word(self.source, f"issuer {self._issuer}", why))
        except StoreError:
            return Reply(503, "failed")
        return _ACCEPTED

    def _entries(self, event: SecurityEvent, now: float) -> Iterator[Entry]:
        found: Affected = affected_by(event.name, event.subject, self._issuers)
        for kind, ident in (("session", found.session_id), ("token", found.token_id)):
            if ident is not None:
                yield make_entry(kind, self._issuer, ident, now=now, ttl_s=self._remember_s)
        if found.subject is not None:
            yield denial_up_to("subject", self._issuer, found.subject, event.at, self._remember_s)


def _credential(message: Message) -> bytes:
    scheme, space, token = (message.header(b"authorization") or b"").partition(b" ")
    return b"Bearer " + token if space and scheme.lower() == b"bearer" else b""


def _refused(err: str, text: str) -> Reply:
    return Reply(400, "refused", {"err": err, "description": text}, ((b"content-language", b"en"),))
