"""The YAML contract as frozen models: every key, its type, its default and why that default.

Two halves. The *static* half (`server`, `admin`, `denylist`, `telemetry`, `issuer`) is read once; a change needs a
restart. The *dynamic* half (`issuers`, `identity`, `upstreams`, `routes`) is swapped while running. Models only say
what a value may be on its own; what needs two places of the file at once (references, ties) is checked by
`gateway.config.checks`. The JSON Schema for editors and the reference in the manual are generated from these models,
descriptions included.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal, get_args

from pydantic import Field, SecretBytes, ValidationInfo, field_validator, model_validator

from gateway.config.issuance import Issuance
from gateway.config.quantities import Duration, Size
from gateway.config.values import (
    FieldError,
    FieldName,
    FilePath,
    Listen,
    Method,
    Model,
    Name,
    Origin,
    Password,
    PlainName,
    PlainPath,
    Scope,
    Url,
    beside_the_file,
)

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYMMETRIC = ("HS256", "HS384", "HS512")
Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "HS256",
    "HS384",
    "HS512",
]

SecurityEvent = Literal[
    "session-revoked", "credential-change", "token-claims-change", "account-disabled", "account-purged"
]
SECURITY_EVENTS: tuple[SecurityEvent, ...] = get_args(SecurityEvent)
"""Of CAEP 1.0 the first three, of RISC 1.0 the others."""

SECRET_KEYS = frozenset({"secret", "store", "encryption_key"})
"""Keys whose value is never shown and may be written `{file: path}`; `store` because its URL may hold a password."""


# --- static half ---------------------------------------------------------------------------------------------------


class Limits(Model):
    """What a client may send; anything beyond is answered, logged and counted."""

    head_bytes: Size = Field(
        default=32 * 1024, description="Request line and header fields together; beyond: 431.", ge=1024
    )
    headers: int = Field(default=100, description="Header fields in one request; beyond: 431.", ge=1, le=10_000)
    head_timeout: Duration = Field(
        default=10.0, description="From the first byte (or the accept) to a complete head.", gt=0
    )
    body_timeout: Duration = Field(
        default=30.0, description="The longest silence while a request body is being sent.", gt=0
    )
    body_bytes: Size = Field(
        default=10 * 2**20,
        description="Request body; a route may say otherwise; beyond: 413 `content_too_large`.",
        ge=0,
    )
    keep_alive: Duration = Field(default=75.0, description="How long an idle client connection is kept.", gt=0)
    connections: int = Field(
        default=20_000, description="Open client connections per worker; beyond: 503 and close.", ge=1
    )


class ServerTls(Model):
    """TLS towards clients."""

    certificate: FilePath = Field(description="PEM file with the certificate chain.")
    key: FilePath = Field(description="PEM file with the private key.")


class Server(Model):
    """The address clients connect to, and how it behaves under load and at the end."""

    listen: Listen = Field(
        default="127.0.0.1:8080", description="`HOST:PORT` for clients; loopback, so that nothing is exposed unasked."
    )
    workers: int = Field(default=1, description="Processes; each is a whole gateway.", ge=1, le=256)
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="CIDRs of proxies: their `X-Forwarded-*`, `Forwarded`, `X-Request-Id` and `traceparent` count.",
    )
    tls: ServerTls | None = Field(default=None, description="Left out: plain HTTP, as behind a load balancer.")
    limits: Limits = Limits()
    announce: Duration = Field(
        default=0.0,
        description="On SIGTERM: how long to be unready before the listener closes (Kubernetes: 5s).",
        ge=0,
    )
    drain: Duration = Field(
        default=30.0, description="On SIGTERM: how long requests in flight may take; then streams end.", ge=0
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in value:
            ipaddress.ip_network(cidr)  # ValueError says what is wrong
        return value


class Admin(Model):
    """Health, metrics and the admin API, on an address of their own."""

    listen: Listen = Field(default="127.0.0.1:9901", description="`HOST:PORT`; never the clients' address.")
    secret: Password | None = Field(
        default=None,
        description="Bearer token for the denylist's API, 16 bytes or more: `${NAME}` or `{file: path}`. Left out: "
        "there is no such API, because entries name users.",
    )


_STORES = "redis:// rediss:// unix:// redis+sentinel:// redis+cluster:// or sqlite:///path"
_STORE = re.compile(r"(rediss?|rediss?\+sentinel|rediss?\+cluster|unix|sqlite)://\S+")


class Denylist(Model):
    """Where revocations are kept, and what happens when they cannot be seen."""

    store: str = Field(
        default="redis://127.0.0.1:6379/0",
        description=f"{_STORES}; `sqlite` is embedded, for the gateways of one machine.",
        repr=False,  # may hold a password
    )
    prefix: str = Field(default="gateway:deny:", description="In front of every key.", min_length=1, max_length=128)
    max_staleness: Duration = Field(
        default=30.0, description="After this long without contact the denylist counts as stale.", gt=0
    )
    when_stale: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="`refuse`: 503 `denylist_stale`; `allow`: what was last known decides. A route may differ.",
    )
    snapshot: FilePath | None = Field(
        default=None, description="File that lets a gateway start while the store is down and still deny what it knew."
    )
    timeout: Duration = Field(default=0.25, description="Deadline of each command to the store.", gt=0, le=10)
    rescan: Duration = Field(
        default=5.0, description="How often to read everything again where `CLIENT TRACKING` is forbidden.", gt=0
    )
    ca: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signs the store's certificate; the system's when left out.",
    )
    endpoints: PlainPath = Field(
        default="/.gateway",
        description="Path on the clients' address below which the endpoints of `issuers.….revocation` stand: "
        "`…/ISSUER/revoke`, `…/ISSUER/backchannel-logout`, `…/ISSUER/events`.",
    )

    @field_validator("store")
    @classmethod
    def _scheme(cls, value: str, info: ValidationInfo) -> str:
        if _STORE.fullmatch(value) is None:
            raise ValueError(f"use {_STORES}")
        path = value.removeprefix("sqlite://")
        if path != value:  # sqlite:///absolute/path, or sqlite://path beside the YAML file
            return f"sqlite://{beside_the_file(path, info.context)}"
        return value


class AccessLog(Model):
    """One JSON line per request."""

    destination: str = Field(default="stdout", description="`stdout`, `stderr`, `off`, or a file's path.", min_length=1)
    subject: Literal["digest", "plain", "none"] = Field(
        default="digest", description="How `sub` appears; `digest`: the first 16 hex digits of a keyed hash."
    )

    @field_validator("destination")
    @classmethod
    def _file(cls, value: str, info: ValidationInfo) -> str:
        return value if value in ("stdout", "stderr", "off") else str(beside_the_file(value, info.context))


class Telemetry(Model):
    """What is written down about requests."""

    access_log: AccessLog = AccessLog()


# --- dynamic half --------------------------------------------------------------------------------------------------


class Credentials(Model):
    """Where a token may stand besides `Authorization: Bearer`; always removed before forwarding."""

    cookie: PlainName | None = Field(default=None, description="Name of a cookie that holds the token.")
    query: PlainName | None = Field(
        default=None, description="Name of a query parameter that holds the token (RFC 6750 §2.3 advises against it)."
    )


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
    secret: Password | None = Field(
        default=None,
        description="Bearer token that the transmitter sends in `Authorization`, 16 bytes or more; left out: the "
        "signature alone says who speaks.",
    )
    events: tuple[SecurityEvent, ...] = Field(
        default=SECURITY_EVENTS, description="Events that are acted on; others are acknowledged and ignored."
    )


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


class Issuer(Model):
    """One issuer of tokens: its exact name, its keys, and what its tokens must look like."""

    issuer: str = Field(description="The exact `iss`.", min_length=1)
    audience: tuple[str, ...] = Field(description="One of these must be in `aud`.", min_length=1)
    algorithms: tuple[Algorithm, ...] = Field(
        description="Accepted algorithms; `HS*` never beside the others.", min_length=1
    )
    jwks_uri: Url | None = Field(
        default=None, description="URL of the key set; left out: OpenID or RFC 8414 discovery below `issuer`."
    )
    jwks_file: FilePath | None = Field(default=None, description="File with a key set; read again when it changes.")
    secret: SecretBytes | None = Field(
        default=None, description="Shared secret for `HS*`: `${NAME}` or `{file: path}`; at least as long as the hash."
    )
    token_type: str = Field(
        default="at+jwt",
        description="`typ` of the header (RFC 9068); `JWT`, another media type, or `any`.",
        min_length=1,
    )
    leeway: Duration = Field(default=30.0, description="Tolerance for clocks that differ.", ge=0, le=300)
    max_age: Duration | None = Field(default=None, description="Refuse tokens whose `iat` is older than this.", gt=0)
    refresh: Duration = Field(
        default=300.0, description="How often keys are fetched ahead; `Cache-Control` may say sooner or later.", ge=1
    )
    cooldown: Duration = Field(
        default=10.0, description="The shortest time between two fetches, whatever unknown key ids arrive.", ge=0
    )
    timeout: Duration = Field(default=5.0, description="Deadline of one fetch.", gt=0, le=60)
    ca: FilePath | None = Field(
        default=None, description="PEM file of the authority that signs the key server's certificate."
    )
    credentials: Credentials = Credentials()
    revocation: Revocation = Revocation()

    @field_validator("algorithms")
    @classmethod
    def _one_family(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if 0 < sum(name in SYMMETRIC for name in value) < len(value):
            raise ValueError("HS* beside asymmetric algorithms: an attacker could use a public key as the secret")
        return value

    @field_validator("jwks_file", "secret")
    @classmethod
    def _one_source(cls, value: Any, info: ValidationInfo) -> Any:
        given = [name for name in ("jwks_uri", "jwks_file") if info.data.get(name) is not None]
        if value is not None and given:
            raise ValueError(f"keys come from one place: {info.field_name} stands beside {given[0]}")
        return value

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretBytes | None, info: ValidationInfo) -> SecretBytes | None:
        algorithms = info.data.get("algorithms")
        if value is None or algorithms is None:
            return value
        need = max((int(name[2:]) // 8 for name in algorithms if name in SYMMETRIC), default=0)
        if not need:
            raise ValueError("a secret goes with HS* algorithms only")
        if len(value.get_secret_value()) < need:
            raise ValueError(f"the secret is shorter than {need} bytes, the length of the hash (RFC 7518 §3.2)")
        return value

    @model_validator(mode="after")
    def _keys_or_discovery(self) -> Issuer:
        if self.algorithms[0] in SYMMETRIC:
            if self.secret is None:
                raise FieldError("algorithms", f"{self.algorithms[0]} needs `secret`")
        elif self.jwks_uri is None and self.jwks_file is None and not re.match(r"https?://[^/\s]+", self.issuer):
            raise FieldError("issuer", "not a URL, so its keys cannot be discovered: give jwks_uri or jwks_file")
        return self


class IdentityHeader(Model):
    """Where a header's value comes from, and its form when it is a list or an object."""

    claim: str = Field(
        description="A claim's name; dots go deeper (`realm_access.roles`); a claim with dots in its name comes first.",
        min_length=1,
    )
    format: Literal["comma", "json", "base64url"] = Field(
        default="comma",
        description="`comma`: list items joined; `json`: compact ASCII JSON; `base64url`: of that JSON.",
    )


class Identity(Model):
    """The headers that tell the upstream who is calling; clients' own copies are always removed."""

    headers: dict[FieldName, IdentityHeader] = Field(default={}, description="Header name → claim.")
    strip: tuple[FieldName, ...] = Field(
        default=(), description="Further headers that no client may send, in any spelling."
    )

    @field_validator("headers", mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = [str(name).lower() for name in value]
        for name in value:
            if names.count(str(name).lower()) > 1:
                raise FieldError(name, f"{name!r} appears twice: header names have no case")
        return {name: {"claim": spec} if isinstance(spec, str) else spec for name, spec in value.items()}


class UpstreamTimeouts(Model):
    """How long an upstream may take; beyond: 504."""

    connect: Duration = Field(default=2.0, description="TCP and TLS handshake.", gt=0)
    head: Duration = Field(default=30.0, description="From the request's last byte sent to the response head.", gt=0)
    idle: Duration = Field(default=60.0, description="The longest silence inside a body, either way.", gt=0)


class Pool(Model):
    """Connections to one endpoint, per worker."""

    size: int = Field(default=256, description="Open connections at the most.", ge=1)
    idle: Duration = Field(
        default=30.0, description="How long an unused connection is kept; below the upstream's own keep-alive.", ge=0
    )
    wait: Duration = Field(
        default=1.0, description="How long a request waits for a free connection; then 503 `no_endpoint`.", ge=0
    )


class UpstreamTls(Model):
    """TLS towards an upstream."""

    ca: FilePath | None = Field(default=None, description="PEM file of the authority; the system's when left out.")
    server_name: str | None = Field(
        default=None, description="Name to send and to verify; the endpoint's host when left out.", min_length=1
    )
    certificate: FilePath | None = Field(default=None, description="Client certificate (PEM).")
    key: FilePath | None = Field(default=None, description="Its private key (PEM).")
    insecure_skip_verify: bool = Field(default=False, description="Accept any certificate. Never in production.")

    @model_validator(mode="after")
    def _both_halves(self) -> UpstreamTls:
        if (self.certificate is None) != (self.key is None):
            given = "certificate" if self.key is None else "key"
            raise FieldError(given, "certificate and key go together")
        return self


class Upstream(Model):
    """One backend: its endpoints and how to talk to them."""

    endpoints: tuple[Origin, ...] = Field(
        description="`http://HOST:PORT` or `https://HOST:PORT`, used in turn.", min_length=1
    )
    host: Literal["preserve", "endpoint"] = Field(
        default="preserve", description="Which `Host` the upstream sees: the client's, or the endpoint's."
    )
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    pool: Pool = Pool()
    tls: UpstreamTls = UpstreamTls()

    @field_validator("endpoints")
    @classmethod
    def _one_scheme(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({url.partition(":")[0] for url in value}) > 1:
            raise ValueError("http and https are mixed: an upstream is reached one way")
        return value


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

    @field_validator("auth", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value


class Config(Model):
    """The whole file."""

    server: Server = Server()
    admin: Admin = Admin()
    denylist: Denylist | None = Field(
        default=None, description="Left out: nothing can be revoked, and start-up says so."
    )
    telemetry: Telemetry = Telemetry()
    issuer: Issuance | None = Field(
        default=None, description="The built-in issuer; left out: tokens come from elsewhere only."
    )
    issuers: dict[Name, Issuer] = Field(
        default={}, description="Name → issuer; the name stands in the denylist's keys."
    )
    identity: Identity = Identity()
    upstreams: dict[Name, Upstream] = Field(default={}, description="Name → backend.")
    routes: tuple[Route, ...] = Field(
        description="The most specific one wins, whatever the order; two that tie are an error.", min_length=1
    )

    @model_validator(mode="after")
    def _trust_own(self) -> Config:
        if self.issuer is not None:
            self.issuers[self.issuer.name] = Issuer.model_validate(self.issuer.as_trusted())
        return self

    def with_static_half_of(self, other: Config) -> Config:
        """These dynamic sections beside the other's static ones."""
        issuers = {**self.issuers}
        if self.issuer is not None:
            del issuers[self.issuer.name]
        if other.issuer is not None:
            issuers[other.issuer.name] = other.issuers[other.issuer.name]
        return self.model_copy(update={"issuers": issuers, **{name: getattr(other, name) for name in STATIC_SECTIONS}})


STATIC_SECTIONS = ("server", "admin", "denylist", "telemetry", "issuer")
DYNAMIC_SECTIONS = ("issuers", "identity", "upstreams", "routes")
