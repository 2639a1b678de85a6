"""
One serving process, from its socket to its last word.

    bind ─▶ open ─▶ serve ─▶ SIGTERM ─▶ drain: nothing new, running turns finish or go back
         ─▶ whoever still waits is told ─▶ connections closed ─▶ store closed ─▶ exit code

A second signal cuts the drain short: what runs goes back to its place at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from holdfast import _assemble
from holdfast.errors import BadSettingError
from holdfast.gateway import app as application
from holdfast.gateway.guard import is_loopback
from holdfast.gateway.protocol import HEAD_BYTES_MAX, bounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from holdfast._core.settings import Settings
    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import Agent, Channel
    from holdfast.types import Drained

__all__ = ["TOKEN_FILE", "Serving", "make_room", "serve"]

TOKEN_FILE: Final = "gateway.token"  # noqa: S105  A file's name.
BACKLOG: Final = 1_024
OWN_FILES: Final = 512  #: Transcripts, locks, live logs, connections to models.
#: After the drain: for answers that are on their way out.
CLOSE_WITHIN_S: Final = 3

_log = logging.getLogger("holdfast.gateway")


@dataclass(frozen=True, slots=True)
class Serving:
    """What a serving process says of itself."""

    url: str
    where: str  #: The state directory.
    token: str
    token_is_new: bool
    token_file: str | None  #: None: the token was given.
    reconciled: str  #: What the start has found, in one line.


async def serve(
    where: str,
    settings: Settings,
    agents: Mapping[str, Agent],
    *,
    started: Callable[[Serving], None],
) -> Drained:
    """
    Serve until SIGTERM or SIGINT, then drain.

    Args:
        where: the state directory.
        agents: who answers here, by agent id.
        started: called once connections are accepted.

    Returns:
        What was left behind.

    Raises:
        BadSettingError: the address cannot be had, or needs an explicit token.
        StoreError: the state directory cannot be used.
    """
    _check_exposed(settings)
    make_room(settings.connections_max)
    with _bound(settings.gateway_host, settings.gateway_port) as listening:
        async with (
            _channels(settings) as channels,
            _assemble.opened(where, settings, agents, channels) as hf,
        ):
            token, is_new, token_file = settings.gateway_token, False, None
            if token is None:
                token, is_new = hf.store.secret(TOKEN_FILE)
                token_file = os.path.join(hf.store.where, TOKEN_FILE)
            gateway = application.Gateway(hf, settings, token, frozenset(agents))
            server = _Server(_config(application.build(gateway), settings))
            stop = _stop_signals()
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                url = _url(settings.gateway_host, listening)
                started(
                    Serving(url, hf.store.where, token, is_new, token_file, str(hf.reconciled))
                )
                outgrown = asyncio.create_task(_leave_outgrown(hf, stop))
                try:
                    await _until(stop, serving)
                finally:
                    outgrown.cancel()
                return await _drain(hf, settings.drain_ms / 1000, stop)
            finally:
                await hf.dismiss()
                server.should_exit = True
                await serving


@asynccontextmanager
async def _channels(settings: Settings) -> AsyncIterator[list[Channel]]:
    channels = _assemble.channels_from(settings)
    try:
        yield channels
    finally:
        await _assemble.close_channels(channels)


async def _leave_outgrown(hf: Holdfast, stop: asyncio.Queue[str]) -> None:
    """As if by a signal: whoever starts us again may have a newer Holdfast by then."""
    await hf.outgrown.wait()
    stop.put_nowait("the store belongs to a newer Holdfast")


async def _until(stop: asyncio.Queue[str], serving: asyncio.Task[Any]) -> None:
    waiting = asyncio.ensure_future(stop.get())
    await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        _log.info("%s: draining", waiting.result())
    waiting.cancel()


async def _drain(hf: Holdfast, finish_s: float, stop: asyncio.Queue[str]) -> Drained:
    draining = asyncio.create_task(hf.drain(finish_s=finish_s))
    again = asyncio.ensure_future(stop.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        _log.warning("%s again: what runs goes back to its place now", again.result())
        await hf.drain(finish_s=0)
    again.cancel()
    return await draining


def _stop_signals() -> asyncio.Queue[str]:
    asked: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, number.name)
    return asked


class _Server(uvicorn.Server):
    """uvicorn's server; the signals are ours, because the turns are drained first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded(settings.connections_max),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        timeout_graceful_shutdown=CLOSE_WITHIN_S,
    )


def _check_exposed(settings: Settings) -> None:
    if not is_loopback(settings.gateway_host) and settings.gateway_token is None:
        raise BadSettingError(
            key="gateway.host",
            value=settings.gateway_host,
            allowed="others can reach this address: give an explicit token as well"
            " (--token or HOLDFAST_GATEWAY__TOKEN)",
        )


def make_room(connections_max: int) -> None:
    """
    Let this process open as many files as *connections_max* connections and its own work need.

    Many systems allow 1,024 unless they are asked for more, and a process without a free
    descriptor can neither accept a connection nor append a reply.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = connections_max + OWN_FILES
    most = need if hard == resource.RLIM_INFINITY else min(need, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # More than the kernel knows how to count.
            most = soft
    if most < need:
        _log.warning(
            "this process may open %d files; gateway.max_connections = %d needs %d",
            most, connections_max, need,
        )  # fmt: skip


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        hint = "another process has it: name another port, or 0 for a free one"
        raise BadSettingError(
            key="gateway.port" if in_use else "gateway.host",
            value=f"{host}:{port}",
            allowed=hint if in_use else f"cannot listen there: {error.strerror or error}",
        ) from error
    # asyncio turns Nagle off only for sockets that say they are TCP, and these don't; the
    # accepted ones inherit it.  Without it every answer waits 40 ms for a delayed ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        yield listening


def _url(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
