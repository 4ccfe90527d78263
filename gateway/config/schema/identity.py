"""The `identity` section: the headers that tell an upstream who is calling."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from gateway.config.values import FieldError, FieldName, Model


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
