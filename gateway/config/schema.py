"""The YAML contract as frozen models: every key, its type, its default and why that default.

Two halves. The *static* half (`server`, `admin`, `denylist`, `telemetry`) is read once; a change needs a restart. The *dynamic*
half (`issuers`, `identity`, `upstreams`, `routes`) is swapped while running. Models only say what a value may be on its own;
what needs two places of the file at once (references, ties) is checked by `gateway.config.load`. The JSON Schema for editors
is generated from these models, descriptions included.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretBytes, field_validator, model_validator

from gateway.config.quantities import Duration, Size

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A name that can stand in a Redis key, a metric label and a log line: letters, digits, `_ . -`; no colon."""

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYMMETRIC = ("HS256", "HS384", "HS512")
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "HS256", "HS384", "HS512"
]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_FRAMING = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade "
    "content-length host expect date server via forwarded x-forwarded-for x-forwarded-proto x-forwarded-host "
    "x-forwarded-port x-request-id traceparent content-type content-encoding authorization cookie set-cookie".split()
)


def field_name(name: str) -> str:
    """`name` in lower case if it is an RFC 9110 token that a proxy may set freely; ValueError otherwise."""
    lower = name.lower()
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a header name (RFC 9110 §5.6.2)")
    if "_" in name:
        raise ValueError(f"{name!r} holds an underscore, which many servers fold into a hyphen; use a hyphen")
    if lower in _FRAMING:
        raise ValueError(f"{name!r} is a hop-by-hop, framing or routing header and cannot carry identity")
    return lower


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080")
    return value


Listen = Annotated[str, AfterValidator(_listen)]
FieldName = Annotated[str, AfterValidator(field_name)]


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


# --- static half -----------------------------------------------------------------------------------------------------


class Limits(Model):
    """What a client may send; anything beyond is answered, logged and counted."""

    head_bytes: Size = Field(32 * 1024, description="Request line and header fields together; beyond: 431.", ge=1024)
    headers: int = Field(100, description="Header fields in one request; beyond: 431.", ge=1, le=10_000)
    head_timeout: Duration = Field(10.0, description="From the first byte (or the accept) to a complete head.", gt=0)
    body_timeout: Duration = Field(30.0, description="The longest silence while a request body is being sent.", gt=0)
    body_bytes: Size = Field(10 * 2**20, description="Request body; a route may say otherwise; beyond: 413.", ge=0)
    keep_alive: Duration = Field(75.0, description="How long an idle client connection is kept.", gt=0)
    connections: int = Field(20_000, description="Open client connections per worker; beyond: 503 and close.", ge=1)


class ServerTls(Model):
    """TLS towards clients."""

    certificate: Path = Field(description="PEM file with the certificate chain.")
    key: Path = Field(description="PEM file with the private key.")


class Server(Model):
    """The address clients connect to, and how it behaves under load and at the end."""

    listen: Listen = Field("127.0.0.1:8080", description="HOST:PORT for clients; loopback so that nothing is exposed unasked.")
    workers: int = Field(1, description="Processes; each is a whole gateway.", ge=1, le=256)
    trusted_proxies: tuple[str, ...] = Field((), description="CIDRs whose X-Forwarded-*, Forwarded, X-Request-Id and traceparent are believed.")
    tls: ServerTls | None = None
    limits: Limits = Limits()
    announce: Duration = Field(0.0, description="On SIGTERM: how long to be unready before the listener closes (Kubernetes: 5s).", ge=0)
    drain: Duration = Field(30.0, description="On SIGTERM: how long requests in flight may take; then streams are ended.", ge=0)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in value:
            ipaddress.ip_network(cidr)  # ValueError says what is wrong
        return value


class Admin(Model):
    """Health, metrics and the admin API, on an address of their own."""

    listen: Listen = Field("127.0.0.1:9901", description="HOST:PORT; never the clients' address.")


_STORE = re.compile(r"(redis|rediss|redis\+sentinel|rediss\+sentinel|redis\+cluster|rediss\+cluster|unix|sqlite)://.+")


class Denylist(Model):
    """Where revocations are kept, and what happens when they cannot be seen."""

    store: str = Field("redis://127.0.0.1:6379/0", description="redis:// rediss:// unix:// redis+sentinel:// redis+cluster:// or sqlite:///path")
    prefix: str = Field("gateway:deny:", description="In front of every key.", min_length=1, max_length=128)
    max_staleness: Duration = Field(30.0, description="After this long without contact the denylist counts as stale.", gt=0)
    when_stale: Literal["refuse", "allow"] = Field("refuse", description="refuse: 503 denylist_stale. A route may say otherwise.")
    snapshot: Path | None = Field(None, description="File that lets a gateway start while the store is down and still deny what it knew.")
    timeout: Duration = Field(0.25, description="Deadline of each command to the store.", gt=0, le=10)
    rescan: Duration = Field(5.0, description="How often to read everything again where CLIENT TRACKING is forbidden.", gt=0)
    ca: Path | None = Field(None, description="PEM file of the authority that signs the store's TLS certificate.")

    @field_validator("store")
    @classmethod
    def _scheme(cls, value: str) -> str:
        if _STORE.fullmatch(value) is None:
            raise ValueError("use redis:// rediss:// unix:// redis+sentinel:// redis+cluster:// or sqlite:///path")
        return value


class AccessLog(Model):
    """One JSON line per request."""

    destination: str = Field("stdout", description="stdout, stderr, off, or a file's path.")
    subject: Literal["digest", "plain", "none"] = Field("digest", description="How `sub` appears; digest: first 16 hex digits of a keyed hash.")


class Telemetry(Model):
    """What is written down about requests."""

    access_log: AccessLog = AccessLog()


# --- dynamic half ----------------------------------------------------------------------------------------------------


class Credentials(Model):
    """Where a token may stand besides `Authorization: Bearer`; always removed before forwarding."""

    cookie: str | None = Field(None, description="Name of a cookie that holds the token.")
    query: str | None = Field(None, description="Name of a query parameter that holds the token (RFC 6750 §2.3 advises against it).")

    @field_validator("cookie", "query")
    @classmethod
    def _token(cls, value: str | None) -> str | None:
        if value is not None and _TOKEN.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not a plain name")
        return value


class Issuer(Model):
    """One issuer of tokens: its exact name, its keys, and what its tokens must look like."""

    issuer: str = Field(description="The exact `iss`.", min_length=1)
    jwks_uri: str | None = Field(None, description="URL of the key set; left out: OpenID or RFC 8414 discovery below `issuer`.")
    jwks_file: Path | None = Field(None, description="File with a key set; read again when it changes.")
    secret: SecretBytes | None = Field(None, description="Shared secret for HS*; from ${NAME} or {file: path}; at least as long as the hash.")
    audience: tuple[str, ...] = Field(description="One of these must be in `aud`.", min_length=1)
    algorithms: tuple[Algorithm, ...] = Field(description="Accepted algorithms; HS* never beside the others.", min_length=1)
    token_type: str = Field("at+jwt", description="`typ` of the header (RFC 9068); `JWT`, another media type, or `any`.")
    leeway: Duration = Field(30.0, description="Tolerance for clocks that differ.", ge=0, le=300)
    max_age: Duration | None = Field(None, description="Refuse tokens whose `iat` is older than this.")
    refresh: Duration = Field(300.0, description="How often keys are fetched ahead; Cache-Control may say sooner or later.", ge=1)
    cooldown: Duration = Field(10.0, description="The shortest time between two fetches, whatever unknown key ids arrive.", ge=0)
    timeout: Duration = Field(5.0, description="Deadline of one fetch.", gt=0, le=60)
    ca: Path | None = Field(None, description="PEM file of the authority that signs the key server's certificate.")
    credentials: Credentials = Credentials()

    @model_validator(mode="after")
    def _one_source(self) -> Issuer:
        sources = [name for name in ("jwks_uri", "jwks_file", "secret") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"give one of jwks_uri, jwks_file, secret, not {' and '.join(sources)}")
        symmetric = [name for name in self.algorithms if name in SYMMETRIC]
        if symmetric and len(symmetric) < len(self.algorithms):
            raise ValueError("algorithms mixes HS* with asymmetric ones; an attacker could use a public key as the secret")
        if symmetric and self.secret is None:
            raise ValueError(f"algorithms {', '.join(symmetric)} need `secret`")
        if self.secret is not None:
            if not symmetric:
                raise ValueError("`secret` goes with HS* algorithms only")
            need = max(int(name[2:]) // 8 for name in symmetric)
            if len(self.secret.get_secret_value()) < need:
                raise ValueError(f"secret is shorter than {need} bytes, the length of the hash (RFC 7518 §3.2)")
        return self

    @field_validator("jwks_uri")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/]+.*", value):
            raise ValueError("write an http:// or https:// URL")
        return value


class IdentityHeader(Model):
    """Where a header's value comes from, and its form when it is a list or an object."""

    claim: str = Field(description="A claim's name; dots go deeper (`realm_access.roles`); a claim with dots in its name matches first.", min_length=1)
    format: Literal["comma", "json", "base64url"] = Field("comma", description="comma: list items joined; json: compact ASCII JSON; base64url: of the JSON.")


class Identity(Model):
    """The headers that tell the upstream who is calling; clients' own copies are always removed."""

    headers: dict[FieldName, IdentityHeader] = Field({}, description="Header name → claim.")
    strip: tuple[FieldName, ...] = Field((), description="Further headers that no client may send, in any spelling.")

    @field_validator("headers", mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: {"claim": spec} if isinstance(spec, str) else spec for name, spec in value.items()}
        return value


class UpstreamTimeouts(Model):
    """How long an upstream may take; beyond: 504."""

    connect: Duration = Field(2.0, description="TCP and TLS handshake.", gt=0)
    head: Duration = Field(30.0, description="From the request's last byte sent to the response head.", gt=0)
    idle: Duration = Field(60.0, description="The longest silence inside a body, either way.", gt=0)


class Pool(Model):
    """Connections to one endpoint, per worker."""

    size: int = Field(256, description="Open connections at the most.", ge=1)
    idle: Duration = Field(30.0, description="How long an unused connection is kept; below the upstream's own keep-alive.", ge=0)
    wait: Duration = Field(1.0, description="How long a request waits for a free connection; then 503 no_endpoint.", ge=0)


class UpstreamTls(Model):
    """TLS towards an upstream."""

    ca: Path | None = Field(None, description="PEM file of the authority; the system's when left out.")
    server_name: str | None = Field(None, description="Name to send and to verify; the endpoint's host when left out.")
    certificate: Path | None = Field(None, description="Client certificate (PEM).")
    key: Path | None = Field(None, description="Its private key (PEM).")
    insecure_skip_verify: bool = Field(False, description="Accept any certificate. Never in production.")


class Upstream(Model):
    """One backend: its endpoints and how to talk to them."""

    endpoints: tuple[str, ...] = Field(description="http://HOST:PORT or https://HOST:PORT, used in turn.", min_length=1)
    host: Literal["preserve", "endpoint"] = Field("preserve", description="Which Host the upstream sees: the client's, or the endpoint's.")
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    pool: Pool = Pool()
    tls: UpstreamTls = UpstreamTls()

    @field_validator("endpoints")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", url):
                raise ValueError(f"{url!r} is not an origin: write http://HOST:PORT, without a path")
        if len({url.partition(":")[0] for url in value}) > 1:
            raise ValueError("endpoints mixes http and https")
        return value


class Scopes(Model):
    """Scopes a token must carry."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()


class ClaimRule(Model):
    """What a claim must be; exactly one of the three."""

    equals: str | int | float | bool | None = None
    one_of: tuple[str | int | float | bool, ...] | None = None
    contains: str | int | float | bool | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ClaimRule:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of equals, one_of, contains")
        return self


class Auth(Model):
    """What a route asks of the caller."""

    mode: Literal["required", "optional", "none"] = Field("required", description="optional: may be absent, never may be wrong.")
    issuers: tuple[str, ...] | None = Field(None, description="Names of the issuers accepted here; all when left out.")
    audience: tuple[str, ...] | None = Field(None, description="Narrows the issuers' audience for this route.")
    scopes: Scopes = Scopes()
    claims: dict[str, ClaimRule] = Field({}, description="Claim path → rule; all must hold.")

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
    """What this route does when revocations cannot be seen."""

    when_stale: Literal["refuse", "allow"] | None = None


Ambiguity = Literal["dot_segments", "encoded_slash", "encoded_dot", "backslash", "empty_segments"]


class RouteTimeouts(Model):
    """Overrides of the upstream's times for one route."""

    head: Duration | None = Field(None, gt=0)
    idle: Duration | None = Field(None, gt=0)


class Route(Model):
    """Which requests go where, and what they need."""

    name: Name
    path: str = Field(description="Exact, /users/{id}, or /prefix/** (which also matches the bare prefix).", pattern=r"^/")
    host: str | None = Field(None, description="Exact, or *.suffix; any when left out.")
    methods: tuple[str, ...] | None = Field(None, description="Upper case; any when left out. GET includes HEAD.", min_length=1)
    upstream: str
    auth: Auth = Auth()
    credentials: Credentials | None = Field(None, description="Replaces the issuers' setting for this route.")
    forward_token: bool = Field(False, description="Whether the upstream gets the Authorization header; other places are always removed.")
    denylist: RouteDenylist = RouteDenylist()
    body_bytes: Size | None = Field(None, description="Replaces server.limits.body_bytes for this route.", ge=0)
    timeouts: RouteTimeouts = RouteTimeouts()
    allow_ambiguous: tuple[Ambiguity, ...] = Field((), description="Path forms that are otherwise refused with 400.")

    @field_validator("auth", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @field_validator("methods")
    @classmethod
    def _upper(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for method in value or ():
            if _TOKEN.fullmatch(method) is None or method != method.upper():
                raise ValueError(f"{method!r} is not a method: methods are upper-case tokens")
        return value


class Config(Model):
    """The whole file."""

    server: Server = Server()
    admin: Admin = Admin()
    denylist: Denylist | None = Field(None, description="Left out: nothing can be revoked, and start-up says so.")
    telemetry: Telemetry = Telemetry()
    issuers: dict[Name, Issuer] = {}
    identity: Identity = Identity()
    upstreams: dict[Name, Upstream] = {}
    routes: tuple[Route, ...] = Field(min_length=1)


STATIC_SECTIONS = ("server", "admin", "denylist", "telemetry")
DYNAMIC_SECTIONS = ("issuers", "identity", "upstreams", "routes")
