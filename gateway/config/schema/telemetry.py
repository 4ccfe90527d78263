"""The `telemetry` section: what is written down about requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from gateway.config.values import Model, beside_the_file


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
