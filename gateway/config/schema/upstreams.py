"""The `upstreams` section: the backends, and how to talk to them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from gateway.config.quantities import Duration
from gateway.config.values import FieldError, FilePath, Model, Origin


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
