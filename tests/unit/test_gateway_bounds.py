"""Connections are bounded in number, in time, and in what a slow one costs."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from holdfast.errors import DrainingError
from holdfast.gateway import guard, protocol, serve, sse


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers when the whole body is here."""
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(**bounds: Any) -> AsyncIterator[int]:
    config = uvicorn.Config(
        echo, port=0, http=protocol.bounded(**bounds), ws="none", lifespan="off",
        log_config=None, access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = __import__("contextlib").nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.wait({task}, timeout=0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes, cleanly or not."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", HEAD, HEAD + b"X-Slow: y\r\n", HEAD + b"\r\n" + HEAD],
    ids=["nothing", "a letter", "no end", "a header", "the second request"],
)
async def test_a_head_that_does_not_come_to_its_end_is_given_up(sent: bytes) -> None:
    """Slowloris: the connection is closed by the server, though the client stays."""
    async with serving(connections_max=10, head_timeout_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await closed(reader)
        assert answer.startswith(
            b"HTTP/1.1 200" if sent.endswith(HEAD + b"\r\n" + HEAD) else b""
        )
        writer.close()


async def test_a_served_request_may_last() -> None:
    """The bound is for the head: a body may take longer, and so may an answer."""
    async with serving(connections_max=10, head_timeout_s=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        answer = asyncio.ensure_future(reader.readline())
        await asyncio.wait({answer}, timeout=0.5)
        assert not answer.done(), "it was closed, or answered too early"
        writer.write(b"b")
        assert (await answer).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_one_connection_too_many_is_closed_and_the_others_are_served() -> None:
    async with serving(connections_max=2, head_timeout_s=30) as port:
        first = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in first:
            writer.write(HEAD + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await closed(reader) == b""
        writer.close()
        first[0][1].close()
        await first[0][1].wait_closed()
        deadline = asyncio.get_running_loop().time() + 10
        while asyncio.get_running_loop().time() < deadline:  # Until its end was noticed.
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"\r\n")
            try:
                line = await reader.readline()
            except ConnectionResetError:
                line = b""
            writer.close()
            if line:
                break
        assert line.startswith(b"HTTP/1.1 200")
        first[1][1].close()


async def test_a_client_that_takes_nothing_loses_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "STALLED_S", 0.05)

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    sending = guard._Sending(never)
    with pytest.raises(guard._Stalled):
        await sending({"type": "http.response.body", "body": b"x"})
    assert sending.stalled


async def test_silence_is_broken_and_events_are_pulled_one_at_a_time() -> None:
    asked: list[int] = []
    go = asyncio.Event()

    async def source() -> Any:
        for number in range(3):
            asked.append(number)
            if number == 1:
                await go.wait()
            yield sse.event("n", number)

    stream = sse.with_pings(source(), 0.01, lambda: b": ping\n\n")
    assert await anext(stream) == b"event: n\ndata: 0\n\n"
    assert await anext(stream) == b": ping\n\n"
    go.set()
    rest = [each async for each in stream]
    assert [each for each in rest if not each.startswith(b":")] == [
        b"event: n\ndata: 1\n\n", b"event: n\ndata: 2\n\n",
    ]  # fmt: skip


async def test_a_draining_process_ends_its_streams_in_words() -> None:
    async def source() -> Any:
        yield b"x"
        raise DrainingError

    told = [each async for each in sse.with_pings(source(), 1, lambda: b"")]
    assert told[0] == b"x"
    assert told[1].startswith(b": draining")


async def test_a_stream_that_is_left_closes_its_source() -> None:
    left = asyncio.Event()

    async def source() -> Any:
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            left.set()

    stream = sse.with_pings(source(), 1, lambda: b"")
    await anext(stream)
    await stream.aclose()
    assert left.is_set()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True),
     ("0.0.0.0", False), ("::", False), ("127.evil.example", False), ("192.168.1.1", False)],
)  # fmt: skip
def test_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert guard.is_loopback(host) is loopback


def test_the_cookie_tells_nothing_of_the_token() -> None:
    assert guard.cookie_value("secret") != guard.cookie_value("secret2")
    assert "secret" not in guard.cookie_value("secret")


def test_there_are_files_for_all_connections(caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        serve.make_room(500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 500 + serve.OWN_FILES
        serve.make_room(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 500 + serve.OWN_FILES
        assert not caplog.records
        serve.make_room(10**9)
        assert "needs 1000000512" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
