"""The gateway's own words."""

import io
import logging
import re
from collections.abc import Iterator

import pytest

from gateway.telemetry.process_log import configure_process_log


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_record_is_one_line(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moment in UTC, level, area, text; a line break in the text is shown as such."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    configure_process_log()
    logging.getLogger("gateway.keys").warning("answer was %s", "a\r\n2026 INFO forged")
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 1
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING gateway\.keys answer was a\\r\\n2026 INFO forged", lines[0]
    )
