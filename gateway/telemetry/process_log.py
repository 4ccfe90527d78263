"""Where the gateway's own words go: one line per event on standard error. Requests have their own log."""

from __future__ import annotations

import logging
import sys
import time


class _Line(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO gateway.server text`; line breaks of a message are shown, not obeyed."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """One line, whatever a peer put into the message; a traceback follows on lines of its own."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def process_log_handler() -> logging.Handler:
    """What writes a logger's records to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    return handler


def configure_process_log(level: int = logging.INFO) -> None:
    """Send every logger's records to standard error; called once in each process."""
    root = logging.getLogger()
    root.handlers[:] = [process_log_handler()]
    root.setLevel(level)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
