"""Serving processes that stop, die and come back, several on one state directory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.testing import ModelServer, Step
from support import oracle
from support.serving import Served, events

MESSAGES = 24  #: From each of three clients.


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def env(model: ModelServer, **settings: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-none", **settings}


def serve(state: Path, model: ModelServer, **settings: str) -> Served:
    return Served(state, "--model", "openai-chat:any", env=env(model, **settings))


def held(model: ModelServer, when: str) -> tuple[Step, Any, Any]:
    step = model.hold(after=2, when=when)
    assert step.gate is not None
    assert step.reached is not None
    return step, step.gate, step.reached


# ----------------------------------------------------------------------------------- drain


def test_a_drain_finishes_what_runs_and_leaves_what_waits(
    tmp_path: Path, model: ModelServer
) -> None:
    _, gate, reached = held(model, "is running")
    with serve(tmp_path / "s", model) as served, served.client() as http:
        path = "/v1/sessions/main/messages"
        running = http.post(path, json={"text": "is running"}).json()["turn_id"]
        assert reached.wait(20)
        waiting = http.post(path, json={"text": "is waiting"}).json()["turn_id"]
        with http.stream("GET", f"/v1/turns/{running}/events") as stream:
            happening = events(stream.iter_lines())
            assert next(happening)[0] == "accepted"
            served.signal(signal.SIGTERM)
            refused = _until_draining(http, path)
            assert int(refused.headers["retry-after"]) >= 1
            assert http.get("/readyz").status_code == 503
            assert http.get("/healthz").status_code == 200
            assert http.get(f"/v1/turns/{running}").json()["state"] == "running"
            gate.set()
            assert list(happening)[-1][1]["outcome"] == "replied"
        code, left = served.wait()
        assert (code, left) == (0, {"finished": 1, "put_back": 0, "waiting": 1})
        served.start()
        with served.client() as again:
            assert _outcome(again, waiting)["text"] == "reply to: is waiting"


def _until_draining(http: httpx.Client, path: str) -> httpx.Response:
    """The signal is on its way: messages are accepted until it has arrived."""
    while (
        answer := http.post(path, json={"text": "too late", "idempotency_key": "l"})
    ).is_success:
        assert http.post(f"/v1/turns/{answer.json()['turn_id']}/cancel").is_success
    assert answer.status_code == 503
    assert answer.json()["code"] == "draining"
    return answer


def _outcome(http: httpx.Client, turn_id: str) -> Any:
    with http.stream("GET", f"/v1/turns/{turn_id}/events") as stream:
        return list(events(stream.iter_lines()))[-1][1]


def test_what_does_not_finish_in_time_goes_back_to_its_place(
    tmp_path: Path, model: ModelServer
) -> None:
    _, gate, reached = held(model, "takes too long")
    drain = {"HOLDFAST_GATEWAY__DRAIN_MS": "100"}
    with serve(tmp_path / "s", model, **drain) as served, served.client() as http:
        sent = http.post("/v1/sessions/main/messages", json={"text": "takes too long"})
        assert reached.wait(20)
        code, left = served.stop()
        assert (code, left) == (1, {"finished": 0, "put_back": 1, "waiting": 1})
        gate.set()
        served.start()
        with served.client() as again:
            outcome = _outcome(again, sent.json()["turn_id"])
        assert outcome["text"] == "reply to: takes too long"
        assert outcome["attempts"] == 1, "a drain gives the attempt back"


def test_a_second_signal_cuts_the_drain_short(tmp_path: Path, model: ModelServer) -> None:
    _, _, reached = held(model, "never ends")
    patient = {"HOLDFAST_GATEWAY__DRAIN_MS": "10m"}
    with serve(tmp_path / "s", model, **patient) as served, served.client() as http:
        http.post("/v1/sessions/main/messages", json={"text": "never ends"})
        assert reached.wait(20)
        served.signal(signal.SIGTERM)
        _until_draining(http, "/v1/sessions/main/messages")
        code, left = served.stop()
        assert code == 1
        assert left["put_back"] == 1


def test_who_waits_for_a_queued_turn_is_told_that_it_stays_queued(
    tmp_path: Path, model: ModelServer
) -> None:
    """`?wait` ends in the receipt, and the stream of events ends without an outcome."""
    _, gate, reached = held(model, "first")

    async def wait(served: Served) -> tuple[httpx.Response, list[Any]]:
        async with served.async_client() as http:
            path = "/v1/sessions/main/messages"
            await http.post(path, json={"text": "first"})
            assert await asyncio.to_thread(reached.wait, 20)
            queued = (await http.post(path, json={"text": "second"})).json()["turn_id"]
            waiting = asyncio.create_task(
                http.post(path, json={"text": "third"}, params={"wait": 60})
            )
            async with http.stream("GET", f"/v1/turns/{queued}/events") as stream:
                lines = stream.aiter_lines()
                while not (await anext(lines)).startswith("event: accepted"):
                    pass
                while len((await http.get("/readyz")).json()) and (
                    (await http.get("/readyz")).json()["waiting"] < 2
                ):
                    pass
                served.signal(signal.SIGTERM)
                gate.set()
                rest = [line async for line in lines]
            return await waiting, rest

    with serve(tmp_path / "s", model) as served:
        answer, rest = asyncio.run(wait(served))
        code, left = served.wait()
    assert answer.status_code == 202, answer.text
    assert not [line for line in rest if line == "event: outcome"]
    assert (code, left["waiting"]) == (0, 2)


# ----------------------------------------------------------------- several, one dies, one goes


async def _send(servers: list[Served], first: int, key: str, text: str) -> str:
    """Send until accepted, to whoever listens; the same idempotency key each time."""
    for turn in range(600):
        served = servers[(first + turn) % len(servers)]
        try:
            async with served.async_client() as http:
                answer = await http.post(
                    f"/v1/sessions/{key}/messages",
                    json={"text": text, "idempotency_key": text},
                )
        except httpx.TransportError:
            continue
        if answer.status_code == 202:
            return str(answer.json()["turn_id"])
        assert answer.status_code == 503, answer.text
    raise AssertionError(f"nobody took {text!r}")


async def _follow(servers: list[Served], first: int, turn_id: str, seen: list[Any]) -> Any:
    """Follow a turn to its outcome, going on elsewhere when a connection breaks."""
    last: str | None = None
    for turn in range(600):
        served = servers[(first + turn) % len(servers)]
        headers = {"Last-Event-ID": last} if last else {}
        try:
            async with (
                served.async_client() as http,
                http.stream("GET", f"/v1/turns/{turn_id}/events", headers=headers) as stream,
            ):
                lines = [line async for line in _noting(stream.aiter_lines(), seen)]
                del lines
        except httpx.TransportError:
            pass
        last = next((event_id for _, _, event_id in reversed(seen) if event_id), None)
        if seen and seen[-1][0] == "outcome":
            return seen[-1][1]
    raise AssertionError(f"no outcome of {turn_id}")


async def _noting(lines: Any, seen: list[Any]) -> Any:
    block: list[str] = []
    async for line in lines:
        block.append(line)
        if not line:
            seen.extend(events(iter(block)))
            block = []
        yield line


def text_shown(seen: list[Any]) -> str:
    """What a client that voids at each `attempt` has on its screen at the end."""
    shown = ""
    for kind, data, _ in seen:
        if kind == "attempt":
            shown = ""
        elif kind == "text":
            shown += data["text"]
    return shown


async def _storm(servers: list[Served], model: ModelServer, doomed_reached: Any) -> None:
    """Three clients; in the middle the first server dies and comes back, the second drains."""
    watched = await _send(servers, 0, "agent:main:watched", "is streaming when its server dies")
    seen: list[Any] = []
    following = asyncio.create_task(_follow(servers, 0, watched, seen))
    assert await asyncio.to_thread(doomed_reached.wait, 20)
    while not any(kind == "text" for kind, _, _ in seen):
        await asyncio.wait({following}, timeout=0.01)
    turns: list[tuple[str, str]] = []

    async def client(number: int) -> None:
        for message in range(MESSAGES):
            text = f"client {number} message {message}"
            key = f"agent:main:shared-{message % 3}"
            turns.append((text, await _send(servers, number, key, text)))

    clients = [asyncio.create_task(client(number)) for number in range(3)]
    while len(turns) < MESSAGES:
        await asyncio.wait(clients, timeout=0.01)
    servers[0].kill()
    servers[1].signal(signal.SIGTERM)
    await asyncio.to_thread(servers[0].start)
    assert (await asyncio.to_thread(servers[1].wait))[0] == 0
    await asyncio.gather(*clients)
    for text, turn_id in turns:
        assert (await _follow(servers, 2, turn_id, []))["text"] == f"reply to: {text}"
    outcome = await following
    assert outcome["text"] == text_shown(seen) == "reply to: is streaming when its server dies"
    numbered = [event_id for _, _, event_id in seen if event_id]
    assert len(numbered) == len(set(numbered)), "an event was shown twice"
    assert any(kind == "attempt" for kind, _, _ in seen), "its first text was void"


def test_three_serve_one_dies_one_drains_and_nothing_is_lost(
    tmp_path: Path, model: ModelServer
) -> None:
    doomed, _, reached = held(model, "is streaming when its server dies")
    state = tmp_path / "s"
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(state, model)) for _ in range(3)]
        asyncio.run(_storm(servers, model, reached))
        assert doomed.gate is not None
        for served in (servers[0], servers[2]):
            assert served.stop()[0] == 0
    for path in state.glob("agents/*/sessions/*.jsonl"):
        entries = oracle.read(path)
        oracle.check_whole(entries)
        oracle.check_answers(entries)
