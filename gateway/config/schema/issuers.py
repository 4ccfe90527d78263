"""The `issuers` section: whose tokens are accepted, where their keys are, and where in a request a token may stand."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, SecretBytes, ValidationInfo, field_validator, model_validator

from gateway.config.quantities import Duration
from gateway.config.schema.algorithms import SYMMETRIC, Algorithm
from gateway.config.schema.revocation import Revocation
from gateway.config.values import FieldError, FilePath, Model, PlainName, Url


class Credentials(Model):
    """Where a token may stand besides `Authorization: Bearer`; always removed before forwarding."""

    cookie: PlainName | None = Field(default=None, description="Name of a cookie that holds the token.")
    query: PlainName | None = Field(
        default=None, description="Name of a query parameter that holds the token (RFC 6750 §2.3 advises against it)."
    )


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
