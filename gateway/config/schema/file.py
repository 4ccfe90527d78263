"""The whole file: its sections, and which of them are read once."""

from __future__ import annotations

from pydantic import Field, model_validator

from gateway.config.issuance import Issuance
from gateway.config.schema.admin import Admin
from gateway.config.schema.denylist import Denylist
from gateway.config.schema.idempotency import Idempotency
from gateway.config.schema.identity import Identity
from gateway.config.schema.issuers import Issuer
from gateway.config.schema.routes import Route
from gateway.config.schema.server import Server
from gateway.config.schema.telemetry import Telemetry
from gateway.config.schema.upstreams import Upstream
from gateway.config.values import Model, Name

SECRET_KEYS = frozenset({"secret", "store", "encryption_key"})
"""Keys whose value is never shown and may be written `{file: path}`; `store` because its URL may hold a password."""


class Config(Model):
    """The whole file."""

    server: Server = Server()
    admin: Admin = Admin()
    denylist: Denylist | None = Field(
        default=None, description="Left out: nothing can be revoked, and start-up says so."
    )
    idempotency: Idempotency = Idempotency()
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


STATIC_SECTIONS = ("server", "admin", "denylist", "idempotency", "telemetry", "issuer")
