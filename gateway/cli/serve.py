"""`gateway serve`: runs the gateway."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.command import USAGE, add_command, config_path, say


def add_serve(commands: Any) -> None:
    """Adds `gateway serve`."""
    add_command(
        commands,
        "serve",
        _serve,
        "run the gateway until SIGTERM; SIGHUP loads the file again",
        examples="  gateway serve\n  gateway serve --config /etc/gateway/gateway.yaml",
    )


def _serve(args: argparse.Namespace) -> int:
    from gateway.app import create_app
    from gateway.config.load import ConfigError, load
    from gateway.server import serve
    from gateway.telemetry.process_log import configure_process_log

    path = config_path(args)
    configure_process_log()
    try:
        config = load(path)
    except ConfigError as exc:
        say(str(exc))
        return USAGE
    return serve(config, path, create_app)
