"""`gateway check`: every problem of the configuration."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gateway.cli.command import DONE, USAGE, add_command, config_path


def add_check(commands: Any) -> None:
    """Adds `gateway check`."""
    parser = add_command(
        commands,
        "check",
        _check,
        "read the configuration and name every problem in it, with line, remedy and suggestion",
        examples="  gateway check\n  gateway check --strict --format json     in a pipeline",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print problems")
    parser.add_argument("--strict", action="store_true", help="warnings count as problems")


def _check(args: argparse.Namespace) -> int:
    from gateway.config.load import examine

    path = config_path(args)
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
