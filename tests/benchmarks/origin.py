"""An upstream for the works that a fixed answer cannot serve: gigabytes down and up, and event streams.

One event loop of plain protocols, so that it costs the load's core as little as Python can: `/api/download/<bytes>`
sends that many, `/api/upload` counts what it is sent, `/api/events/<seconds>` sends an event with its wall-clock time
every second. `python -m tests.benchmarks.origin PORT`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import cast

import uvloop

_CHUNK = bytes(256 * 1024)
_BLANK = b"\r\n\r\n"


class Origin(asyncio.Protocol):
    """One connection: reads a head, answers by its path, goes on to the next request."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._body_left = 0
        self._received = 0
        self._download_left = 0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the events."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Count a body, or collect a head."""
        if self._body_left:
            self._take_body(len(data))
            return
        self._head += data
        end = self._head.find(_BLANK)
        if end >= 0:
            head, rest = bytes(self._head[:end]), len(self._head) - end - len(_BLANK)
            self._head.clear()
            self._answer(head, rest)

    def pause_writing(self) -> None:
        """The proxy does not keep up: no more until it does."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with the download."""
        self._paused = False
        self._send_download()

    def _answer(self, head: bytes, body_bytes: int) -> None:
        path = head.split(b" ", 2)[1].split(b"/")
        match path[2]:
            case b"download":
                self._download_left = int(path[3])
                self._transport.write(_response(b"content-length: %d" % self._download_left))
                self._send_download()
            case b"upload":
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                self._received, self._body_left = 0, int(lengths[0].partition(b":")[2])
                self._take_body(body_bytes)
            case b"events":
                self._transport.write(_response(b"content-type: text/event-stream\r\ntransfer-encoding: chunked"))
                # A random phase, so that a thousand streams do not speak in the same millisecond.
                self._timer = asyncio.get_running_loop().call_later(random.random(), self._event, int(path[3]))
            case _:
                self._transport.write(_response(b"content-length: 2") + b"{}")

    def _take_body(self, count: int) -> None:
        self._received += count
        self._body_left -= count
        if self._body_left == 0:
            body = b"%d" % self._received
            self._transport.write(_response(b"content-length: %d" % len(body)) + body)

    def _send_download(self) -> None:
        while self._download_left and not self._paused:
            count = min(len(_CHUNK), self._download_left)
            self._download_left -= count
            self._transport.write(_CHUNK[:count])

    def _event(self, events_left: int) -> None:
        if events_left == 0:
            self._transport.write(b"0\r\n\r\n")
            return
        event = b"data: %.6f\n\n" % time.time()
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        self._timer = asyncio.get_running_loop().call_later(1.0, self._event, events_left - 1)


def _response(header: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % header


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=4_096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
