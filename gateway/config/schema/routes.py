"""The `routes` section: which requests go where, and what they need."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gateway.config.quantities import Duration, Size
from gateway.config.schema.idempotency import RouteIdempotency
from gateway.config.schema.issuers import Credentials
from gateway.config.values import Method, Model, Name, Origin, Scope


class Scopes(Model):
    """Scopes a token must carry."""

    all: tuple[Scope, ...] = Field(default=(), description="Every one of these.")
    any: tuple[Scope, ...] = Field(default=(), description="At least one of these.")


Scalar = str | int | float | bool


class ClaimRule(Model):
    """What a claim must be; exactly one of the three."""

    equals: Scalar | None = Field(default=None, description="The claim is this value.")
    one_of: tuple[Scalar, ...] | None = Field(
        default=None, description="The claim is one of these values.", min_length=1
    )
    contains: Scalar | None = Field(default=None, description="The claim is a list with this item.")

    @model_validator(mode="after")
    def _exactly_one(self) -> ClaimRule:
        given = [name for name in ("equals", "one_of", "contains") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of equals, one_of, contains")
        return self


class Auth(Model):
    """What a route asks of the caller."""

    mode: Literal["required", "optional", "none"] = Field(
        default="required",
        description="`optional`: a token may be absent, never may be wrong; `none`: no token is looked at.",
    )
    issuers: tuple[str, ...] | None = Field(
        default=None, description="Names of the issuers accepted here; all when left out.", min_length=1
    )
    audience: tuple[str, ...] | None = Field(
        default=None, description="One of these must be in `aud` too: narrows the issuers' audience.", min_length=1
    )
    scopes: Scopes = Scopes()
    claims: dict[str, ClaimRule] = Field(default={}, description="Claim path → rule; all must hold.")

    @field_validator("scopes", mode="before")
    @classmethod
    def _list_means_all(cls, value: Any) -> Any:
        return {"all": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _none_asks_nothing(self) -> Auth:
        if self.mode == "none" and len(self.model_fields_set) > 1:
            raise ValueError("auth mode none checks no token, so nothing else may be asked beside it")
        return self


class RouteDenylist(Model):
    """How this route learns of revocations, and what it does when they cannot be seen."""

    consistency: Literal["replica", "strict"] = Field(
        default="replica",
        description="`strict`: each request asks the store too, for revocations of the last milliseconds; when it does "
        "not answer within `denylist.timeout`, `when_stale` decides.",
    )

    when_stale: Literal["refuse", "allow"] | None = Field(
        default=None, description="Replaces `denylist.when_stale` for this route."
    )


Ambiguity = Literal["dot_segments", "encoded_slash", "encoded_dot", "backslash", "empty_segments"]


class RouteTimeouts(Model):
    """Overrides of the upstream's times for one route."""

    head: Duration | None = Field(default=None, description="Replaces `timeouts.head` of the upstream.", gt=0)
    idle: Duration | None = Field(default=None, description="Replaces `timeouts.idle` of the upstream.", gt=0)


class RouteWebsocket(Model):
    """How WebSockets are carried; `false` refuses them."""

    enabled: bool = Field(default=True, description="`false`: a handshake gets 400 `bad_request`.")
    max_message: Size = Field(
        default=2**20, description="Longest message, either way; beyond: closed with 1009.", ge=1, le=2**30
    )
    idle: Duration = Field(
        default=3600.0,
        description="The longest time without a message, either way; then closed with 1001. Pings do not count.",
        gt=0,
    )
    origins: tuple[Origin, ...] | None = Field(
        default=None,
        description="Origins whose pages may connect, as browsers send them; left out: any, but only the same host "
        "where the token may come in a cookie.",
    )


class Route(Model):
    """Which requests go where, and what they need."""

    name: Name = Field(description="Stands in the log and in metrics.")
    path: str = Field(description="Exact, `/users/{id}`, or `/prefix/**` (which also matches the bare prefix).")
    host: str | None = Field(default=None, description="Exact, or `*.suffix`; any when left out.")
    methods: tuple[Method, ...] | None = Field(
        default=None, description="Upper case; any when left out. `GET` includes `HEAD`.", min_length=1
    )
    upstream: str = Field(description="Name of an upstream.")
    auth: Auth = Auth()
    credentials: Credentials | None = Field(default=None, description="Replaces the issuers' setting for this route.")
    forward_token: bool = Field(
        default=False,
        description="Whether the upstream gets the `Authorization` header; other places are always removed.",
    )
    denylist: RouteDenylist = RouteDenylist()
    body_bytes: Size | None = Field(
        default=None, description="Replaces `server.limits.body_bytes` for this route.", ge=0
    )
    timeouts: RouteTimeouts = RouteTimeouts()
    idempotency: RouteIdempotency = RouteIdempotency(mode="off")
    websocket: RouteWebsocket = RouteWebsocket()
    on_revoke: Literal["end", "finish"] = Field(
        default="end",
        description="What happens to live connections (WebSocket, event stream, long response) when their token "
        "expires or is revoked: `end` at once, or `finish`.",
    )
    allow_ambiguous: tuple[Ambiguity, ...] = Field(
        default=(),
        description="Forms of path that are otherwise refused with 400, because servers read them differently.",
    )

    @field_validator("websocket", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {"enabled": value} if isinstance(value, bool) else value

    @field_validator("idempotency", mode="before")
    @classmethod
    def _mode(cls, value: Any) -> Any:
        if isinstance(value, bool):
            value = "optional" if value else "off"
        return {"mode": value} if isinstance(value, str) else value

    @field_validator("auth", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value
