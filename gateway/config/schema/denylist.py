"""The `denylist` section: where revocations are kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from gateway.config.quantities import Duration
from gateway.config.values import FilePath, Model, PlainPath, beside_the_file

STORES = "redis:// rediss:// unix:// redis+sentinel:// redis+cluster:// or sqlite:///path"
_STORE = re.compile(r"(rediss?|rediss?\+sentinel|rediss?\+cluster|unix|sqlite)://\S+")


def _address(value: str, info: ValidationInfo) -> str:
    if _STORE.fullmatch(value) is None:
        raise ValueError(f"use {STORES}")
    path = value.removeprefix("sqlite://")
    if path != value:  # sqlite:///absolute/path, or sqlite://path beside the YAML file
        return f"sqlite://{beside_the_file(path, info.context)}"
    return value


StoreAddress = Annotated[str, AfterValidator(_address)]
"""Where several gateways share something; may hold a password."""


class Denylist(Model):
    """Where revocations are kept, and what happens when they cannot be seen."""

    store: StoreAddress = Field(
        default="redis://127.0.0.1:6379/0",
        description=f"{STORES}; `sqlite` is embedded, for the gateways of one machine.",
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
