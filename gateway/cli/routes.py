"""`gateway routes`: the routes, in the order they match in."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gateway.cli.command import DONE, add_command, read_config


def add_routes(commands: Any) -> None:
    """Adds `gateway routes`."""
    parser = add_command(
        commands, "routes", _routes, "list the routes, the most specific first: the order they match in"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print them")


def _routes(args: argparse.Namespace) -> int:
    from gateway.config.listing import listing

    config = read_config(args)
    rows = listing(config)
    if args.format == "json":
        print(json.dumps(rows, indent=2))
        return DONE
    table = [[heading.upper() for heading in rows[0]], *([row[key] for key in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE
