"""The `idempotency` section, and what a route says of it: writes that are repeated under an `Idempotency-Key`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.quantities import Duration, Size
from gateway.config.schema.denylist import STORES, StoreAddress
from gateway.config.values import FilePath, Model


class Idempotency(Model):
    """Where the answers to requests with an `Idempotency-Key` are kept."""

    store: StoreAddress | None = Field(
        default=None,
        description=f"{STORES}; left out: the denylist's servers, or a file beside its file.",
        repr=False,  # may hold a password
    )
    prefix: str = Field(default="gateway:idem:", description="In front of every key.", min_length=1, max_length=128)
    timeout: Duration = Field(default=0.25, description="Deadline of each call to the store.", gt=0, le=10)
    lease: Duration = Field(
        default=10.0,
        description="How long a key stays taken when the gateway that has its request dies; renewed while it lives.",
        ge=1,
        le=300,
    )
    ca: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signs the store's certificate; that of `denylist` when left out.",
    )


class RouteIdempotency(Model):
    """What a route does with `Idempotency-Key`; a word alone is the `mode`, and `false` is `off`."""

    mode: Literal["off", "optional", "required"] = Field(
        default="optional",
        description="`optional`: a key that is sent counts; `required`: POST and PATCH must have one. A route without "
        "`idempotency` has it `off`.",
    )
    ttl: Duration = Field(
        default=86_400.0, description="How long an answer is kept for repetitions.", ge=1, le=30 * 86_400
    )
    max_body: Size = Field(
        default=2**20,
        description="Request body with a key; beyond: 413 `content_too_large`, since it must be held in memory.",
        ge=1,
        le=16 * 2**20,
    )
    max_answer: Size = Field(
        default=2**20, description="Longest body of an answer that is kept; of others only the head is.", le=16 * 2**20
    )
    wait: Duration = Field(
        default=5.0,
        description="How long a repetition waits for the first request's answer; then 409 `idempotency_key_in_use`.",
        ge=0,
        le=60,
    )
    when_unknown: Literal["forward", "refuse"] = Field(
        default="forward",
        description="A repetition of a request that may have been handled, without an answer to tell: `forward` it, or "
        "`refuse` it with 409 `idempotency_outcome_unknown`.",
    )
