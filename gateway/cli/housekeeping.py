"""`gateway users` and `gateway keys`: looking after the built-in issuer."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any

from gateway.cli.command import DONE, add_command, read_config, told


def add_users(commands: Any) -> None:
    """Adds `gateway users`."""
    parser = add_command(
        commands,
        "users",
        _users,
        "look after the accounts of the built-in issuer",
        examples=(
            "  gateway users list                       one JSON object a line\n"
            "  gateway users add alice admin ops        with roles; asks for a password, or reads it\n"
            "  gateway users add bob@example.org --generate-password\n"
            "  gateway users password alice             ends every session\n"
            "  gateway users roles alice dev            replaces the roles\n"
            "  gateway users claim alice tenant 7       in tokens if `issuer.claims` names it\n"
            "  gateway users disable alice              ends every session; `enable` lets her in again\n"
            "  gateway users logout alice\n"
            "  gateway users export alice > alice.json\n"
            "  gateway users delete alice"
        ),
    )
    actions = ("list", "add", "password", "roles", "claim", "disable", "enable", "logout", "delete", "export")
    parser.add_argument("action", choices=actions, help="what to do")
    parser.add_argument("name", metavar="NAME", nargs="?", help="user name, e-mail address or id")
    parser.add_argument("value", metavar="VALUE", nargs="*", help="roles; or a claim and its value (JSON or text)")
    parser.add_argument("--email", metavar="ADDRESS", help="for `add`: the e-mail address beside a user name")
    parser.add_argument("--generate-password", action="store_true", help="for `add` and `password`: make one, print it")


def add_keys(commands: Any) -> None:
    """Adds `gateway keys`."""
    parser = add_command(
        commands,
        "keys",
        _keys,
        "look after the signing keys of the built-in issuer",
        examples=(
            "  gateway keys list            one JSON object a line\n"
            "  gateway keys rotate          a new key, announced before it signs\n"
            "  gateway keys rotate --now    when a key may have leaked; then `gateway revoke key own KID`"
        ),
    )
    parser.add_argument("action", choices=("list", "rotate"), help="what to do")
    parser.add_argument("--now", action="store_true", help="for `rotate`: sign with it at once")


def _users(args: argparse.Namespace) -> int:
    from gateway.housekeeping import users_task

    return _keep_house(args, users_task)


def _keys(args: argparse.Namespace) -> int:
    from gateway.housekeeping import keys_task

    return _keep_house(args, keys_task)


def _keep_house(args: argparse.Namespace, make_task: Callable[[argparse.Namespace], Any]) -> int:
    from gateway.housekeeping import HousekeepingFailed, at_issuer, render

    config = read_config(args)
    with told(args, HousekeepingFailed):
        print(render(asyncio.run(at_issuer(config, make_task(args)))))
    return DONE
