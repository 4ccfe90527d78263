"""What the commands share: how they are described, how they read the file, and what they end with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEFAULT_CONFIG = Path("config/gateway.yaml")
DONE, FAILED, USAGE = 0, 1, 2
Command = Callable[[argparse.Namespace], int]


def add_command(
    commands: Any, name: str, run: Command, purpose: str, *, examples: str = "", reads: bool = True
) -> argparse.ArgumentParser:
    """One more command among `commands`, which argparse does not name the type of; `reads`: it takes `--config`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=purpose[:1].upper() + purpose[1:] + ".",
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, prog=parser.prog)
    if reads:
        parser.add_argument("--config", type=Path, metavar="FILE", help=f"the YAML file (default: {DEFAULT_CONFIG})")
    return parser


def config_path(args: argparse.Namespace) -> Path:
    """The YAML file that is meant; says so if it is the default."""
    if args.config is not None:
        return Path(args.config)
    say(f"configuration: ./{DEFAULT_CONFIG} (the default; --config FILE names another)")
    return DEFAULT_CONFIG


def read_config(args: argparse.Namespace) -> Any:
    """The configuration, or None after its problems have been printed."""
    from gateway.config.load import examine

    found = examine(config_path(args))
    for problem in found.problems:
        say(problem.render())
    return found.config


def say(text: str) -> None:
    """Prints to standard error: standard output is for what was asked for."""
    print(text, file=sys.stderr, flush=True)


def complain(args: argparse.Namespace, reason: object, status: int) -> int:
    """Says why the command could not do it; gives back the exit status."""
    say(f"{args.prog}: {reason}")
    return status
