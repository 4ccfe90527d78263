"""The command `gateway`: serve · check · routes · explain · revoke · denylist · users · keys · demo ·
schema.

Exit status: 0 done; 1 failed while running (for `explain`: the request is refused); 2 bad usage or configuration.
Each command is one function of its parsed arguments; what it needs is imported when it runs, so `check` stays quick.
"""

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gateway import __version__

DEFAULT_CONFIG = Path("config/gateway.yaml")
DONE, FAILED, USAGE = 0, 1, 2
Command = Callable[[argparse.Namespace], int]
_KINDS = ("token", "session", "subject", "client", "key", "issuer")

_OVERVIEW = """\
An edge gateway: checks a token on every request, asks a denylist whether it was
revoked, and forwards the request with an identity that nobody outside can forge.
One YAML file says which routes go where."""

_FIRST_STEPS = """\
first steps:
  gateway demo                  see it work: a backend, an issuer and curls to paste
  gateway check                 is config/gateway.yaml right? every problem, with its line
  gateway serve                 run it
  gateway COMMAND --help        what a command does, with examples"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status. Arguments default to the process's own."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    run: Command = args.run
    try:
        status = run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells expect
    except BrokenPipeError:
        # The reader of our output has gone (`gateway schema | head`): nothing more to say, nor at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


# --- the arguments -------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; the manual's list of commands is checked against it."""
    parser = argparse.ArgumentParser(
        prog="gateway",
        description=_OVERVIEW,
        epilog=_FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_serve(commands)
    _add_check(commands)
    _add_routes(commands)
    _add_explain(commands)
    _add_revoke(commands)
    _add_denylist(commands)
    _add_users(commands)
    _add_keys(commands)
    _add_demo(commands)
    _add_schema(commands)
    _add_echo(commands)
    return parser


def _command(
    commands: Any, name: str, run: Command, purpose: str, *, examples: str = "", reads: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=purpose[:1].upper() + purpose[1:] + ".",
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    if reads:
        parser.add_argument("--config", type=Path, metavar="FILE", help=f"the YAML file (default: {DEFAULT_CONFIG})")
    return parser


def _add_serve(commands: Any) -> None:
    _command(
        commands,
        "serve",
        _serve,
        "run the gateway until SIGTERM; SIGHUP loads the file again",
        examples="  gateway serve\n  gateway serve --config /etc/gateway/gateway.yaml",
    )


def _add_check(commands: Any) -> None:
    parser = _command(
        commands,
        "check",
        _check,
        "read the configuration and name every problem in it, with line, remedy and suggestion",
        examples="  gateway check\n  gateway check --strict --format json     in a pipeline",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print problems")
    parser.add_argument("--strict", action="store_true", help="warnings count as problems")


def _add_routes(commands: Any) -> None:
    parser = _command(commands, "routes", _routes, "list the routes, the most specific first: the order they match in")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print them")


def _add_explain(commands: Any) -> None:
    parser = _command(
        commands,
        "explain",
        _explain,
        "say what would happen to one request and why, step by step, without sending it",
        examples=(
            "  gateway explain GET /api/orders\n"
            "  gateway explain GET https://shop.example/api/orders --token - < token.txt\n"
            "  GATEWAY_TOKEN=… gateway explain POST /api/orders --header 'Cookie: a=b'"
        ),
    )
    parser.add_argument("method", metavar="METHOD", help="GET, POST, …")
    parser.add_argument("url", metavar="URL", help="a path, or a whole URL if the host matters")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help="the token; `-` reads it from standard input; left out: the variable GATEWAY_TOKEN, which "
        "does not show in process lists as an argument does",
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="one more header; may repeat"
    )
    parser.add_argument("--offline", action="store_true", help="do not fetch keys, do not ask the denylist's store")


def _add_revoke(commands: Any) -> None:
    parser = _command(
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


def _add_word(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--who", metavar="NAME", help="on whose word, for the audit line (the user of this system)")
    parser.add_argument("--why", metavar="TEXT", default="by hand", help="the reason, for the audit line")


def _add_denylist(commands: Any) -> None:
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
    listing = _command(deeds, "list", _list, "list the entries of the denylist, sorted by key")
    listing.add_argument("--kind", choices=_KINDS, help="only entries of this kind")
    listing.add_argument("--issuer", metavar="ISSUER", help="only entries of this issuer, by its name in the YAML file")
    listing.add_argument("--format", choices=("text", "json"), default="text", help="json: one object per line")
    removal = _command(deeds, "remove", _remove, "take an entry out of the denylist; exit status 1 if there was none")
    removal.add_argument("kind", choices=_KINDS, help="what is denied")
    removal.add_argument("issuer", metavar="ISSUER", help="the issuer's name in the YAML file")
    removal.add_argument("id", metavar="ID", nargs="?", default="", help="as for `revoke`; `-` reads it")
    _add_word(removal)


def _add_users(commands: Any) -> None:
    parser = _command(
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


def _add_keys(commands: Any) -> None:
    parser = _command(
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


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "start a backend and the gateway with its own issuer on this machine, and print curls to paste",
        reads=False,
    )
    parser.add_argument("--port", type=int, default=8080, help="the gateway's port (8080; a free one if taken)")
    parser.add_argument("--once", action="store_true", help="send the requests itself, print the answers, end")


def _add_schema(commands: Any) -> None:
    parser = _command(
        commands,
        "schema",
        _schema,
        "print the JSON Schema of the YAML file, for editors",
        examples="  gateway schema > config/gateway.schema.json\n  gateway schema --format markdown",
        reads=False,
    )
    parser.add_argument(
        "--format", choices=("json", "markdown"), default="json", help="markdown: a table of all settings"
    )


def _add_echo(commands: Any) -> None:
    parser = _command(
        commands,
        "echo",
        _echo,
        "run a backend that answers with the request it saw, for trying things out",
        reads=False,
    )
    parser.add_argument("--listen", default="127.0.0.1:9001", metavar="HOST:PORT", help="its address (127.0.0.1:9001)")


# --- the commands --------------------------------------------------------------------------------------------------


def _config_path(args: argparse.Namespace) -> Path:
    if args.config is not None:
        return Path(args.config)
    _say(f"configuration: ./{DEFAULT_CONFIG} (the default; --config FILE names another)")
    return DEFAULT_CONFIG


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _load(args: argparse.Namespace) -> Any:
    """The configuration, or None after its problems have been printed."""
    from gateway.config.load import examine

    found = examine(_config_path(args))
    for problem in found.problems:
        _say(problem.render())
    return found.config


def _serve(args: argparse.Namespace) -> int:
    from gateway.app import create_app
    from gateway.config.load import ConfigError, load
    from gateway.server import serve
    from gateway.telemetry.process_log import configure_process_log

    path = _config_path(args)
    configure_process_log()
    try:
        config = load(path)
    except ConfigError as exc:
        _say(str(exc))
        return USAGE
    return serve(config, path, create_app)


def _check(args: argparse.Namespace) -> int:
    from gateway.config.load import examine

    path = _config_path(args)
    found = examine(path)
    is_refused = bool(found.problems) or (args.strict and bool(found.warnings))
    if args.format == "json":
        listed = [problem.as_json() for problem in (*found.problems, *found.warnings)]
        print(json.dumps({"ok": not is_refused, "problems": listed}, indent=2))
        return USAGE if is_refused else DONE
    for problem in sorted((*found.problems, *found.warnings), key=lambda problem: (problem.line, problem.column)):
        print(problem.render() + "\n")
    counts = [_count(len(found.problems), "problem"), _count(len(found.warnings), "warning")]
    if found.config is None:
        print(f"{path}: {' and '.join(count for count in counts if not count.startswith('0'))}")
    else:
        config = found.config
        store = config.denylist.store.partition(":")[0] if config.denylist else "none"
        parts = [_count(len(config.routes), "route"), _count(len(config.upstreams), "upstream")]
        parts += [_count(len(config.issuers), "issuer"), f"denylist {store}"]
        print(f"{path}: ok: {', '.join(parts)}" + (f"; {counts[1]}" if found.warnings else ""))
    return USAGE if is_refused else DONE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _routes(args: argparse.Namespace) -> int:
    from gateway.config.listing import listing

    config = _load(args)
    if config is None:
        return USAGE
    rows = listing(config)
    if args.format == "json":
        print(json.dumps(rows, indent=2))
        return DONE
    table = [[heading.upper() for heading in rows[0]], *([row[key] for key in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE


def _explain(args: argparse.Namespace) -> int:
    from gateway.explain import Probe, explain

    try:
        probe = Probe.of(args.method, args.url, args.header, _token(args.token))
    except ValueError as exc:
        _say(f"gateway explain: {exc}")
        return USAGE
    config = _load(args)
    if config is None:
        return USAGE
    found = asyncio.run(explain(config, probe, now=time.time(), is_offline=args.offline))
    print(found.render())
    return FAILED if found.is_refused else DONE


def _token(given: str | None) -> str | None:
    if given == "-":
        return sys.stdin.read().strip()
    return given if given is not None else os.environ.get("GATEWAY_TOKEN")


def _revoke(args: argparse.Namespace) -> int:
    from gateway.config.quantities import format_duration, parse_duration
    from gateway.revoke import RevokeFailed, revoke, undo

    try:
        ttl_s = parse_duration(args.ttl)
    except ValueError as exc:
        _say(f"gateway revoke: --ttl: {exc}")
        return USAGE
    config = _load(args)
    if config is None:
        return USAGE
    entry = (config, args.kind, args.issuer, _ident(args))
    try:
        with _audit_shown():
            if args.undo:
                was_there = asyncio.run(undo(*entry, word=_word(args)))
            else:
                key = asyncio.run(revoke(*entry, now=time.time(), ttl_s=ttl_s, word=_word(args)))
    except ValueError as exc:
        _say(f"gateway revoke: {exc}")
        return USAGE
    except RevokeFailed as exc:
        _say(f"gateway revoke: {exc}")
        return FAILED
    if args.undo:
        _print_removal(args, was_there)
    else:
        print(f"revoked: {key} (for {format_duration(ttl_s)})")
    return DONE


def _print_removal(args: argparse.Namespace, was_there: bool) -> None:
    from gateway.denylist.grammar import key_for

    key = key_for(args.kind, args.issuer, _ident(args))
    print(f"removed: {key}" if was_there else f"not in the denylist: {key}")


def _ident(args: argparse.Namespace) -> str:
    if args.id == "-":
        args.id = sys.stdin.read().strip()  # once
    ident: str = args.id
    return ident


def _word(args: argparse.Namespace) -> Any:
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


def _list(args: argparse.Namespace) -> int:
    from gateway.config.quantities import format_duration
    from gateway.revoke import RevokeFailed, listed

    config = _load(args)
    if config is None:
        return USAGE
    try:
        entries = asyncio.run(listed(config, args.kind, args.issuer))
    except ValueError as exc:
        _say(f"gateway denylist list: {exc}")
        return USAGE
    except RevokeFailed as exc:
        _say(f"gateway denylist list: {exc}")
        return FAILED
    for entry in entries:
        if args.format == "json":
            print(json.dumps({"key": entry.key, "value": entry.value, "ttl_s": entry.ttl_s}))
        else:
            left = "for ever" if entry.ttl_s is None else f"for {format_duration(max(round(entry.ttl_s), 1))}"
            print(f"{entry.key}  {left}")
    return DONE


def _remove(args: argparse.Namespace) -> int:
    from gateway.revoke import RevokeFailed, undo

    config = _load(args)
    if config is None:
        return USAGE
    try:
        with _audit_shown():
            was_there = asyncio.run(undo(config, args.kind, args.issuer, _ident(args), word=_word(args)))
    except ValueError as exc:
        _say(f"gateway denylist remove: {exc}")
        return USAGE
    except RevokeFailed as exc:
        _say(f"gateway denylist remove: {exc}")
        return FAILED
    _print_removal(args, was_there)
    return DONE if was_there else FAILED


def _users(args: argparse.Namespace) -> int:
    from gateway.housekeeping import users_task

    return _keep_house(args, users_task)


def _keys(args: argparse.Namespace) -> int:
    from gateway.housekeeping import keys_task

    return _keep_house(args, keys_task)


def _keep_house(args: argparse.Namespace, make_task: Callable[[argparse.Namespace], Any]) -> int:
    from gateway.housekeeping import HousekeepingFailed, at_issuer, render

    config = _load(args)
    if config is None:
        return USAGE
    try:
        print(render(asyncio.run(at_issuer(config, make_task(args)))))
    except ValueError as exc:
        _say(f"gateway {args.command}: {exc}")
        return USAGE
    except HousekeepingFailed as exc:
        _say(f"gateway {args.command}: {exc}")
        return FAILED
    return DONE


def _demo(args: argparse.Namespace) -> int:
    from gateway.demo import run_demo

    return run_demo(port=args.port, once=args.once)


def _schema(args: argparse.Namespace) -> int:
    from gateway.config.reference import json_schema, markdown

    if args.format == "markdown":
        print(markdown(), end="")
    else:
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return DONE


def _echo(args: argparse.Namespace) -> int:
    from gateway.demo.echo import serve_echo

    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        _say("gateway echo: --listen wants HOST:PORT, for example 127.0.0.1:9001")
        return USAGE
    return serve_echo(host.strip("[]"), int(port))
