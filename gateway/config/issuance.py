"""The `issuer` section: what the built-in issuer issues, to whom, for how long, and where it keeps it."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretBytes, ValidationInfo, field_validator, model_validator

from gateway.config.quantities import Duration, Size
from gateway.config.values import FieldError, Model, Name, Origin, Password, PlainPath, Scope, Url, beside_the_file

Platform = Literal["web", "mobile", "desktop", "other"]
Grant = Literal["authorization_code", "refresh_token", "client_credentials"]

_DAY_S = 86_400.0
_STORE = re.compile(r"(sqlite|postgresql\+asyncpg)://\S+")
_HASH = re.compile(r"[0-9a-f]{64}")
ACCESS_COOKIE, REFRESH_COOKIE = "__Host-gateway-access", "__Host-gateway-refresh"
_LOOPBACK = ("127.0.0.1", "::1")
RESERVED_CLAIMS = frozenset(
    {"iss", "aud", "exp", "iat", "nbf", "jti", "sid", "sub", "client_id", "scope", "auth_time", "azp", "cnf", "act"}
)
"""Claims that the issuer itself decides about."""


class AbsoluteLifetimes(Model):
    """How long a session lasts after the log-in, whatever happens."""

    web: Duration = Field(default=30 * _DAY_S, description="Sessions of browsers.", gt=0)
    mobile: Duration = Field(default=365 * _DAY_S, description="Sessions of phones and tablets.", gt=0)
    desktop: Duration = Field(default=365 * _DAY_S, description="Sessions of desktop apps.", gt=0)
    other: Duration = Field(default=30 * _DAY_S, description="Everything else.", gt=0)


class IdleLifetimes(Model):
    """How long a session lasts without a refresh."""

    web: Duration = Field(default=7 * _DAY_S, description="Sessions of browsers.", gt=0)
    mobile: Duration = Field(default=90 * _DAY_S, description="Sessions of phones, which may be offline long.", gt=0)
    desktop: Duration = Field(default=90 * _DAY_S, description="Sessions of desktop apps.", gt=0)
    other: Duration = Field(default=7 * _DAY_S, description="Everything else.", gt=0)


class RefreshTokens(Model):
    """How long a client may go on without its user's password."""

    absolute: AbsoluteLifetimes = AbsoluteLifetimes()
    idle: IdleLifetimes = IdleLifetimes()
    grace: Duration = Field(
        default=60.0,
        description="How long a repeated refresh gets the same successor: the answer may have been lost.",
        ge=0,
        le=3600,
    )


class Passwords(Model):
    """Argon2id (RFC 9106) and how many at once; a changed cost applies at each user's next log-in."""

    time_cost: int = Field(default=3, description="Passes over the memory.", ge=1, le=100)
    memory: Size = Field(default=64 * 2**20, description="Memory of one hash.", ge=8 * 1024, le=2**32)
    parallelism: int = Field(default=1, description="Lanes of one hash; each is a thread.", ge=1, le=64)
    threads: int = Field(default=2, description="Hashes at the same time, per worker.", ge=1, le=64)
    waiting: int = Field(default=16, description="Log-ins waiting for a thread; beyond: 503 `overloaded`.", ge=0)


class Throttle(Model):
    """Back-off of those who guess: 1, 2, 4 … seconds after each failure beyond the free ones."""

    account: int = Field(default=5, description="Failures in a row that one account name has free.", ge=1)
    address: int = Field(default=50, description="Failures that one address (IPv6: one /64) has free.", ge=1)
    longest: Duration = Field(default=900.0, description="The longest back-off.", gt=0)
    forget: Duration = Field(default=3600.0, description="Failures are forgotten after this long without one.", gt=0)


class Signing(Model):
    """The keys that sign access tokens: made, published, used and retired by themselves."""

    algorithm: Literal["ES256", "EdDSA", "RS256"] = Field(
        default="ES256", description="Of keys made from now on; older keys keep theirs."
    )
    rotate: Duration = Field(default=30 * _DAY_S, description="How long a key signs.", gt=0)
    announce: Duration = Field(
        default=3600.0,
        description="How long a key is published before it signs: longer than gateways and apps keep the key set.",
        ge=0,
    )
    encryption_key: SecretBytes | None = Field(
        default=None,
        description="Encrypts private keys at rest, 32 bytes or more: `${NAME}` or `{file: path}`. The same on every "
        "gateway; left out: whoever reads the store can sign.",
    )

    @field_validator("encryption_key")
    @classmethod
    def _long(cls, value: SecretBytes | None) -> SecretBytes | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("shorter than 32 bytes: it could be guessed")
        return value

    @model_validator(mode="after")
    def _announced_in_time(self) -> Signing:
        if self.announce >= self.rotate:
            raise FieldError("announce", "not shorter than `rotate`: the next key would be made before its turn")
        return self


class Webhook(Model):
    """Where one-time tokens go, so that your service can send the message."""

    url: Url = Field(description="Gets `POST` with JSON: `event`, `to`, `token`, `expires_at`.")
    secret: Password | None = Field(
        default=None, description="Signs each call: `X-Gateway-Signature: t=…,v1=<HMAC-SHA256 of t.body>`."
    )
    timeout: Duration = Field(default=5.0, description="Deadline of one call; failed calls are repeated.", gt=0, le=60)


class Web(Model):
    """Browsers that keep their tokens in cookies, where no script can read them."""

    same_site: Literal["strict", "lax"] = Field(
        default="lax", description="`lax`: a link from another site finds the user signed in; `strict`: it does not."
    )
    origins: tuple[Origin, ...] = Field(
        default=(), description="Further origins whose pages may write with the cookies, besides that of `url`."
    )


class OAuthClient(Model):
    """One OAuth client: an app with a log-in page, or a service."""

    name: str | None = Field(default=None, description="Shown on the log-in page; the client id if left out.")
    secret: Password | None = Field(default=None, description="For confidential clients: `${NAME}` or `{file: path}`.")
    secret_sha256: str | None = Field(
        default=None, description="Instead of `secret`: the lower-case hex SHA-256 of a random one."
    )
    grants: tuple[Grant, ...] = Field(
        default=("authorization_code", "refresh_token"), description="What it may ask for.", min_length=1
    )
    redirect_uris: tuple[str, ...] = Field(
        default=(), description="Compared to the letter; of `http://127.0.0.1/…` the port is free (RFC 8252 §7.3)."
    )
    scopes: tuple[Scope, ...] = Field(default=(), description="Scopes it may have; all of them when it asks for none.")
    audience: tuple[str, ...] | None = Field(
        default=None, description="Instead of the issuer's `audience`.", min_length=1
    )
    introspection: bool = Field(
        default=False, description="Whether it may ask about tokens of other clients (RFC 7662)."
    )

    @field_validator("secret_sha256")
    @classmethod
    def _is_hash(cls, value: str | None) -> str | None:
        if value is not None and not _HASH.fullmatch(value):
            raise ValueError("write the 64 lower-case hex digits of a SHA-256")
        return value

    @field_validator("redirect_uris")
    @classmethod
    def _redirects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for uri in value:
            parsed = urlsplit(uri)
            if not parsed.scheme or "#" in uri or not uri.isascii() or any(char <= " " for char in uri):
                raise ValueError(f"{uri!r} is not an absolute URI without a fragment (RFC 6749 §3.1.2)")
            if parsed.scheme == "http" and parsed.hostname not in (*_LOOPBACK, "localhost"):
                raise ValueError(f"{uri!r}: http is for loopback only; use https")
            if parsed.scheme in ("javascript", "data", "file", "vbscript"):
                raise ValueError(f"{uri!r} is not a place to redirect to")
        return value

    @property
    def is_confidential(self) -> bool:
        """Whether it has a secret (RFC 6749 §2.1)."""
        return self.secret is not None or self.secret_sha256 is not None

    @model_validator(mode="after")
    def _consistent(self) -> OAuthClient:
        if self.secret is not None and self.secret_sha256 is not None:
            raise FieldError("secret_sha256", "stands beside `secret`: give one")
        if "client_credentials" in self.grants and not self.is_confidential:
            raise FieldError("grants", "client_credentials needs a `secret`")
        if "authorization_code" in self.grants and not self.redirect_uris:
            raise FieldError("redirect_uris", "authorization_code needs one")
        return self


class Issuance(Model):
    """The built-in issuer, for teams without an identity provider; this gateway trusts it by itself."""

    name: Name = Field(default="own", description="Under which it is trusted, as if it stood under `issuers`.")
    url: Url = Field(description="The exact `iss`, as clients reach it: the gateway's public origin, then `path`.")
    path: PlainPath = Field(default="/auth", description="Where its endpoints stand; no route may.")
    audience: tuple[str, ...] = Field(default=("api",), description="`aud` of its access tokens.", min_length=1)
    store: str = Field(
        default="sqlite://issuer.db",
        validate_default=True,  # beside the YAML file, wherever the process was started
        description="`sqlite:///path` (embedded, the gateways of one machine) or `postgresql+asyncpg://…`.",
        repr=False,  # may hold a password
    )
    registration: Literal["verified", "open", "closed"] = Field(
        default="closed",
        description="`verified`: the account exists once its e-mail address is confirmed, and strangers learn nothing "
        "about accounts; needs `webhook`. `open`: at once, so whoever registers learns whether a name is "
        "taken. `closed`: by `gateway users add` only.",
    )
    client_id: Name = Field(default="first-party", description="`client_id` of sessions begun with `POST login`.")
    scopes: tuple[Scope, ...] = Field(
        default=("openid", "profile", "email"), description="Scopes of sessions begun with `POST login`."
    )
    claims: tuple[str, ...] = Field(
        default=("email", "roles"),
        description="What goes into access tokens: `email`, `email_verified`, `username`, `roles`, or a claim that "
        "`gateway users` has set.",
    )
    access_token: Duration = Field(
        default=600.0,
        description="Lifetime of access tokens, give or take a tenth so that clients do not refresh together; 5 to 15 "
        "minutes are sensible.",
        ge=1,
        le=3600,
    )
    refresh_token: RefreshTokens = RefreshTokens()
    passwords: Passwords = Passwords()
    throttle: Throttle = Throttle()
    signing: Signing = Signing()
    webhook: Webhook | None = Field(
        default=None, description="Left out: no password reset by e-mail, no verified registration."
    )
    web: Web | None = Field(
        default=None,
        description="Cookies for browsers that log in with `cookies: true`; `{}` for the defaults. Left out: none.",
    )
    clients: dict[Name, OAuthClient] = Field(default={}, description="Client id → OAuth client.")

    @field_validator("store")
    @classmethod
    def _place(cls, value: str, info: ValidationInfo) -> str:
        if _STORE.fullmatch(value) is None:
            raise ValueError("use sqlite:///path or postgresql+asyncpg://…")
        path = value.removeprefix("sqlite://")
        if path != value:  # sqlite:///absolute/path, or sqlite://path beside the YAML file
            return f"sqlite://{beside_the_file(path, info.context)}"
        return value

    @field_validator("claims")
    @classmethod
    def _free_claims(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name in RESERVED_CLAIMS:
                raise ValueError(f"`{name}` is decided by the issuer itself")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Issuance:
        if urlsplit(self.url).path != self.path or urlsplit(self.url).query:
            raise FieldError("url", f"does not end with `path`: write https://HOST{self.path}")
        if self.registration == "verified" and self.webhook is None:
            raise FieldError("registration", "`verified` needs a `webhook` that sends the message")
        if self.client_id in self.clients:
            raise FieldError("client_id", f"`{self.client_id}` is one of the `clients` too")
        return self

    def as_trusted(self) -> dict[str, Any]:
        """The entry under `issuers` that makes a gateway trust these tokens."""
        return {
            "issuer": self.url,
            "audience": tuple(dict.fromkeys([*self.audience, *self._further_audiences()])),
            # All that keys may be made for: a changed algorithm must not refuse the tokens that are out.
            "algorithms": ("ES256", "EdDSA", "RS256"),
            "jwks_uri": f"{self.url}/jwks.json",
            "credentials": {"cookie": ACCESS_COOKIE} if self.web is not None else {},
        }

    def _further_audiences(self) -> list[str]:
        return [name for client in self.clients.values() for name in client.audience or ()]
