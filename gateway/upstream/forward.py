"""One request to the upstream and its response back, both streamed, with bounded memory.

    take a connection ─► write the head with the first of the body ─► read the head of the response ─► stream its body
          │                        │ closed before a byte came back, and safe to repeat: once more on a new connection
          │                        └ more body: `upload` sends it while the request waits for the response
          └ none yet: connect, another endpoint if this one cannot be reached

Whatever happens on the way (a fault, a client that leaves, cancellation), a connection is closed unless its exchange is
complete.

A response that begins while the body still uploads is passed on at once. If it is an error or a redirect the upload
stops, for the endpoint does not want the rest; otherwise both go on, since some endpoints answer while they read.
"""

from __future__ import annotations

from collections.abc import Coroutine
from time import monotonic
from typing import Any, Final, cast

from gateway.errors import ConnectFailed, ContentTooLarge
from gateway.telemetry.exchange import Exchange
from gateway.upstream.download import Download, Message, ResponseAborted, Send
from gateway.upstream.ending import ENDS, Watch
from gateway.upstream.endpoints import Endpoint, Upstream
from gateway.upstream.events import EventStream
from gateway.upstream.headers import NO_BODY, response_lines
from gateway.upstream.http1 import Connection, StaleConnection
from gateway.upstream.request import UpstreamRequest, render_head
from gateway.upstream.response import ResponseHead
from gateway.upstream.upload import ClientGone, Receive, Upload

__all__ = ["ClientGone", "ResponseAborted", "forward"]

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"QUERY"))  # RFC 9110 §9.2.2
_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"QUERY"))  # RFC 9110 §9.2.1
_LONG_S: Final = 1.0  # an answer to a safe method that was so long in coming is checked again before it begins


def forward(
    request: UpstreamRequest,
    upstream: Upstream,
    receive: Receive,
    send: Send,
    exchange: Exchange,
    watch: Watch | None = None,
    token: object = None,
) -> Coroutine[Any, Any, None]:
    """Send `request` to `upstream` and its response to `send`, when awaited; facts go into `exchange`.

    Raises, only while no response has started: `BadRequest`, `ContentTooLarge`, the leaves of `UpstreamFault`,
    `ClientGone`, and for what `watch` says of `token` by then: `TokenRevoked`, `TokenExpired`. Afterwards:
    `ResponseAborted`. Cancellation closes the upstream connection at once.
    """
    return _Conversation(request, upstream, receive, send, exchange, watch, token).run()


class _Conversation:
    """One request's way to the upstream and back. Owner of the connection it holds."""

    __slots__ = (
        "_connection",
        "_endpoint",
        "_exchange",
        "_receive",
        "_request",
        "_send",
        "_token",
        "_upload",
        "_upstream",
        "_watch",
    )

    def __init__(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        watch: Watch | None,
        token: object,
    ) -> None:
        self._watch = watch
        self._token = token
        self._request = request
        self._upstream = upstream
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._endpoint: Endpoint = cast("Endpoint", None)  # until it is chosen, which is the first step
        self._connection: Connection | None = None
        has_body = request.body_length != NO_BODY and request.body_length != 0
        self._upload: Upload | None = Upload(request, receive, exchange) if has_body else None

    async def run(self) -> None:
        """From the first byte to the last.

        Most requests have no body, find an idle connection, and have their whole response in one read: those wait once,
        here, and need no other coroutine.
        """
        request, upload = self._request, self._upload
        if request.body_length is not None and request.body_length > request.body_limit:
            raise ContentTooLarge
        try:
            connection = self._ask_at_once()
            if connection is None:
                head = await self._ask()
            else:
                while connection.head is None and connection.error is None:
                    await connection.arrived
                if connection.head is not None:
                    head = connection.head
                else:
                    head = await self._ask_again(connection)
            connection = self._connection
            assert connection is not None
            self._note_head(head, connection)
            if connection.complete and (upload is None or not upload.is_under_way):
                start, body = self._whole(head, connection)
                await self._send(start)
                await self._send(body)
            else:
                await self._answer(head, connection)
        finally:
            if self._connection is not None or upload is not None:
                await self._release()

    def _ask_at_once(self) -> Connection | None:
        """Choose an endpoint; send a request without a body on an idle connection. None if it is to be waited for."""
        exchange, upstream = self._exchange, self._upstream
        exchange.upstream = upstream.name
        self._endpoint = endpoint = upstream.choose()
        exchange.endpoint = endpoint.name
        self._connection = connection = self._take_idle(endpoint)
        if connection is None:
            return None
        exchange.connect_s = 0.0
        if self._upload is not None:
            return None
        connection.begin(self._request.method == b"HEAD")
        connection.write(self._render_head(endpoint))
        connection.read_deadline = monotonic() + self._request.head_timeout_s
        return connection

    async def _ask(self) -> ResponseHead:
        """The response's head, after at most one repetition."""
        exchange = self._exchange
        if self._connection is None:
            started = monotonic()
            self._endpoint, self._connection = await self._upstream.acquire(self._endpoint)
            exchange.connect_s = monotonic() - started
            exchange.endpoint = self._endpoint.name
        connection = self._connection
        try:
            return await self._attempt(self._endpoint, connection)
        except StaleConnection as stale:
            return await self._repeat(connection, stale)

    async def _ask_again(self, connection: Connection) -> ResponseHead:
        """After an exchange that was begun at once and has failed."""
        error = connection.error
        assert error is not None
        if not isinstance(error, StaleConnection):
            raise error
        return await self._repeat(connection, error)

    async def _repeat(self, connection: Connection, stale: StaleConnection) -> ResponseHead:
        """Once more on a new connection, if that does no harm.

        The endpoint closed a kept connection at the moment it was used: RFC 9112 §9.3.1.
        """
        endpoint = self._endpoint
        if not connection.reused or (connection.sent and not self._is_repeatable()):
            raise ConnectFailed(cause=f"{endpoint.name}: closed without a response") from stale
        self._connection = None
        connection.release()
        self._exchange.retried = True
        endpoint.pool.retried += 1
        endpoint, connection = await self._upstream.acquire(endpoint, fresh=True)
        self._connection = connection
        try:
            return await self._attempt(endpoint, connection)
        except StaleConnection as again:
            raise ConnectFailed(cause=f"{endpoint.name}: closed without a response, twice") from again

    def _take_idle(self, endpoint: Endpoint) -> Connection | None:
        connection = endpoint.pool.take()
        if self._request.method in _IDEMPOTENT and self._upload is None:
            return connection
        # This request may not be one to send twice, so a look at the socket is worth a system call.
        while connection is not None and connection.is_readable():
            endpoint.pool.give_back(connection, reusable=False)
            connection = endpoint.pool.take()
        return connection

    def _is_repeatable(self) -> bool:
        """Whether sending the request twice does no harm: idempotent, and all of its body still at hand."""
        return self._request.method in _IDEMPOTENT and (self._upload is None or self._upload.is_held)

    async def _attempt(self, endpoint: Endpoint, connection: Connection) -> ResponseHead:
        request = self._request
        self._exchange.endpoint = endpoint.name
        connection.begin(request.method == b"HEAD")
        head = self._render_head(endpoint)
        upload = self._upload
        if upload is None:
            connection.write(head)
        else:
            await upload.begin(connection, head)
        if upload is None or upload.ended:
            connection.read_deadline = monotonic() + request.head_timeout_s
        return await connection.head_arrived()

    def _render_head(self, endpoint: Endpoint) -> bytes:
        request = self._request
        return render_head(request, endpoint.authority if self._upstream.sends_own_host else request.host)

    def _note_head(self, head: ResponseHead, connection: Connection) -> None:
        """Account for a response that is here; TokenRevoked, TokenExpired if it came too late to begin."""
        exchange, watch = self._exchange, self._watch
        if self._upload is not None:
            self._upload.forget_first()
        exchange.head_s = monotonic() - exchange.started
        exchange.status = head.status
        if exchange.head_s > _LONG_S and watch is not None and self._request.method in _SAFE:
            # Nothing was done that a repetition could do twice; of an unsafe method the client must learn the outcome.
            reason = watch.is_over(self._token)
            if reason:
                raise ENDS[reason]()

    def _start(self, head: ResponseHead) -> Message:
        headers = response_lines(head, self._request.request_id)
        return {"type": "http.response.start", "status": head.status, "headers": headers}

    def _whole(self, head: ResponseHead, connection: Connection) -> tuple[Message, Message]:
        """The messages of a response that is complete; the connection is free before the client is written to."""
        start = self._start(head)
        body = connection.take()
        while not connection.ended:
            body += connection.take()
        self._connection = None
        connection.release()
        self._exchange.bytes_out = len(body)
        return start, {"type": "http.response.body", "body": body, "more_body": False}

    async def _answer(self, head: ResponseHead, connection: Connection) -> None:
        """Pass a response on as it arrives, or one that is here before its request has ended."""
        if self._upload is not None and not connection.uploaded and head.status >= 300:
            await self._upload.stop()
        if connection.complete:
            start, body = self._whole(head, connection)
            await self._release()
            await self._send(start)
            await self._send(body)
            return
        events = None if self._watch is None else EventStream.of(head.headers)
        download = Download(connection, self._release, self._send, self._exchange, self._request.idle_timeout_s)
        await download.run(self._start(head), events, self._watch, self._token)

    async def _release(self) -> None:
        """Give the connection back, closed unless both messages are complete. Does nothing the second time."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        if self._upload is not None:
            await self._upload.stop()
