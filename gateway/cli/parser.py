"""Every command's arguments, and the function that runs one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gateway import __version__, build
from gateway.cli.check import add_check
from gateway.cli.command import FAILED, USAGE, Command, Ended
from gateway.cli.demo import add_demo, add_echo
from gateway.cli.denylist import add_denylist, add_revoke
from gateway.cli.explain import add_explain
from gateway.cli.housekeeping import add_keys, add_users
from gateway.cli.routes import add_routes
from gateway.cli.schema import add_schema
from gateway.cli.serve import add_serve

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

# In the order of `gateway --help`.
_COMMANDS = (
    add_serve,
    add_check,
    add_routes,
    add_explain,
    add_revoke,
    add_denylist,
    add_users,
    add_keys,
    add_demo,
    add_schema,
    add_echo,
)


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
    except Ended as ended:
        return ended.status
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells expect
    except BrokenPipeError:
        # The reader of our output has gone (`gateway schema | head`): nothing more to say, nor at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; the manual's list of commands is checked against it."""
    parser = argparse.ArgumentParser(
        prog="gateway",
        description=_OVERVIEW,
        epilog=_FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__} ({build()})")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for add in _COMMANDS:
        add(commands)
    return parser
