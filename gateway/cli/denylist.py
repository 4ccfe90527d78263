"""`gateway revoke` and `gateway denylist`: entries put in by hand, shown, taken out."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway.cli.command import DONE, FAILED, add_command, read_config, told

if TYPE_CHECKING:
    from gateway.config.schema import Config
    from gateway.denylist.intake import Word

_KINDS = ("token", "session", "subject", "client", "key", "issuer")


def add_revoke(commands: Any) -> None:
    """Adds `gateway revoke`."""
    parser = add_command(
        commands,
        "revoke",
        _revoke,
        "put an entry into the denylist: every gateway refuses what it names from then on",
        examples=(
            "  gateway revoke token main 5f2b…          one token, by its jti\n"
            "  gateway revoke session main 81c0…        one device, by its sid\n"
            "  gateway revoke subject main alice        the tokens alice has now; her next login works\n"
            "  gateway revoke client main app-1.0       likewise for one client or app version\n"
            "  gateway revoke key main 2026-01          everything signed by one key, by its kid\n"
            "  gateway revoke issuer main               every token that this issuer has issued so far\n"
            "  gateway revoke subject main alice --undo"
        ),
    )
    parser.add_argument("kind", choices=_KINDS, help="what is denied")
    parser.add_argument("issuer", metavar="ISSUER", help="the issuer's name in the YAML file")
    parser.add_argument("id", metavar="ID", nargs="?", default="", help="jti, sid, sub, client_id or kid; `-` reads it")
    parser.add_argument(
        "--ttl",
        default="24h",
        metavar="TIME",
        help="how long it is remembered: as long as tokens live (24h)",
    )
    parser.add_argument("--undo", action="store_true", help="remove the entry instead")
    _add_word(parser)


def add_denylist(commands: Any) -> None:
    """Adds `gateway denylist`, with its deeds."""
    parser = commands.add_parser(
        "denylist",
        help="show what is denied, or deny it no more",
        description="Show what is denied, or deny it no more.",
        epilog=(
            "examples:\n"
            "  gateway denylist list                            everything, as the store has it\n"
            "  gateway denylist list --kind session --format json\n"
            "  gateway denylist remove session main 81c0…\n"
            "options of both are shown by `gateway denylist list --help` and `gateway denylist remove --help`"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    deeds = parser.add_subparsers(dest="deed", metavar="DEED", title="deeds", required=True)
    listing = add_command(deeds, "list", _list, "list the entries of the denylist, sorted by key")
    listing.add_argument("--kind", choices=_KINDS, help="only entries of this kind")
    listing.add_argument("--issuer", metavar="ISSUER", help="only entries of this issuer, by its name in the YAML file")
    listing.add_argument("--format", choices=("text", "json"), default="text", help="json: one object per line")
    removal = add_command(
        deeds, "remove", _remove, "take an entry out of the denylist; exit status 1 if there was none"
    )
    removal.add_argument("kind", choices=_KINDS, help="what is denied")
    removal.add_argument("issuer", metavar="ISSUER", help="the issuer's name in the YAML file")
    removal.add_argument("id", metavar="ID", nargs="?", default="", help="as for `revoke`; `-` reads it")
    _add_word(removal)


def _add_word(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--who", metavar="NAME", help="on whose word, for the audit line (the user of this system)")
    parser.add_argument("--why", metavar="TEXT", default="by hand", help="the reason, for the audit line")


def _revoke(args: argparse.Namespace) -> int:
    from gateway.config.quantities import format_duration
    from gateway.revoke import RevokeFailed, revoke

    with told(args):
        ttl_s = _ttl(args.ttl)
    config = read_config(args)
    if args.undo:
        _undo(args, config)
        return DONE
    with told(args, RevokeFailed), _audit_shown():
        named = revoke(config, args.kind, args.issuer, _ident(args), now=time.time(), ttl_s=ttl_s, word=_word(args))
        key = asyncio.run(named)
    print(f"revoked: {key} (for {format_duration(ttl_s)})")
    return DONE


def _ttl(text: str) -> float:
    from gateway.config.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ValueError(f"--ttl: {exc}") from exc


def _undo(args: argparse.Namespace, config: Config) -> bool:
    """Takes the entry out and says so; whether there was one."""
    from gateway.denylist.grammar import key_for
    from gateway.revoke import RevokeFailed, undo

    ident = _ident(args)
    with told(args, RevokeFailed), _audit_shown():
        was_there = asyncio.run(undo(config, args.kind, args.issuer, ident, word=_word(args)))
    key = key_for(args.kind, args.issuer, ident)
    print(f"removed: {key}" if was_there else f"not in the denylist: {key}")
    return was_there


def _list(args: argparse.Namespace) -> int:
    from gateway.config.quantities import format_duration
    from gateway.revoke import RevokeFailed, listed

    config = read_config(args)
    with told(args, RevokeFailed):
        entries = asyncio.run(listed(config, args.kind, args.issuer))
    for entry in entries:
        if args.format == "json":
            print(json.dumps({"key": entry.key, "value": entry.value, "ttl_s": entry.ttl_s}))
        else:
            left = "for ever" if entry.ttl_s is None else f"for {format_duration(max(round(entry.ttl_s), 1))}"
            print(f"{entry.key}  {left}")
    return DONE


def _remove(args: argparse.Namespace) -> int:
    return DONE if _undo(args, read_config(args)) else FAILED


def _ident(args: argparse.Namespace) -> str:
    ident: str = sys.stdin.read().strip() if args.id == "-" else args.id
    return ident


def _word(args: argparse.Namespace) -> Word:
    """On whose word, and why, for the audit line."""
    from gateway.denylist.intake import Word

    who = args.who
    if who is None:
        try:
            who = getpass.getuser()
        except (OSError, KeyError):  # a container's user may have no name
            who = f"uid {os.getuid()}"
    return Word("command_line", who, args.why)


@contextlib.contextmanager
def _audit_shown() -> Iterator[None]:
    """Audit lines go to standard error, as those of a running gateway do."""
    from gateway.telemetry.process_log import process_log_handler

    logger = logging.getLogger("gateway.audit")
    handler = process_log_handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
