"""Live output, from any process: nothing twice, nothing of the fenced, no memory for the slow."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._runtime import reaping, watching
from holdfast.errors import (
    BadRequestError,
    BadTranscriptError,
    DrainingError,
    NotFoundError,
)
from holdfast.testing import ModelServer, ScriptedModel
from holdfast.testing.scripted import Call, Say
from holdfast.types import TurnEvent
from support.serving import Served

QUIET_S = 30


def held_by(*gates: asyncio.Event) -> ScriptedModel:
    """Answers one turn a gate, once the gate is set."""
    return ScriptedModel(
        *(
            [Call("wait", gate.wait, call_id=f"call_{n}"), Say(("ok",))]
            for n, gate in enumerate(gates)
        )
    )


async def kinds(events: Any) -> list[TurnEvent]:
    return [event async for event in events]


async def test_a_second_process_sees_what_the_first_one_does(tmp_path: Path) -> None:
    """Two opens on one directory are two owners: the second only admits and watches."""
    async with (
        holdfast.open(tmp_path, agent="demo") as runs,
        holdfast.open(tmp_path) as looks,
    ):
        receipt = await looks.submit("main", "one two three")
        seen = await kinds(looks.follow(receipt.turn_id))
        assert runs is not looks
    assert seen[0].kind == "accepted"
    assert [event.kind for event in seen[-2:]] == ["committed", "outcome"]
    text = "".join(event.data["text"] for event in seen if event.kind == "text")
    assert text == seen[-1].data["text"]
    assert [e.event_id for e in seen if e.event_id] == [
        f"1.{n}" for n in range(1, sum(e.event_id is not None for e in seen) + 1)
    ]


async def test_what_a_fenced_owner_still_writes_is_not_shown(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent="demo") as hf:
        receipt = await hf.submit("main", "the only text")
        await receipt.outcome()
        live = tmp_path / "live"
        [log] = live.glob(f"{receipt.turn_id}.*.ndjson")
        assert log.name == f"{receipt.turn_id}.1.ndjson"
        (live / f"{receipt.turn_id}.2.ndjson").write_text(line(2, 1, "of the successor"))
        with log.open("a") as fenced:
            fenced.write(line(1, 99, "of the fenced"))
        texts = [
            e.data["text"] for e in await kinds(hf.follow(receipt.turn_id)) if e.kind == "text"
        ]
        assert texts == ["of the successor"]
        after = await kinds(hf.follow(receipt.turn_id, after="1.3"))
        assert [e.data["text"] for e in after if e.kind == "text"] == ["of the successor"]
        later = await kinds(hf.follow(receipt.turn_id, after="2.1"))
        assert [e.kind for e in later] == ["committed", "outcome"]


def line(token: int, number: int, text: str) -> str:
    event = {"id": f"{token}.{number}", "event": "text", "at": "", "data": {"text": text}}
    return json.dumps(event) + "\n"


async def test_a_line_that_still_grows_is_not_shown_in_part(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with holdfast.open(tmp_path, agent=held_by(gate)) as hf:
        receipt = await hf.submit("main", "x")
        events = hf.follow(receipt.turn_id)
        while (await anext(events)).kind != "tool":
            pass
        [log] = (tmp_path / "live").glob("*.ndjson")
        whole = line(1, 3, "in two writes")
        coming = asyncio.ensure_future(anext(events))
        with log.open("a") as live:
            live.write(whole[:20])
            live.flush()
            await hf.submit("agent:main:other", "a look at the store, and at the log")
            assert not coming.done()
            live.write(whole[20:])
        assert (await asyncio.wait_for(coming, QUIET_S)).data["text"] == "in two writes"
        await events.aclose()
        gate.set()


@pytest.mark.parametrize("poll_s", [1_000.0, 0.02], ids=["at the end", "while it runs"])
async def test_hints_may_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poll_s: float
) -> None:
    """Polling is the truth, and behind it stands a look when the turn has ended."""
    monkeypatch.setattr(watching, "POLL_S", poll_s)
    gate = asyncio.Event()

    async def after_the_first(prompt: Any, position: int) -> None:
        if position:
            await gate.wait()

    agent = ScriptedModel([Say(("one ", "two"))], gate=after_the_first)
    async with holdfast.open(tmp_path, agent=agent) as hf:
        monkeypatch.setattr(hf.store.live, "watch", lambda told: lambda: None)
        receipt = await hf.submit("main", "x")
        events = hf.follow(receipt.turn_id)
        seen = [await anext(events)]
        coming = asyncio.ensure_future(anext(events))
        if poll_s < 1:
            seen.append(await asyncio.wait_for(coming, QUIET_S))
            assert seen[-1].kind == "started"
            assert (await asyncio.wait_for(anext(events), QUIET_S)).data["text"] == "one "
            gate.set()
            rest = await kinds(events)
        else:
            gate.set()
            rest = [await coming, *await kinds(events)]
            assert rest[0].kind == "started"
        assert "".join(e.data["text"] for e in rest if e.kind == "text").endswith("two")
        assert rest[-1].data["text"] == "one two"


async def test_a_turn_is_followed_from_one_owner_to_the_next(tmp_path: Path) -> None:
    """The follower stays connected; what the first owner has said is void."""
    never = asyncio.Event()

    async def after_the_first(prompt: Any, position: int) -> None:
        if position:
            await never.wait()

    first = ScriptedModel([Say(("void ", "text"))], gate=after_the_first)
    async with holdfast.open(tmp_path) as looks:
        async with holdfast.open(tmp_path, agent=first) as leaves:
            receipt = await leaves.submit("main", "x")
            events = looks.follow(receipt.turn_id)
            while (await anext(events)).kind != "text":
                pass
            assert (await leaves.drain(finish_s=0)).put_back == 1
        async with holdfast.open(tmp_path, agent=ScriptedModel([Say(("good ", "text"))])):
            rest = await kinds(events)
    log = [(e.kind, e.event_id) for e in rest if e.event_id]
    assert log[:2] == [("started", "2.1"), ("attempt", "2.2")]
    assert next(e for e in rest if e.kind == "attempt").data == {"n": 1, "reason": "drained"}
    assert "".join(e.data["text"] for e in rest if e.kind == "text") == "good text"


async def test_what_waits_is_taken_over_while_its_home_still_drains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaping, "ADOPT_AFTER_S", 1_000.0)
    long, short = asyncio.Event(), asyncio.Event()
    first = ScriptedModel()
    first.on("long", Call("wait", long.wait), Say(("ok",)))
    first.on("short", Call("wait", short.wait), Say(("ok",)))
    async with (
        holdfast.open(tmp_path, agent=first) as drains,
        holdfast.open(tmp_path, agent=ScriptedModel()) as takes,
    ):
        running = await drains.submit("agent:main:a", "long")
        await drains.submit("agent:main:b", "short")
        waiting = await drains.submit("agent:main:b", "next")
        async with asyncio.timeout(QUIET_S):
            while len(first.prompts) < 2:
                await asyncio.wait({asyncio.ensure_future(drains.change())})
            draining = asyncio.create_task(drains.drain(finish_s=QUIET_S))
            short.set()
            taken = await kinds(takes.follow(waiting.turn_id))
            assert taken[-1].data["outcome"] == "replied"
            assert not draining.done(), "its home was still there"
            long.set()
            assert (await draining).finished == 2
        assert (await running.outcome()).kind == "replied"


async def test_positions_are_told_as_the_queue_moves(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    async with holdfast.open(tmp_path, agent=held_by(*gates)) as hf:
        receipts = [await hf.submit("main", f"m{n}") for n in range(3)]
        events = hf.follow(receipts[2].turn_id)
        accepted = await anext(events)
        assert accepted.data["position"] == receipts[2].position == 2
        gates[0].set()
        moved = await asyncio.wait_for(anext(events), QUIET_S)
        assert (moved.kind, moved.data["position"]) == ("position", 1)
        gates[1].set()
        gates[2].set()
        rest = await kinds(events)
        assert rest[-1].data["outcome"] == "replied"


async def test_bad_ids_unknown_turns_and_closing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with holdfast.open(tmp_path) as looks:
        async with holdfast.open(tmp_path, agent=held_by(gate)) as hf:
            with pytest.raises(NotFoundError):
                await anext(hf.follow("nothing"))
            receipt = await hf.submit("main", "held")
            for bad in ("", "1", "a.b", "1.2.3", "-1.2", "٣.١", "1." + "9" * 30):
                with pytest.raises(BadRequestError):
                    await anext(hf.follow(receipt.turn_id, after=bad))
            following = asyncio.ensure_future(kinds(looks.follow(receipt.turn_id)))
            watching = asyncio.ensure_future(kinds(looks.watch("main")))
            await asyncio.wait({following, watching}, timeout=0.1)
            await looks.dismiss()
            for task in (following, watching):
                with pytest.raises(DrainingError):
                    await asyncio.wait_for(task, QUIET_S)
            gate.set()


async def test_a_session_is_watched_from_any_cursor(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent="demo") as hf:
        for text in ("one", "two"):
            await (await hf.submit("main", text)).outcome()
        page = await hf.entries("main", limit=3)
        assert len(page.entries) == 3
        watching = hf.watch("main", after=page.next)
        first = await anext(watching)
        assert first.kind == "entry"
        assert first.data["entry"]["holdfast"]["final"] is True
        await hf.submit("main", "three")
        texts = []
        async for event in watching:
            if event.kind == "entry":
                texts.append(event.data["entry"]["message"]["content"][0]["text"])
            if len(texts) == 2:
                break
        assert texts == ["three", "You said: three"]
        again = await hf.entries("main", after=f"7.{page.next.partition('.')[2]}")
        assert len(again.entries) == 6, "a cursor of another generation starts over"


async def test_lines_of_strangers_are_seen_without_a_hint(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent="demo") as hf:
        await (await hf.submit("main", "one")).outcome()
        end = (await hf.entries("main")).next
        watching = hf.watch("main", after=end)
        coming = asyncio.ensure_future(anext(watching))
        await asyncio.wait({coming}, timeout=0.2)
        [path] = tmp_path.glob("agents/*/sessions/*.jsonl")
        with path.open("a") as transcript:
            transcript.write('{"type": "label", "id": "stranger", "parentId": null}\n')
        event = await asyncio.wait_for(coming, QUIET_S)
        assert event.data["entry"]["id"] == "stranger"
        await watching.aclose()


async def test_a_session_that_cannot_be_read_stops_only_who_watches_it(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent="demo") as hf:
        for key in ("agent:main:bad", "agent:main:good"):
            await (await hf.submit(key, "one")).outcome()
        bad = hf.watch("agent:main:bad", after=(await hf.entries("agent:main:bad")).next)
        good = hf.watch("agent:main:good", after=(await hf.entries("agent:main:good")).next)
        comings = [asyncio.ensure_future(anext(each)) for each in (bad, good)]
        await asyncio.wait(comings, timeout=0.1)
        path = hf.store.transcripts.path(await hf.session("agent:main:bad"))
        os.rename(path, f"{path}.away")
        os.symlink("/etc/hostname", path)
        with pytest.raises(BadTranscriptError):
            await asyncio.wait_for(comings[0], QUIET_S)
        await hf.submit("agent:main:good", "two")
        assert (await asyncio.wait_for(comings[1], QUIET_S)).kind in {
            "waiting",
            "running",
            "entry",
        }


def test_a_slow_reader_costs_no_memory(tmp_path: Path) -> None:
    """40 MB of live output, a client that takes none of it at first, and then all."""
    with ModelServer() as model:
        held = model.hold(when="much output")
        assert held.reached is not None
        env = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "x"}
        with Served(tmp_path / "s", "--model", "openai-chat:any", env=env) as served:
            with served.client() as http:
                sent = http.post("/v1/sessions/main/messages", json={"text": "much output"})
                turn_id = sent.json()["turn_id"]
                assert held.reached.wait(30)
                [log] = (tmp_path / "s" / "live").glob("*.ndjson")
                big = line(1, 1000, "x" * 10_000)
                with log.open("a") as live:
                    for number in range(4_000):
                        live.write(big.replace("1.1000", f"1.{number + 1000}"))
                before = peak_kb(served)
                port = int(served.url.rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
                    slow.sendall(
                        f"GET /v1/turns/{turn_id}/events HTTP/1.1\r\nHost: localhost\r\n"
                        f"Authorization: Bearer {served.token}\r\n\r\n".encode()
                    )
                    for _ in range(50):
                        assert http.get("/healthz").status_code == 200
                    got = slow.recv(65_536)
                    while b"id: 1.4999\n" not in got[-200_000:]:
                        more = slow.recv(1 << 20)
                        assert more, "the stream ended early"
                        got += more
                assert got.count(b"event: text") >= 4_000
                assert peak_kb(served) - before < 12_000


def peak_kb(served: Served) -> int:
    assert served.process is not None
    with open(f"/proc/{served.process.pid}/status") as status:
        [peak] = [row for row in status if row.startswith("VmHWM")]
    assert os.path.exists(f"/proc/{served.process.pid}")
    return int(peak.split()[1])
