"""`gateway schema`: the JSON Schema of the YAML file, or its table."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gateway.cli.command import DONE, add_command


def add_schema(commands: Any) -> None:
    """Adds `gateway schema`."""
    parser = add_command(
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


def _schema(args: argparse.Namespace) -> int:
    from gateway.config.reference import json_schema, markdown

    if args.format == "markdown":
        print(markdown(), end="")
    else:
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return DONE
