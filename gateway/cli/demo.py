"""`gateway demo` and `gateway echo`: for trying things out."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.command import add_command, told


def add_demo(commands: Any) -> None:
    """Adds `gateway demo`."""
    parser = add_command(
        commands,
        "demo",
        _demo,
        "start a backend and the gateway with its own issuer on this machine, and print curls to paste",
        reads=False,
    )
    parser.add_argument("--port", type=int, default=8080, help="the gateway's port (8080; a free one if taken)")
    parser.add_argument("--once", action="store_true", help="send the requests itself, print the answers, end")


def add_echo(commands: Any) -> None:
    """Adds `gateway echo`."""
    parser = add_command(
        commands,
        "echo",
        _echo,
        "run a backend that answers with the request it saw, for trying things out",
        reads=False,
    )
    parser.add_argument("--listen", default="127.0.0.1:9001", metavar="HOST:PORT", help="its address (127.0.0.1:9001)")


def _demo(args: argparse.Namespace) -> int:
    from gateway.demo import run_demo

    return run_demo(port=args.port, once=args.once)


def _echo(args: argparse.Namespace) -> int:
    from gateway.demo.echo import serve_echo

    with told(args):
        host, port = _address(args.listen)
    return serve_echo(host, port)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("--listen wants HOST:PORT, for example 127.0.0.1:9001")
    return host.strip("[]"), int(port)
