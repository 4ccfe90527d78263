"""`gateway explain`: what would happen to one request."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from typing import Any

from gateway.cli.command import DONE, FAILED, add_command, read_config, told


def add_explain(commands: Any) -> None:
    """Adds `gateway explain`."""
    parser = add_command(
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


def _explain(args: argparse.Namespace) -> int:
    from gateway.explain import explain
    from gateway.explanation import Probe

    with told(args):
        probe = Probe.of(args.method, args.url, args.header, _token(args.token))
    config = read_config(args)
    found = asyncio.run(explain(config, probe, now=time.time(), is_offline=args.offline))
    print(found.render())
    return FAILED if found.is_refused else DONE


def _token(given: str | None) -> str | None:
    if given == "-":
        return sys.stdin.read().strip()
    return given if given is not None else os.environ.get("GATEWAY_TOKEN")
