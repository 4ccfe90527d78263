"""The operator's side of accounts and keys: what `gateway users` and `gateway keys` do, on the store itself.

No gateway need run; those that do see accounts at once and keys within seconds. Ended sessions are denied as usual.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from gateway.config.issuance import Issuance
from gateway.issuer.accounts import read_registration
from gateway.issuer.denials import Denylist
from gateway.issuer.passwords import check_strength
from gateway.issuer.service import Issuer
from gateway.issuer.users import User

_PAGE = 500


@contextlib.asynccontextmanager
async def opened(config: Issuance, denylist: Denylist | None) -> AsyncIterator[Issuer]:
    """The issuer of a configuration, without endpoints and background work. StoreUnavailable, SealBroken."""
    issuer = Issuer(config, denylist)
    try:
        await issuer.open()
        yield issuer
        await issuer.denials.deliver()
    finally:
        await issuer.close()


# --- users -----------------------------------------------------------------------------------------------------------


async def list_users(issuer: Issuer) -> list[dict[str, Any]]:
    """Every account, by id."""
    found: list[dict[str, Any]] = []
    after = ""
    while page := await issuer.accounts.list(after=after, limit=_PAGE):
        found += [_row(user) for user in page]
        after = page[-1].id
    return found


def _row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "roles": list(user.roles),
        "disabled": user.disabled,
        "created_at": moment(user.created_at),
    }


async def add_user(issuer: Issuer, name: str, email: str | None, password: str, roles: list[str]) -> str:
    """A new account, whose address counts as verified; a sentence. Raises what registration raises."""
    username, address = (None, name) if "@" in name else (name, email)
    asked = read_registration(username, address, password)
    user = await issuer.accounts.add(asked, roles=roles, email_verified=asked.email is not None)
    return f"added: {user.username or user.email} ({user.id})"


async def set_password(issuer: Issuer, name: str, password: str) -> str:
    """A new password; every session ends."""
    user = await issuer.accounts.find_named(name)
    prepared = check_strength(password, [user.username or "", user.email or ""])
    await issuer.password_changes.set(user.id, prepared)
    return f"password changed, sessions ended: {name}"


async def set_roles(issuer: Issuer, name: str, roles: list[str]) -> str:
    """Other roles; they are in tokens from the next refresh on."""
    user = await issuer.accounts.find_named(name)
    await issuer.accounts.set_roles(user.id, roles)
    return f"roles of {name}: {', '.join(roles) or 'none'}"


async def set_claim(issuer: Issuer, name: str, claim: str, value: str | None) -> str:
    """A further claim: JSON, or text if it is none; None removes it. ValueError for names that are not free."""
    user = await issuer.accounts.find_named(name)
    parsed: Any = None
    if value is not None:
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
    await issuer.accounts.set_claim(user.id, claim, parsed)
    return f"{claim} of {name}: {json.dumps(parsed) if value is not None else 'removed'}"


async def disable_user(issuer: Issuer, name: str, *, disabled: bool) -> str:
    """Refuse log-ins and end every session; or allow log-ins again."""
    user = await issuer.accounts.find_named(name)
    await issuer.accounts.disable(user.id, disabled=disabled)
    return f"{'disabled, sessions ended' if disabled else 'enabled'}: {name}"


async def log_out_user(issuer: Issuer, name: str) -> str:
    """End every session."""
    user = await issuer.accounts.find_named(name)
    count = await issuer.sessions.end_all(user.id, "ended by the operator")
    return f"sessions ended: {count}"


async def delete_user(issuer: Issuer, name: str) -> str:
    """Remove an account and all that belongs to it."""
    user = await issuer.accounts.find_named(name)
    await issuer.accounts.delete(user.id)
    return f"deleted: {name}"


async def export_user(issuer: Issuer, name: str) -> dict[str, Any]:
    """Everything that is kept about a user."""
    return await issuer.accounts.export((await issuer.accounts.find_named(name)).id)


# --- keys ------------------------------------------------------------------------------------------------------------


def list_keys(issuer: Issuer) -> list[dict[str, Any]]:
    """Every signing key, oldest first."""
    now = time.time()
    signs = issuer.keys.current(now).kid
    rows = []
    for key in issuer.keys.all():
        state = "retired"
        if key.is_published(now):
            state = "signs" if key.kid == signs else "announced" if key.use_from > now else "verifies"
        rows.append(
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "state": state,
                "use_from": moment(key.use_from),
                "retire_at": moment(key.retire_at) if key.retire_at is not None else None,
            }
        )
    return rows


async def rotate_keys(issuer: Issuer, *, at_once: bool) -> str:
    """A new signing key, announced as the configuration says, or used at once."""
    announce_s = 0.0 if at_once else issuer.config.signing.announce
    kid = await issuer.keys.rotate(time.time(), announce_s=announce_s)
    return f"made: {kid}; it signs {'at once' if at_once else 'from ' + moment(time.time() + announce_s) + ' on'}"


def moment(seconds: float) -> str:
    """Epoch seconds as people read them: `2026-11-22T01:40:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
