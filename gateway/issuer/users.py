"""Who has an account, as the rest of the issuer sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from gateway.issuer.access_tokens import Subject


@dataclass(frozen=True, slots=True)
class User:
    """One account, without its password."""

    id: str
    username: str | None
    email: str | None
    email_verified: bool
    roles: tuple[str, ...]
    claims: Mapping[str, Any]
    disabled: bool
    created_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> User:
        """The account of a row."""
        return cls(
            row.id,
            row.username,
            row.email,
            row.email_verified,
            tuple(row.roles),
            row.claims,
            row.disabled,
            row.created_at,
        )

    @property
    def subject(self) -> Subject:
        """What tokens may say about the account."""
        claims: dict[str, Any] = {**self.claims, "roles": list(self.roles)}
        if self.email is not None:
            claims |= {"email": self.email, "email_verified": self.email_verified}
        if self.username is not None:
            claims["username"] = self.username
        return Subject(self.id, claims)

    @property
    def public(self) -> dict[str, Any]:
        """What the user itself sees."""
        return {
            "id": self.id,
            "username": self.username,
            "email": self.email,
            "email_verified": self.email_verified,
            "roles": list(self.roles),
            "claims": dict(self.claims),
            "created_at": self.created_at,
        }
