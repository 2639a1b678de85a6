"""The loop and the socket of a `ModelServer`.  Imports uvicorn: import it only to serve."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from holdfast.testing._model_app import App

if TYPE_CHECKING:
    import socket

    from holdfast.testing._model_app import Script

__all__ = ["Loop"]

#: Gates are `threading.Event`s, because tests set them from anywhere; nothing tells an event
#: loop of those, so one task looks at all that are waited for.
GATE_LOOK_S: Final = 0.002
LEAVE_WITHIN_S: Final = 5.0
LOGGERS: Final = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class Loop:
    """One server on one thread, with an event loop of its own."""

    def __init__(self, server: Script, listening: socket.socket) -> None:
        self.ready = threading.Event()
        self._listening = listening
        config = uvicorn.Config(
            App(server, self), log_config=None, lifespan="off", http="h11", ws="none"
        )
        self._uvicorn = _Uvicorn(config, self.ready)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gates: dict[threading.Event, list[asyncio.Future[None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    def run(self) -> None:
        quiet = _Quiet(threading.get_ident())
        for name in LOGGERS:
            logging.getLogger(name).addFilter(quiet)
        try:
            asyncio.run(self._serve())
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeFilter(quiet)
            self._listening.close()
            self.ready.set()

    def stop(self) -> None:
        """Callable from any thread, once `ready`."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._uvicorn.stopping.set)

    async def wait_gate(self, gate: threading.Event) -> None:
        if gate.is_set():
            return
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gates.setdefault(gate, []).append(opened)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_at_gates())
        await opened

    def drop(self, client: tuple[str, int]) -> None:
        """Close a connection in the middle of whatever it carries."""
        for connection in self._uvicorn.connections():
            if connection.client == client:
                connection.transport.abort()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._uvicorn.serve(sockets=[self._listening])

    async def _look_at_gates(self) -> None:
        while self._gates:
            for gate in [gate for gate in self._gates if gate.is_set()]:
                for opened in self._gates.pop(gate):
                    if not opened.done():
                        opened.set_result(None)
            await asyncio.sleep(GATE_LOOK_S)


class _Uvicorn(uvicorn.Server):
    """Stops at once: what hangs is meant to, and nobody waits for it."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()
        self._ready = ready

    def connections(self) -> list[Any]:
        return list(self.server_state.connections)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self._ready.set()
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        del sockets
        for server in self.servers:
            server.close()
        for connection in self.connections():
            connection.transport.abort()
        # To the answers this looks like their clients leaving.
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=LEAVE_WITHIN_S)


class _Quiet(logging.Filter):
    """Drops what one thread logs below an error; other servers in this process keep theirs."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or record.levelno >= logging.ERROR
