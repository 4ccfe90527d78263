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
from typing import Final

from gateway.config.schema import AccessLog as AccessLogConfig
from gateway.telemetry.exchange import Exchange
from gateway.telemetry.line_writer import LineWriter
from gateway.telemetry.sample import Sample

logger = logging.getLogger("gateway.access_log")

FLUSH_S = 0.1
PENDING_LINES = 20_000  # about 8 MiB; two seconds at 10,000 requests a second
CLOSE_S = 2.0  # for the last lines, at the end
LONGEST_TEXT: Final = 1024  # of a field that the client chose: a line stays below PIPE_BUF, so workers' lines never mix
DIGESTS = 10_000  # remembered
NAMES = 10_000  # remembered in quotes: of callers, hosts, routes, upstreams; they come again and again
# Tables of small numbers cost a quarter of what formatting does.
_DIGITS = {number: str(number) for number in range(1000)}
_THOUSANDTHS = tuple(f".{number:03d}" for number in range(1000))


class AccessLog:
    """The log of one worker. Lines are recorded on the event loop and handed over by `run`."""

    __slots__ = (
        "_clock",
        "_digests",
        "_keyed",
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
        self._keyed = blake2b(digest_size=8, key=digest_key)
        self._clock = clock
        self._pending: list[str] = []
        self._digests: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._second = -1.0
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
        since: float = now - self._second
        if not 0.0 <= since < 1.0:
            self._begin_second(int(now))
            since = now - self._second
        e = exchange
        digits: dict[int, str] = _DIGITS
        request_id, path, host = e.request_id, e.path, e.host
        if not e.is_clean or len(path) > LONGEST_TEXT:
            request_id = quoted(request_id[:LONGEST_TEXT])[1:-1]
            path = quoted(path if len(path) <= LONGEST_TEXT else path[:LONGEST_TEXT] + "…")[1:-1]
        if len(host) > LONGEST_TEXT:
            host = host[:LONGEST_TEXT] + "…"
        seconds: float = e.duration_s
        took = int(seconds * 1e6 + 0.5)
        upstream = caller = ending = ""
        if e.upstream:
            upstream, endpoint = self._name(e.upstream), self._name(e.endpoint)
            if e.head_s >= 0 and e.connect_s >= 0 and not e.retried:  # the usual, in one piece
                seconds = e.head_s
                head = int(seconds * 1e6 + 0.5)
                seconds = e.connect_s
                connect = int(seconds * 1e6 + 0.5)
                upstream = (
                    f',"upstream":{upstream},"endpoint":{endpoint}'
                    f',"head_ms":{digits.get(head // 1000) or head // 1000}{_THOUSANDTHS[head % 1000]}'
                    f',"connect_ms":{digits.get(connect // 1000) or connect // 1000}{_THOUSANDTHS[connect % 1000]}'
                )
            else:
                upstream = f',"upstream":{upstream},"endpoint":{endpoint}{_attempt(e)}'
        if e.issuer:
            caller = f',"issuer":{self._name(e.issuer)}{self._subject_member(e.subject)}'
        if e.close_code or e.code or e.cause:
            ending = _ending(e)
        return (
            f'{self._prefix}{_THOUSANDTHS[int(since * 1000)]}Z","request_id":"{request_id}","client":'
            f'{self._name(e.client)},"method":{self._name(e.method)},"host":{self._name(host)},"path":"{path}","route":'
            f'{self._name(e.route)},"status":{digits.get(e.status) or e.status}'
            f',"duration_ms":{digits.get(took // 1000) or took // 1000}{_THOUSANDTHS[took % 1000]}'
            f',"bytes_in":{digits.get(e.bytes_in) or e.bytes_in},"bytes_out":{digits.get(e.bytes_out) or e.bytes_out}'
            f"{upstream}{caller}{ending}}}\n"
        )

    def _begin_second(self, second: int) -> None:
        self._second = float(second)
        self._prefix = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second))

    def _name(self, text: str) -> str:
        """`quoted`, remembered."""
        name = self._names.get(text)
        if name is None:
            if len(self._names) >= NAMES:
                self._names.clear()
            name = self._names[text] = quoted(text)
        return name

    def _subject_member(self, subject: str) -> str:
        member = self._digests.get(subject)
        return self._new_subject_member(subject) if member is None else member

    def _new_subject_member(self, subject: str) -> str:
        """As configured; remembered where it is a digest."""
        if not subject or self._subject == "none":
            return ""
        if self._subject == "plain":
            return f',"subject":{quoted(subject[:LONGEST_TEXT])}'
        if len(self._digests) >= DIGESTS:
            self._digests.clear()
        digest = self._keyed.copy()  # at a third of what making one costs
        digest.update(subject.encode("utf-8", "surrogatepass"))
        member = self._digests[subject] = f',"subject":"{digest.hexdigest()}"'
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


def _attempt(exchange: Exchange) -> str:
    """The members of an attempt that got only so far, or was made twice."""
    members = ""
    if exchange.head_s >= 0:
        members += f',"head_ms":{_ms(exchange.head_s)}'
    if exchange.connect_s >= 0:
        members += f',"connect_ms":{_ms(exchange.connect_s)}'
    return members + ',"retried":true' if exchange.retried else members


def _ending(exchange: Exchange) -> str:
    """The members of an end that is not the usual one."""
    members = ""
    if exchange.close_code:
        members += f',"close_code":{exchange.close_code:d}'
    if exchange.code:
        members += f',"code":{quoted(exchange.code)}'
    if exchange.cause:
        members += f',"cause":{quoted(exchange.cause[:LONGEST_TEXT])}'
    return members


def _ms(seconds: float) -> str:
    """Milliseconds with three decimals; `render` has it written out."""
    microseconds = int(seconds * 1e6 + 0.5)
    return f"{microseconds // 1000}{_THOUSANDTHS[microseconds % 1000]}"
