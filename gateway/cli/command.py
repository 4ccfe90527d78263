"""What the commands share: how they are described, how they read the file, and what they end with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.config.schema import Config

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


def read_config(args: argparse.Namespace) -> Config:
    """The configuration. Raises `Ended` after its problems have been printed."""
    from gateway.config.load import examine

    found = examine(config_path(args))
    for problem in found.problems:
        say(problem.render())
    if found.config is None:
        raise Ended(USAGE)
    return found.config


def say(text: str) -> None:
    """Prints to standard error: standard output is for what was asked for."""
    print(text, file=sys.stderr, flush=True)


class Ended(Exception):
    """The command cannot go on, and has said why; `status` is what it ends with."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@contextmanager
def told(args: argparse.Namespace, *failures: type[Exception]) -> Iterator[None]:
    """ValueError is said as bad usage, `failures` as having failed; then `Ended` is raised."""
    try:
        yield
    except ValueError as exc:
        say(f"{args.prog}: {exc}")
        raise Ended(USAGE) from exc
    except failures as exc:
        say(f"{args.prog}: {exc}")
        raise Ended(FAILED) from exc
