"""OpenID Connect Back-Channel Logout 1.0: the issuer says that a session, or all sessions of a user, have ended.

A logout token is used up by being obeyed: its own `jti` goes into the denylist as a token, so every gateway refuses a
replay. A user's tokens are denied up to the logout token's `iat`, not up to now, so that a delivery that was delayed
does not end a session begun since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gateway.config.schema import BackchannelLogout, Issuer
from gateway.denylist.contract import StoreError
from gateway.denylist.grammar import Entry, make_entry
from gateway.denylist.intake import Intake, Source, Word, denial_up_to
from gateway.errors import KeysUnavailable, TokenInvalid
from gateway.inlets.message import Message, Reply, read_form
from gateway.keys.jwks import accepted_algorithms
from gateway.keys.source import KeySource
from gateway.tokens.claims import identifier
from gateway.tokens.statement import StatementInvalid, StatementRules, verify_statement
from gateway.tokens.verifier import media_type

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True)
class Logout:
    """What a logout token says: the session, the user, or both."""

    token_id: str
    session_id: str | None
    subject: str | None
    issued_at: float
    expires_at: float


def read_logout(claims: dict[str, Any]) -> Logout:
    """The logout in the claims of a verified logout token; StatementInvalid if it is none (§2.4 and §2.6)."""
    try:
        token_id, session_id, subject = (identifier(claims, name) for name in ("jti", "sid", "sub"))
    except TokenInvalid as exc:
        raise StatementInvalid("request", exc.cause or "malformed") from None
    if token_id is None:
        raise StatementInvalid("request", "jti is missing")
    if session_id is None and subject is None:
        raise StatementInvalid("request", "neither sid nor sub is there")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise StatementInvalid("request", "events does not name the logout")
    if "nonce" in claims:
        # §2.4: "A nonce Claim MUST NOT be present", so that an ID token never passes for a logout token.
        raise StatementInvalid("request", "nonce is there")
    return Logout(token_id, session_id, subject, float(claims["iat"]), float(claims["exp"]))


class LogoutEndpoint:
    """`POST …/backchannel-logout` of one issuer."""

    source: Source = "backchannel_logout"

    def __init__(self, name: str, issuer: Issuer, settings: BackchannelLogout, keys: KeySource, intake: Intake) -> None:
        """`name` is the issuer's in the YAML."""
        self.name = f"{name}/backchannel-logout"
        self._issuer = name
        self._remember_s = issuer.revocation.remember
        self._ends_subject = settings.sid_and_sub == "subject"
        self._intake = intake
        self._rules = StatementRules(
            issuer=issuer.issuer,
            audience=frozenset(settings.audience),
            algorithms=accepted_algorithms(issuer.algorithms),
            token_type=None if settings.token_type == "any" else media_type(settings.token_type),  # noqa: S105 - a `typ`
            leeway_s=issuer.leeway,
            keys=keys,
            needs_end=True,
        )

    async def answer(self, message: Message) -> Reply:
        """200 once the store has it; 400 with the reason for what is no logout token (§2.8); 503 to come again."""
        try:
            raw = read_form(message).get("logout_token", "")
            claims = await verify_statement(raw.encode(), self._rules, message.now)
            logout = read_logout(claims)
            used = make_entry(
                "token",
                self._issuer,
                logout.token_id,
                now=message.now,
                ttl_s=max(logout.expires_at + self._rules.leeway_s - message.now, 1.0),
            )
            entry = self._entry(logout, message.now)
        except (StatementInvalid, ValueError) as exc:
            return _invalid(str(exc))
        except KeysUnavailable:
            return _later("the issuer's keys are not available")
        try:
            if await self._intake.value_of(used.key) is not None:
                return _invalid("jti was used before")
            # The mark comes last: a logout that was not stored may be sent again.
            await self._intake.put([entry, used], Word(self.source, f"issuer {self._issuer}", "back-channel logout"))
        except StoreError as fault:
            return _later(str(fault))
        return Reply(200, "accepted")

    def _entry(self, logout: Logout, now: float) -> Entry:
        """The denial: the session where there is one, else the user's tokens up to the logout."""
        ends_subject = logout.session_id is None or (self._ends_subject and logout.subject is not None)
        if not ends_subject:
            return make_entry("session", self._issuer, logout.session_id or "", now=now, ttl_s=self._remember_s)
        return denial_up_to("subject", self._issuer, logout.subject or "", logout.issued_at, self._remember_s)


def _invalid(text: str) -> Reply:
    return Reply(400, "refused", {"error": "invalid_request", "error_description": text})


def _later(text: str) -> Reply:
    # §2.8 has 400 for a logout that failed too; 503 says more: the same request works later.
    return Reply(503, "failed", {"error": "temporarily_unavailable", "error_description": text})
