"""One RESP3 connection to one Redis server: pipelined commands, each with a deadline, and push frames.

hiredis parses; the rest is here rather than in a client library because of what the denylist needs: commands and
invalidations on *one* connection, so that their order is known (a reply read before an invalidation is older than it);
a deadline that no retry stretches; and replies by the thousand at a fraction of a microsecond each, while a million
keys are being loaded. All of a pipeline's replies arrive as one list, errors among them as `ReplyError` values.

    connecting ──▶ open ──▶ closed
                     └── a deadline passed, the peer closed, the stream is broken: every waiter gets `LinkLost`
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Never, cast

import hiredis

from gateway.redis.address import Credentials, Endpoint

Command = tuple[str | bytes | int, ...]
Reply = Any  # str, int, None, a list or dict of these, or ReplyError: as RESP3 has it

_INCOMPLETE: Final = object()
_CONNECT_DEADLINE_S: Final = 1.0  # nobody waits for it, and a TLS handshake takes its time


class LinkLost(Exception):
    """The connection is gone, could not be made, or took too long; the text is fit for a log."""


class ReplyError(Exception):
    """An error that Redis answered; `code` is its first word, for example `NOPERM`, `OOM` or `MOVED`."""

    @property
    def code(self) -> str:
        """The first word of the answer."""
        return str(self).partition(" ")[0]


class Link(asyncio.Protocol):
    """A connection; made by `connect`. Commands of concurrent callers are answered in the order they were sent."""

    def __init__(
        self, timeout_s: float, on_push: Callable[[list[Reply]], None] | None = None, *, gives_bytes: bool = False
    ) -> None:
        """`gives_bytes`: strings in replies stay bytes; else they are text, with bytes that are none escaped."""
        self._timeout_s = timeout_s
        self._on_push = on_push
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[int, list[Reply], asyncio.Future[list[Reply]]]] = deque()
        self._lost: LinkLost | None = None
        self._closed = asyncio.Event()
        text: dict[str, Any] = {} if gives_bytes else {"encoding": "utf-8", "errors": "surrogateescape"}
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE, replyError=ReplyError, **text)

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._lost is None

    async def execute(self, *commands: Command) -> list[Reply]:
        """The replies to a pipeline, one per command, in order.

        Raises `LinkLost` if the connection is or gets lost, or if the replies are not complete within the timeout; then
        the connection is given up. A cancelled caller leaves the connection usable.
        """
        return await self.begin(*commands)

    def begin(self, *commands: Command) -> asyncio.Future[list[Reply]]:
        """Send a pipeline at once, for a caller who has other things to do meanwhile; the future is as `execute`.

        Raises `LinkLost` if the connection is lost already.
        """
        if self._lost is not None or self._transport is None:
            raise LinkLost("not connected") if self._lost is None else self._lost
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Reply]] = loop.create_future()
        if not commands:
            done.set_result([])
            return done
        self._waiting.append((len(commands), [], done))
        self._transport.write(_packed(commands))
        # Not `asyncio.timeout`: after a stall of this process it would cancel although the reply is already here.
        timer = loop.call_later(self._timeout_s, self._expire, done)

        def end(done: asyncio.Future[list[Reply]]) -> None:
            timer.cancel()
            if not done.cancelled():
                done.exception()  # looked at, in case the caller has gone

        done.add_done_callback(end)
        return done

    async def call(self, *command: str | bytes | int) -> Reply:
        """The reply to one command; raises `ReplyError` if it is an error."""
        reply = (await self.execute(command))[0]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    async def wait_until_lost(self) -> Never:
        """Raise `LinkLost` as soon as the connection is gone."""
        await self._closed.wait()
        raise LinkLost("closed") if self._lost is None else self._lost

    def close(self) -> None:
        """Close at once; waiting callers get `LinkLost`."""
        self._fail(LinkLost("closed"))

    # --- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        """Hand replies to their callers and push frames to `on_push`, in the order in which they came."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._take(reply)
        except hiredis.ProtocolError:
            self._fail(LinkLost("not RESP3"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every waiting caller."""
        self._fail(LinkLost("closed by the server" if exc is None else f"lost: {type(exc).__name__}"))

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if self._on_push is not None:
                self._on_push(reply)
            return
        if not self._waiting:
            self._fail(LinkLost("an answer without a question"))
            return
        expected, replies, done = self._waiting[0]
        replies.append(reply)
        if len(replies) == expected:
            self._waiting.popleft()
            if not done.done():
                done.set_result(replies)

    def _expire(self, done: asyncio.Future[list[Reply]]) -> None:
        if not done.done():
            self._fail(LinkLost(f"no answer within {self._timeout_s * 1000:.0f} ms"))

    def _fail(self, reason: LinkLost) -> None:
        if self._lost is None:
            self._lost = reason
            self._closed.set()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            _, _, done = self._waiting.popleft()
            if not done.done():
                done.set_exception(LinkLost(*self._lost.args))


async def connect(
    endpoint: Endpoint,
    credentials: Credentials,
    *,
    tls: ssl.SSLContext | None,
    timeout_s: float,
    db: int = 0,
    on_push: Callable[[list[Reply]], None] | None = None,
    resp3: bool = True,
    gives_bytes: bool = False,
) -> Link:
    """An open link, authenticated and with its database selected.

    Raises `LinkLost` if there is none within a second, and `ReplyError` if Redis refuses the credentials or is older
    than RESP3. `resp3=False` is for Sentinels before 6.2, which are asked one question only.
    """
    link = Link(timeout_s, on_push, gives_bytes=gives_bytes)
    try:
        async with asyncio.timeout(max(_CONNECT_DEADLINE_S, timeout_s)):
            await _open(link, endpoint, tls)
            await _greet(link, credentials, db, resp3)
    except (OSError, TimeoutError) as fault:  # ssl.SSLError is an OSError
        link.close()
        raise LinkLost(f"cannot connect: {type(fault).__name__}") from fault
    except BaseException:
        link.close()
        raise
    return link


async def _open(link: Link, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    if endpoint.path:
        await loop.create_unix_connection(lambda: link, endpoint.path)
    else:
        server_hostname = endpoint.host if tls is not None else None
        await loop.create_connection(
            lambda: link, endpoint.host, endpoint.port, ssl=tls, server_hostname=server_hostname
        )


async def _greet(link: Link, credentials: Credentials, db: int, resp3: bool) -> None:
    user = credentials.username or "default"
    auth: Command = ("AUTH", user, credentials.password) if credentials.password else ()
    if resp3:
        await link.call("HELLO", 3, *auth)
    elif auth:
        await link.call(*auth)
    if db:
        await link.call("SELECT", db)


def _packed(commands: Iterable[Command]) -> bytes:
    pack: Callable[[Any], bytes] = hiredis.pack_command  # declared for tuples of one
    try:
        return b"".join([pack(command) for command in commands])
    except UnicodeEncodeError:
        return b"".join([pack(_escaped(command)) for command in commands])


def _escaped(command: Command) -> Command:
    # hiredis encodes strictly, but a key may hold any bytes: they came in by the same escape.
    return tuple([part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in command])
