"""The commands `gateway users` and `gateway keys`: arguments in, lines out, beside the other commands."""

from __future__ import annotations

import argparse
import getpass
import json
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.config.schema import Config
from gateway.denylist.replica import Replica
from gateway.denylist.store import open_store
from gateway.errors import GatewayError
from gateway.issuer import commands
from gateway.issuer.sealing import SealBroken
from gateway.issuer.service import Issuer
from gateway.issuer.store import StoreUnavailable


class HousekeepingFailed(Exception):
    """The store, or what was asked for, does not allow it; the text says why."""


Task = Callable[[Issuer], Awaitable[Any]]


async def at_issuer(config: Config, task: Task) -> Any:
    """What the task gives, done on the issuer of this configuration. ValueError, HousekeepingFailed."""
    if config.issuer is None:
        raise ValueError("the configuration has no `issuer`")
    store = None
    if config.denylist is not None:
        store = open_store(config.denylist, Replica(config.denylist.prefix))
    try:
        async with commands.opened(config.issuer, store) as issuer:
            return await task(issuer)
    except GatewayError as exc:
        raise HousekeepingFailed(exc.detail or exc.title) from exc
    except (StoreUnavailable, SealBroken) as exc:
        raise HousekeepingFailed(str(exc)) from exc
    finally:
        if store is not None:
            await store.close()


def users_task(args: argparse.Namespace) -> Task:
    """The task of `gateway users ACTION`; asks for a password where one is needed. ValueError without a name."""
    name, values = args.name or "", list(args.value)
    if args.action != "list" and not name:
        raise ValueError(f"`users {args.action}` needs a NAME")
    if args.action == "claim" and not 1 <= len(values) <= 2:
        raise ValueError("`users claim` needs NAME CLAIM and a VALUE; without VALUE the claim is removed")
    if args.action in ("add", "password"):
        password = _password(generate=args.generate_password)
    tasks: dict[str, Task] = {
        "list": commands.list_users,
        "add": lambda issuer: commands.add_user(issuer, name, args.email, password, values),
        "password": lambda issuer: commands.set_password(issuer, name, password),
        "roles": lambda issuer: commands.set_roles(issuer, name, values),
        "claim": lambda issuer: commands.set_claim(issuer, name, values[0], values[1] if len(values) > 1 else None),
        "disable": lambda issuer: commands.disable_user(issuer, name, disabled=True),
        "enable": lambda issuer: commands.disable_user(issuer, name, disabled=False),
        "logout": lambda issuer: commands.log_out_user(issuer, name),
        "delete": lambda issuer: commands.delete_user(issuer, name),
        "export": lambda issuer: commands.export_user(issuer, name),
    }
    return tasks[args.action]


def keys_task(args: argparse.Namespace) -> Task:
    """The task of `gateway keys ACTION`."""

    async def listing(issuer: Issuer) -> Any:
        return commands.list_keys(issuer)

    return listing if args.action == "list" else lambda issuer: commands.rotate_keys(issuer, at_once=args.now)


def render(found: Any) -> str:
    """A sentence as it is, a mapping as JSON, rows as one JSON object a line."""
    if isinstance(found, str):
        return found
    if isinstance(found, dict):
        return json.dumps(found, indent=2, ensure_ascii=False)
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in found)


def _password(*, generate: bool) -> str:
    """A password from the terminal, the first line of standard input, or a fresh one, which is then shown."""
    if generate:
        fresh = secrets.token_urlsafe(18)
        sys.stderr.write(f"password: {fresh}\n")
        return fresh
    if sys.stdin.isatty():
        return getpass.getpass("password: ")
    return sys.stdin.readline().rstrip("\r\n")
