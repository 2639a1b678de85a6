"""A proxy that loses answers: the request arrives, and every tenth response never does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Any, Self


class DroppingProxy:
    """TCP on loopback, in a thread of its own.  Drops whole responses, from their first byte."""

    def __init__(self, upstream: str, *, every: int = 10) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream, self._every = (host, int(port)), every
        self.url, self.requests, self.dropped = "", 0, 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, reader: Any, writer: Any) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        doomed = asyncio.Event()

        async def forth() -> None:
            while data := await reader.read(65_536):
                for _ in range(data.count(b" HTTP/1.1\r\n")):
                    self.requests += 1
                    if self.requests % self._every == 0:
                        doomed.set()
                up_writer.write(data)
            up_writer.close()

        async def back() -> None:
            while data := await up_reader.read(65_536):
                if doomed.is_set():
                    self.dropped += 1
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()

        forward = asyncio.create_task(forth())
        try:
            with contextlib.suppress(ConnectionError):
                await back()
        finally:  # Also when the proxy ends under a client that stays connected.
            forward.cancel()
            up_writer.close()
            writer.close()
            await asyncio.gather(forward, return_exceptions=True)
