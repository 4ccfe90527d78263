"""One JSON line per request, rendered at once and written later.

    record ──▶ pending (bounded) ──run, every FLUSH_S──▶ the writer's thread ──▶ file, pipe

The event loop renders and never writes. One batch at a time is with the thread; while a disk or a pipe does not take
it, lines gather up to a bound, and what comes then is dropped and counted: a log must never slow a request.

A line holds no token, no query and no header but the request id. `subject` is by default a digest: the first 16 hex
digits of BLAKE2b keyed with `Runtime.digest_key`, which is random for each start. Within one run the lines of one user
can be found; with the log alone, nobody can find out who that was by hashing candidates.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quoted

from gateway.config.schema import AccessLog as AccessLogConfig
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.line_writer import LineWriter
from gateway.telemetry.sample import Sample

logger = logging.getLogger("gateway.access_log")

FLUSH_S = 0.1
PENDING_LINES = 20_000  # about 8 MiB; two seconds at 10,000 requests a second
CLOSE_S = 2.0  # for the last lines, at the end
LONGEST_TEXT = 1024  # of a field that the client chose: a line stays below PIPE_BUF, so workers' lines never mix
DIGESTS = 10_000  # remembered
NAMES = 10_000  # remembered in quotes: of callers, hosts, routes, upstreams; they come again and again
_THOUSANDTHS = tuple(f".{number:03d}" for number in range(1000))


class AccessLog:
    """The log of one worker. Lines are recorded on the event loop and handed over by `run`."""

    __slots__ = (
        "_clock",
        "_digests",
        "_key",
        "_names",
        "_pending",
        "_prefix",
        "_second",
        "_subject",
        "_writer",
        "dropped",
        "recorded",
    )

    def __init__(
        self, config: AccessLogConfig, digest_key: bytes = b"", clock: Callable[[], float] = time.time
    ) -> None:
        """`digest_key` makes the digests of subjects; `clock` gives epoch seconds."""
        self._writer = None if config.destination == "off" else LineWriter(config.destination)
        self._subject = config.subject
        self._key = digest_key
        self._clock = clock
        self._pending: list[str] = []
        self._digests: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._second = -1
        self._prefix = ""
        self.dropped = 0
        self.recorded = 0

    def record(self, exchange: Exchange) -> None:
        """Render the line of a request that has ended; dropped, and counted, when the writer is too far behind."""
        if self._writer is None:
            return
        if len(self._pending) >= PENDING_LINES:
            self.dropped += 1
            return
        self.recorded += 1
        self._pending.append(self.render(exchange, self._clock()))

    def render(self, exchange: Exchange, now: float) -> str:
        """The line: ASCII JSON, one line whatever the client sent, ending in a line break."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second))
        e = exchange
        path = e.path if len(e.path) <= LONGEST_TEXT else e.path[:LONGEST_TEXT] + "…"
        host = e.host if len(e.host) <= LONGEST_TEXT else e.host[:LONGEST_TEXT] + "…"
        line = (
            f'{self._prefix}{_THOUSANDTHS[int((now - second) * 1000)]}Z","request_id":'
            f'{quoted(e.request_id[:LONGEST_TEXT])},"client":{self._name(e.client)},"method":{self._name(e.method)}'
            f',"host":{self._name(host)},"path":{quoted(path)},"route":{self._name(e.route)},"status":{e.status}'
            f',"duration_ms":{_ms(e.duration_s)},"bytes_in":{e.bytes_in},"bytes_out":{e.bytes_out}'
        )
        if e.upstream:
            line += f',"upstream":{self._name(e.upstream)},"endpoint":{self._name(e.endpoint)}'
            if e.head_s >= 0:
                line += f',"head_ms":{_ms(e.head_s)}'
            if e.connect_s >= 0:
                line += f',"connect_ms":{_ms(e.connect_s)}'
            if e.retried:
                line += ',"retried":true'
        if e.issuer:
            line += f',"issuer":{self._name(e.issuer)}{self._subject_member(e.subject)}'
        if e.close_code:
            line += f',"close_code":{e.close_code:d}'
        if e.code:
            line += f',"code":{quoted(e.code)}'
        if e.cause:
            line += f',"cause":{quoted(e.cause[:LONGEST_TEXT])}'
        return line + "}\n"

    def _name(self, text: str) -> str:
        """`quoted`, remembered."""
        name = self._names.get(text)
        if name is None:
            if len(self._names) >= NAMES:
                self._names.clear()
            name = self._names[text] = quoted(text)
        return name

    def _subject_member(self, subject: str) -> str:
        if not subject or self._subject == "none":
            return ""
        if self._subject == "plain":
            return f',"subject":{quoted(subject[:LONGEST_TEXT])}'
        member = self._digests.get(subject)
        if member is None:
            if len(self._digests) >= DIGESTS:
                self._digests.clear()
            digest = blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).hexdigest()
            member = self._digests[subject] = f',"subject":"{digest}"'
        return member

    async def run(self) -> None:
        """Hand lines to the writer until cancelled; then give the last ones `CLOSE_S` seconds."""
        if self._writer is None:
            return
        thread = threading.Thread(target=self._writer.run, name="access-log", daemon=True)  # may hang in a pipe
        thread.start()
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                self._hand_over()
        finally:
            deadline = time.monotonic() + CLOSE_S
            while not self._hand_over() and time.monotonic() < deadline:
                time.sleep(0.01)  # noqa: ASYNC251  # nothing else is left to run, and cancellation must not be lost
            self._writer.close(max(0.0, deadline - time.monotonic()))

    def _hand_over(self) -> bool:
        """Give what is pending to an idle writer; whether nothing is pending now."""
        if self._pending and self._writer is not None and self._writer.is_idle:
            lines, self._pending = self._pending, []
            self._writer.give(lines)
        return not self._pending

    def samples(self) -> Iterable[Sample]:
        """Lines recorded, dropped for want of room, and lost in writing."""
        lost = self._writer.lost if self._writer is not None else 0
        yield Sample("gateway_access_log_lines_total", {}, self.recorded)
        yield Sample("gateway_access_log_dropped_total", {}, self.dropped + lost)


def _ms(seconds: float) -> str:
    """Milliseconds with three decimals; a table of them costs half of what formatting does."""
    microseconds = int(seconds * 1e6 + 0.5)
    return f"{microseconds // 1000}{_THOUSANDTHS[microseconds % 1000]}"
