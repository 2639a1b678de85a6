"""
A transcript that lost its end is put back from the rows, before the first message is taken.

Method: conversations with durability ``os`` (their rows keep every line), cut by hand where
a power failure might have cut them; then a process starts.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli import main
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Call, Say
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
UNSYNCED = {"session.durability": "os"}


async def tool() -> str:
    return "42"


async def talk(state: Path, turns: int = 3, **settings: Any) -> Path:
    """Some turns, one of them with a tool; the transcript."""
    model = ScriptedModel()
    model.on("q1", Call("count", tool), Say(("with a tool",)))
    async with holdfast.open(state, agent=model, settings={**UNSYNCED, **settings}) as hf:
        for n in range(turns):
            assert (await (await hf.submit(KEY, f"q{n}")).outcome(10)).kind == "replied"
    return oracle.only_transcript(state)


def ends_of_lines(data: bytes) -> list[int]:
    return [at + 1 for at, byte in enumerate(data) if byte == 10]


async def started(state: Path) -> Any:
    """What a start finds; nobody is asked anything."""
    model = ScriptedModel()
    async with holdfast.open(state, agent=model, settings=UNSYNCED) as hf:
        found = hf.reconciled
        events = await hf.store.control.events(kinds=["restored", "rewritten"])
        assert {t.outcome for t in await hf.store.control.turns()} <= {"replied", "cancelled"}
    assert model.prompts == [], "a committed turn was run again"
    return found, events


async def test_cut_at_every_boundary_it_is_put_back_byte_for_byte(tmp_path: Path) -> None:
    path = await talk(tmp_path)
    whole = path.read_bytes()
    ends = ends_of_lines(whole)
    assert len(ends) == 1 + 3 * 2 + 2
    for end in ends[:-1]:
        path.write_bytes(whole[:end])
        found, events = await started(tmp_path)
        assert path.read_bytes() == whole, f"cut at {end}"
        [told] = found.restored
        assert told.entries == len(ends) - ends.index(end) - 1
        assert events[-1].kind == "restored"
        assert events[-1].data["entries"] == told.entries
    path.write_bytes(whole)
    found, _ = await started(tmp_path)
    assert found.quiet
    assert found.sessions == 1


async def test_cut_inside_a_line_the_torn_line_stays_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    path = await talk(tmp_path)
    whole = path.read_bytes()
    ids = [entry.get("id") for entry in oracle.read(path)]
    ends = ends_of_lines(whole)
    for end in ends[1:]:
        path.write_bytes(whole[: end - 7])
        found, _ = await started(tmp_path)
        assert len(found.restored) == 1, f"cut at {end - 7}"
        lines = path.read_bytes().splitlines(keepends=True)
        assert b"".join(lines).startswith(whole[: end - 7] + b"\n")
        read = [json.loads(line)["id"] for line in lines[1:] if parses(line)]
        assert read == ids[-len(read) :]
        assert len(read) == len(ends) - 1
        again, _ = await started(tmp_path)
        assert again.quiet, "it was found once more"
        await restore_rows(tmp_path, path, whole)


async def restore_rows(state: Path, path: Path, whole: bytes) -> None:
    """The file as it was; the rows say by now that it is longer, and are told otherwise."""
    path.write_bytes(whole)
    ends = {json.loads(line).get("id"): end for line, end in zip(
        whole.splitlines(), ends_of_lines(whole), strict=True
    )}  # fmt: skip
    async with holdfast.open(state, settings=UNSYNCED) as hf:
        [turn, *_] = await hf.store.control.turns()
        session = await hf.store.control.session(turn.session_id)
        moved = {
            t.turn_id: ends[t.final_entry] for t in await hf.store.control.turns()
        }  # fmt: skip
        await hf.store.control.restored(
            turn.session_id, session.end_offset, len(whole), moved, {}
        )


def parses(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


async def test_cut_inside_the_header_it_is_told_and_left_alone(tmp_path: Path) -> None:
    path = await talk(tmp_path)
    path.write_bytes(cut := path.read_bytes()[:20])
    found, _ = await started(tmp_path)
    assert len(found.rewritten) + len(found.unsure) == 1
    assert path.read_bytes() == cut


async def test_a_transcript_that_is_gone_is_told_and_left_alone(tmp_path: Path) -> None:
    path = await talk(tmp_path)
    path.unlink()
    found, _ = await started(tmp_path)
    assert len(found.unsure) == 1
    assert "is gone" in found.unsure[0].detail
    assert not path.exists()


def _drop_middle(lines: list[bytes]) -> list[bytes]:
    return [*lines[:1], *lines[3:-1]]


def _shorter_last_fitting(lines: list[bytes]) -> list[bytes]:
    """Cut, and the reply before the cut was edited."""
    return [*lines[:2], lines[2].replace(b"reply", b"r"), *lines[3:-2]]


@pytest.mark.parametrize("rewrite", [_drop_middle, _shorter_last_fitting])
async def test_any_other_shrinking_is_told_and_nothing_is_put_back(
    tmp_path: Path, rewrite: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = await talk(tmp_path)
    changed = b"".join(rewrite(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(changed)
    found, events = await started(tmp_path)
    assert [told.path for told in found.rewritten] == [str(path)]
    assert path.read_bytes() == changed
    assert events[-1].kind == "rewritten"


async def test_what_was_synced_and_dropped_cannot_be_put_back(tmp_path: Path) -> None:
    """The rows keep the last turn only: a cut before it was no accident of ours."""
    path = await talk(tmp_path, **{"session.durability": "turn"})
    whole = path.read_bytes()
    ends = ends_of_lines(whole)
    path.write_bytes(cut := whole[: ends[2]])  # In the second turn.
    found, _ = await started(tmp_path)
    assert "no copy" in found.rewritten[0].detail
    assert path.read_bytes() == cut
    path.write_bytes(whole[: ends[-3]])
    found, _ = await started(tmp_path)
    assert found.restored[0].entries == 2
    assert path.read_bytes() == whole


async def test_of_another_generation_nothing_is_put_back(tmp_path: Path) -> None:
    """A repair has made the file anew: its rows vouch for that, and for nothing older."""
    path = await talk(tmp_path)
    whole = path.read_bytes()
    torn = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*torn[:-1], b'{"half a line\n', torn[-1]]))
    repaired = ["sessions", "repair", KEY, "--store", str(tmp_path)]
    assert await asyncio.to_thread(main, repaired) == 0
    ends = ends_of_lines(path.read_bytes())
    path.write_bytes(cut := path.read_bytes()[: ends[2]])
    found, _ = await started(tmp_path)
    assert found.restored == ()
    assert len(found.rewritten) == 1
    assert path.read_bytes() == cut


async def test_the_lines_of_another_generation_are_never_put_back(tmp_path: Path) -> None:
    """Somebody has rewritten it and said so, and the rows have lines of before."""
    path = await talk(tmp_path)
    async with holdfast.open(tmp_path) as hf:
        await asyncio.to_thread(
            hf.store.control.tend,  # type: ignore[attr-defined]
            lambda db: db.execute("UPDATE sessions SET generation = 2"),
        )
    path.write_bytes(cut := path.read_bytes()[: ends_of_lines(path.read_bytes())[2]])
    found, _ = await started(tmp_path)
    assert (len(found.restored), len(found.rewritten)) == (0, 1)
    assert path.read_bytes() == cut


async def test_turns_without_a_reply_between_are_not_in_the_way(tmp_path: Path) -> None:
    """Their entries are in no row: what the others wrote is put back, and stays put back."""
    path = await talk(tmp_path, turns=2)
    never = asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if prompt.text == "hangs":
            never.set()
            await asyncio.Event().wait()

    model = ScriptedModel(gate=gate)
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        receipt = await hf.submit(KEY, "hangs")
        await never.wait()
        before = len(path.read_bytes())
        await hf.cancel(receipt.turn_id)
        assert (await receipt.outcome(10)).kind == "cancelled"
        assert (await (await hf.submit(KEY, "last")).outcome(10)).kind == "replied"
    path.write_bytes(path.read_bytes()[: ends_of_lines(path.read_bytes())[2]])
    assert path.stat().st_size < before
    found, _ = await started(tmp_path)
    assert len(found.restored) == 1
    answered = list(oracle.check_answers(oracle.read(path)))
    assert answered == ["q0", "q1", "last"]
    found, _ = await started(tmp_path)
    assert found.quiet, "the rows still believe that something is missing"


async def test_two_processes_that_start_at_once_put_it_back_once(tmp_path: Path) -> None:
    path = await talk(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: ends_of_lines(whole)[0]])
    plan = {"state": str(tmp_path), "per_lane": 0, "settings": UNSYNCED}
    with Member(name="a", **plan) as a, Member(name="b", **plan) as b:
        a.until("ready")
        b.until("ready")
        assert path.read_bytes() == whole
        a.go()
        b.go()
        a.until("done")
        b.until("done")
        assert (a.end(), b.end()) == (0, 0)


@pytest.mark.parametrize("point", ["append.checked", "append.written", "restore.appended"])
async def test_killed_in_the_middle_of_it_the_next_one_goes_on(
    tmp_path: Path, point: str
) -> None:
    path = await talk(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: ends_of_lines(whole)[2]])
    with Member(state=str(tmp_path), name="a", kill_at=[point, 1], settings=UNSYNCED) as a:
        assert await asyncio.to_thread(a.process.wait, 30) == -signal.SIGKILL
    await started(tmp_path)
    assert path.read_bytes() == whole
    found, _ = await started(tmp_path)
    assert found.quiet


async def test_who_comes_while_a_runner_serves_does_not_look(tmp_path: Path) -> None:
    await talk(tmp_path)
    async with (
        holdfast.open(tmp_path, agent=ScriptedModel()) as serving,
        holdfast.open(tmp_path) as visitor,
    ):
        assert serving.reconciled is not None
        assert visitor.reconciled is None
    async with holdfast.open(tmp_path) as alone:
        assert alone.reconciled is not None


async def test_leases_of_the_dead_are_ended_before_the_first_message(tmp_path: Path) -> None:
    with Member(state=str(tmp_path), name="a", kill_at=["stream.first_text", 1]) as a:
        a.until("ready")
        a.go()
        assert await asyncio.to_thread(a.process.wait, 30) == -signal.SIGKILL
    async with holdfast.open(tmp_path) as hf:
        assert hf.reconciled is not None
        assert hf.reconciled.ended == 1
        [turn] = await hf.store.control.turns()
        assert (turn.state, turn.reason) == ("accepted", "owner_died")
        assert (await hf.store.control.counts()).leases == 0


async def test_leases_of_the_living_are_told_and_left_alone(tmp_path: Path) -> None:
    with Member(state=str(tmp_path), name="a", delay_s=0.05) as a:
        a.until("ready")
        a.go()
        a.until("streaming")
        async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
            assert hf.reconciled is not None
            assert (hf.reconciled.ended, hf.reconciled.leases) == (0, 1)
        assert a.until("outcome")["kind"] == "replied"
        a.until("done")
        assert a.end() == 0
