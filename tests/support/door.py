"""The gateway in the test's own process and loop, on a free port; and clients for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn

from holdfast import _assemble
from holdfast._runtime.runtime import Holdfast
from holdfast.gateway import app as application
from holdfast.gateway import serve
from holdfast.testing.scripted import ScriptedModel

TOKEN = "token-of-the-tests"
WITHIN_S = 30.0


@dataclass(frozen=True)
class Door:
    url: str
    hf: Holdfast
    server: uvicorn.Server

    def connections(self) -> int:
        """How many clients are connected now, as far as the server knows."""
        return len(self.server.server_state.connections)

    def openai(self, **more: Any) -> openai.AsyncOpenAI:
        """The official client, as anybody would make it.  Does not retry by itself."""
        options = {"max_retries": 0, "timeout": WITHIN_S, "api_key": TOKEN, **more}
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", **options)

    def http(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=WITHIN_S)


@asynccontextmanager
async def door(
    state: Path,
    agent: Any = None,
    *,
    agents: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Door]:
    """Serve *state* with *agent* (by default one that replies at once) or *agents*."""
    running = dict(agents or {"main": agent or ScriptedModel()})
    async with _assemble.open(state, agents=running, settings=settings) as hf:
        gateway = application.Gateway(hf, hf.settings, TOKEN, frozenset(running))
        server = serve._Server(serve._config(application.build(gateway), hf.settings))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                yield Door(url, hf, server)
            finally:
                server.should_exit = True
                await serving


async def until(condition: Any, *, within_s: float = WITHIN_S) -> None:
    """Wait, with a bound, until *condition*, a function or a coroutine function, holds."""
    async with asyncio.timeout(within_s):
        while not (await found if asyncio.iscoroutine(found := condition()) else found):
            await asyncio.sleep(0.01)
