"""`issuers.….revocation`: the standard ways in which an issuer's tokens may be revoked."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from gateway.config.quantities import Duration
from gateway.config.schema.algorithms import Asymmetric
from gateway.config.values import FieldError, Model, Origin, Password, Url

SecurityEvent = Literal[
    "session-revoked", "credential-change", "token-claims-change", "account-disabled", "account-purged"
]
SECURITY_EVENTS: tuple[SecurityEvent, ...] = get_args(SecurityEvent)
"""Of CAEP 1.0 the first three, of RISC 1.0 the others."""


class RevocationClient(Model):
    """One client of the revocation endpoint."""

    secret: Password = Field(description="Its password, 16 bytes or more: `${NAME}` or `{file: path}`.")
    tokens: Literal["own", "any"] = Field(
        default="own", description="`own`: those whose `client_id` or `azp` it is (RFC 7009 §2.1); `any`: all."
    )


class BackchannelLogout(Model):
    """`POST …/ISSUER/backchannel-logout` (OpenID Connect Back-Channel Logout 1.0): the issuer ends a session."""

    audience: tuple[str, ...] = Field(
        description="Client ids under which the issuer knows the apps; one must be in the logout token's `aud`.",
        min_length=1,
    )
    token_type: str = Field(
        default="logout+jwt", description="`typ` of logout tokens; `any` for issuers that do not set it.", min_length=1
    )
    sid_and_sub: Literal["session", "subject"] = Field(
        default="session",
        description="What a logout token with both ends; `subject` where access tokens carry no `sid`.",
    )


class SharedSignals(Model):
    """`POST …/ISSUER/events` (RFC 8935): the issuer pushes security events (CAEP, RISC)."""

    audience: tuple[str, ...] = Field(description="One of these must be in the event token's `aud`.", min_length=1)
    issuer: str | None = Field(
        default=None, description="The exact `iss` of event tokens, where it is not that of access tokens."
    )
    jwks_uri: Url | None = Field(
        default=None, description="URL of the transmitter's key set, where its keys are not those of access tokens."
    )
    discovery: bool = Field(
        default=False,
        description="`true`: the key set is the one that the transmitter's `/.well-known/ssf-configuration` names.",
    )
    algorithms: tuple[Asymmetric, ...] | None = Field(
        default=None,
        description="Accepted algorithms of a transmitter with keys of its own; left out: those of access tokens.",
        min_length=1,
    )
    secret: Password | None = Field(
        default=None,
        description="Bearer token that the transmitter sends in `Authorization`, 16 bytes or more; left out: the "
        "signature alone says who speaks.",
    )
    events: tuple[SecurityEvent, ...] = Field(
        default=SECURITY_EVENTS, description="Events that are acted on; others are acknowledged and ignored."
    )

    @property
    def has_own_keys(self) -> bool:
        """Whether the transmitter signs with keys of its own."""
        return self.discovery or self.jwks_uri is not None

    @model_validator(mode="after")
    def _one_source(self) -> SharedSignals:
        if self.discovery and self.jwks_uri is not None:
            raise FieldError("discovery", "keys come from one place: discovery stands beside jwks_uri")
        if self.algorithms is not None and not self.has_own_keys:
            raise FieldError("algorithms", "goes with keys of its own: give jwks_uri, or discovery")
        return self


class StatusList(Model):
    """Token Status List (IETF draft): a token's `status` is looked up in a list that the issuer publishes."""

    origins: tuple[Origin, ...] = Field(
        default=(), description="Where lists may be fetched from; left out: from the origin of `issuer` only."
    )
    refresh: Duration = Field(
        default=300.0, description="How long a list is used that says neither `ttl` nor `exp`.", ge=1
    )
    when_unknown: Literal["refuse", "allow"] = Field(
        default="refuse", description="No usable list: `refuse`: 503 `status_unavailable`; `allow`: as if it was valid."
    )


class Revocation(Model):
    """Which standard ways of revocation this issuer's tokens accept; none unless named."""

    remember: Duration = Field(
        default=86_400.0,
        description="How long ended sessions and users stay in the denylist: at least as long as tokens live.",
        gt=0,
        le=1e8,
    )
    clients: dict[str, RevocationClient] = Field(
        default={},
        description="Client id → password and rights: who may `POST …/ISSUER/revoke` (RFC 7009) an access token, so "
        "that it is denied from then on.",
    )
    backchannel_logout: BackchannelLogout | None = Field(default=None, description="OpenID Back-Channel Logout 1.0.")
    shared_signals: SharedSignals | None = Field(default=None, description="Shared Signals: CAEP and RISC by push.")
    status_list: StatusList | None = Field(default=None, description="Token Status List; `true` for the defaults.")

    @field_validator("status_list", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @property
    def has_endpoints(self) -> bool:
        """Whether anything of it comes in by HTTP."""
        return any((self.clients, self.backchannel_logout, self.shared_signals))
