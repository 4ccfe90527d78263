"""The `server` section: the address clients connect to, what they may send, how a stop goes."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator

from gateway.config.quantities import Duration, Size
from gateway.config.values import FilePath, Listen, Model


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
