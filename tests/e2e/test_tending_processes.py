"""Tending while others write: real processes and threads, and kills at named points."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import _points
from holdfast._assemble_tending import repair_file, tending
from holdfast._core.settings import Settings
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript.transcripts import read_tree
from holdfast.errors import BadRequestError, NotFoundError, SessionBusyError, TakeoverError
from holdfast.testing import ScriptedModel
from support import oracle

KEY = "agent:main:main"
WRITERS, APPENDS, REPAIRS = 3, 150, 12
WITHIN_S = 120

WRITER = """
import json, sys
from holdfast.backends.files.lock.write_lock import WriteLock
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
lock = WriteLock(path, timeout_s=60)
for n in range(count):
    entry = {"type": "message", "id": f"{name}-{n}", "parentId": None}
    with lock as hold:
        hold.append(json.dumps(entry).encode() + b"\\n", sync=False)
print("done", flush=True)
"""

#: Repairs, and ends at a named point as a power cut would.
DYING = """
import os, sys
from holdfast import _points
from holdfast._core.settings import Settings
from holdfast._assemble_tending import repair_file
_points.install(sys.argv[2], lambda: os.kill(os.getpid(), 9))
repair_file(sys.argv[1], Settings(), timeout_s=10)
"""


@contextmanager
def processes(script: str, *calls: tuple[str, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Started, and by the end of the block ended."""
    found = [
        subprocess.Popen(
            [sys.executable, "-c", script, *call],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for call in calls
    ]  # fmt: skip
    try:
        yield found
    finally:
        for each in found:
            if each.poll() is None:
                each.kill()
            each.communicate()


async def talk(state: Path, *texts: str) -> Path:
    async with holdfast.open(state, agent=ScriptedModel()) as hf:
        for text in texts:
            assert (await (await hf.submit(KEY, text)).outcome(30)).kind == "replied"
        return state / (await hf.session(KEY)).transcript


def codes(path: str = "") -> list[str]:
    words = [sys.executable, "-m", "holdfast", "sessions", "verify", "--json"]
    found = subprocess.run(
        [*words, *([path] if path else [])],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    told = json.loads(found.stdout)
    return [problem["code"] for file in told["files"] for problem in file["problems"]]


def test_writers_and_readers_lose_nothing_to_repairs(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\n')
    calls = [(str(path), f"w{n}", str(APPENDS)) for n in range(WRITERS)]
    torn: list[Any] = []
    over = threading.Event()

    def read() -> None:
        seen = 0
        while not over.is_set():
            try:
                count = len(read_tree(str(path)).entries)
            except Exception as error:
                torn.append(error)
                return
            if count < seen:
                torn.append((seen, count))
            seen = count

    with processes(WRITER, *calls) as writers:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        reader = threading.Thread(target=read)
        reader.start()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        try:
            for number in range(REPAIRS):
                with WriteLock(path, timeout_s=60) as hold:
                    hold.append(b'{"damage number %d\n' % number, sync=False)
                done = repair_file(str(path), Settings(), timeout_s=60)
                assert done.counts == {"unparsable": 1}
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "done\n"
        finally:
            over.set()
            reader.join()
    assert torn == []
    ids = [entry["id"] for entry in oracle.read(path) if entry["type"] == "message"]
    assert sorted(ids) == sorted(f"w{n}-{i}" for n in range(WRITERS) for i in range(APPENDS))
    assert len(list(tmp_path.glob("*.bak-*"))) == REPAIRS
    assert not [p.name for p in tmp_path.iterdir() if p.name.endswith(".lock")]


def test_both_inodes_are_latched_and_the_claim_stands_until_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\nrubbish\n')
    seen: list[bool] = []

    def latched(name: Path) -> bool:
        with name.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def look() -> None:
        [copy] = tmp_path.glob("*.bak-*")
        assert path.stat().st_ino != copy.stat().st_ino
        seen.extend([latched(path), latched(copy), Path(f"{path}.lock").exists()])

    monkeypatch.setitem(_points._hooks, "replace.renamed", look)
    repair_file(str(path), Settings(), timeout_s=5)
    assert seen == [True, True, True]
    [copy] = tmp_path.glob("*.bak-*")
    assert [latched(path), latched(copy)] == [False, False]
    assert not Path(f"{path}.lock").exists()


def test_a_stranger_that_writes_meanwhile_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\nrubbish\n')
    late = b'{"type":"x","id":"late","parentId":null}\n'

    def write() -> None:
        with path.open("ab") as file:
            file.write(late)

    monkeypatch.setitem(_points._hooks, "replace.kept", write)
    with pytest.raises(TakeoverError, match="written to meanwhile"):
        repair_file(str(path), Settings(), timeout_s=5)
    monkeypatch.delitem(_points._hooks, "replace.kept")
    assert late in path.read_bytes()
    assert not list(tmp_path.glob("*.bak-*"))
    assert repair_file(str(path), Settings(), timeout_s=5).changed
    assert late in path.read_bytes()


def test_an_editor_that_replaces_the_file_meanwhile_costs_nobody_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = tmp_path / "s.jsonl", tmp_path / "theirs"
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\nrubbish\n')
    original = path.read_bytes()
    theirs.write_bytes(b"theirs\n")
    monkeypatch.setitem(_points._hooks, "replace.kept", lambda: theirs.replace(path))
    with pytest.raises(TakeoverError):
        repair_file(str(path), Settings(), timeout_s=5)
    assert path.read_bytes() == b"theirs\n"
    [copy] = tmp_path.glob("*.bak-*")
    assert copy.read_bytes() == original


async def test_turns_go_on_across_repairs_in_another_process(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = await talk(state, "first")
    async with holdfast.open(state, agent=ScriptedModel()) as hf:
        receipts = []
        for number in range(5):
            receipts.append(await hf.submit(KEY, f"n{number}"))
            with path.open("ab") as file:  # A stranger that knows no lock.
                file.write(b"rubbish\n")
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "holdfast", "sessions", "repair", str(path),
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            _, err = await asyncio.wait_for(child.communicate(), WITHIN_S)
            assert child.returncode in {0, 4}, err  # 4: it was written to meanwhile.
        outcomes = [await receipt.outcome(60) for receipt in receipts]
    assert [o.kind for o in outcomes] == ["replied"] * 5
    await asyncio.to_thread(repair_file, str(path), Settings(), timeout_s=10)
    finals = oracle.finals(oracle.read(path))
    assert len({final["holdfast"]["turn"] for final in finals}) == len(finals) == 6


async def test_a_repair_that_dies_before_its_row_is_seen_and_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("HOLDFAST_STORE", str(state))
    path = await talk(state, "one")
    with path.open("ab") as file:
        file.write(b"rubbish\n")
    damaged = path.read_bytes()

    with processes(DYING, (str(path), "replace.kept")) as [dying]:
        assert dying.wait(WITHIN_S) == -signal.SIGKILL
    assert path.read_bytes() == damaged
    assert codes() == ["unparsable"]

    with processes(DYING, (str(path), "replace.renamed")) as [dying]:
        assert dying.wait(WITHIN_S) == -signal.SIGKILL
    assert codes() == ["generation"]
    copies = list(path.parent.glob("*.bak-*"))
    assert [copy.read_bytes() for copy in copies] == [damaged, damaged]
    repaired = path.read_bytes()
    done = await asyncio.to_thread(repair_file, str(path), Settings(), timeout_s=10)
    assert (done.changed, done.generation) == (False, 2)
    assert path.read_bytes() == repaired
    assert codes() == []


async def test_a_delete_that_dies_in_the_middle_leaves_a_file_and_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("HOLDFAST_STORE", str(state))
    path = await talk(state, "one")
    script = """
import os, sys
from holdfast import _points
from holdfast.cli import main
_points.install("delete.marked", lambda: os.kill(os.getpid(), 9))
main(["sessions", "delete", "main", "--yes"])
"""
    with processes(script, ()) as [dying]:
        assert dying.wait(WITHIN_S) == -signal.SIGKILL
    assert path.exists()
    async with holdfast.open(state, agent=ScriptedModel()) as hf:
        with pytest.raises(NotFoundError):
            await hf.session(KEY)
        assert (await (await hf.submit(KEY, "two")).outcome(30)).kind == "replied"
        assert (await hf.session(KEY)).transcript not in str(path)
    found = subprocess.run(
        [sys.executable, "-m", "holdfast", "sessions", "verify"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 0
    assert "orphan: its session was deleted" in found.stdout


async def test_a_message_that_races_a_delete_is_never_lost(tmp_path: Path) -> None:
    """Either it is seen, and nothing is deleted; or it begins a new session."""
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        assert (await (await hf.submit(KEY, "seed")).outcome(30)).kind == "replied"
        tender = tending(hf.store)
        for number in range(40):
            before = (await hf.session(KEY)).session_id
            barrier = threading.Barrier(2)

            def delete(barrier: threading.Barrier = barrier) -> str:
                barrier.wait(30)
                try:
                    return tender.delete(KEY, purge=False, timeout_s=30).session_id
                except SessionBusyError:
                    return "busy"

            racing = asyncio.create_task(asyncio.to_thread(delete))
            await asyncio.to_thread(barrier.wait, 30)
            receipt = await hf.submit(KEY, f"n{number}")
            deleted = await racing
            outcome = await receipt.outcome(30)
            assert outcome.kind == "replied", number
            after = await hf.session(KEY)
            turn = await hf.store.control.turn(receipt.turn_id)
            assert turn.session_id == after.session_id
            assert (deleted == "busy") == (after.session_id == before)
            finals = oracle.finals(oracle.read(tmp_path / after.transcript))
            assert finals[-1]["holdfast"]["turn"] == receipt.turn_id


async def test_a_message_between_the_rows_and_the_file_finds_a_new_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        marked.set()
        assert go_on.wait(30)

    monkeypatch.setitem(_points._hooks, "delete.marked", stop)
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        assert (await (await hf.submit(KEY, "one")).outcome(30)).kind == "replied"
        old = tmp_path / (await hf.session(KEY)).transcript
        tender = tending(hf.store)
        deleting = asyncio.create_task(
            asyncio.to_thread(tender.delete, KEY, purge=False, timeout_s=30)
        )
        assert await asyncio.to_thread(marked.wait, 30)
        outcome = await (await hf.submit(KEY, "two")).outcome(30)
        new = tmp_path / (await hf.session(KEY)).transcript
        assert old.exists()
        go_on.set()
        done = await deleting
    assert outcome.kind == "replied"
    assert (new.exists(), old.exists(), Path(str(done.moved_to)).exists()) == (
        True,
        False,
        True,
    )


async def test_of_two_that_import_under_one_key_one_is_told_so(tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_bytes(
        b'{"type":"session","version":3,"id":"s"}\n{"type":"x","id":"a","parentId":null}\n'
    )
    async with holdfast.open(tmp_path / "state", agent=ScriptedModel()) as hf:
        tender = tending(hf.store)
        for number in range(10):
            key = f"agent:main:k{number}"
            barrier = threading.Barrier(2)

            def bring(key: str = key, barrier: threading.Barrier = barrier) -> str:
                barrier.wait(30)
                try:
                    return tender.bring(str(source), key).session_id
                except BadRequestError:
                    return "taken"

            found = await asyncio.gather(asyncio.to_thread(bring), asyncio.to_thread(bring))
            assert set(found) == {"taken", (await hf.session(key)).session_id}
        files = list((tmp_path / "state" / "agents").rglob("*.jsonl*"))
        assert len(files) == 10, "the other one left nothing behind"


async def test_a_message_that_waits_gets_the_imported_history(tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_bytes(
        b'{"type":"session","version":3,"id":"s"}\n{"type":"message","id":"a","parentId":null,'
        b'"message":{"role":"user","content":"from before"},"holdfast":{"token":7}}\n'
    )
    state = tmp_path / "state"
    async with holdfast.open(state) as hf:  # Nobody here answers.
        turn = (await hf.submit(KEY, "now")).turn_id
        done = await asyncio.to_thread(tending(hf.store).bring, str(source), KEY)
        assert done.session_id == (await hf.session(KEY)).session_id
    model = ScriptedModel()
    async with holdfast.open(state, agent=model) as hf:
        assert (await (await hf.receipt(turn)).outcome(30)).kind == "replied"
        entries = oracle.read(state / (await hf.session(KEY)).transcript)
    assert [oracle.text_of(e) for e in entries[:2]] == ["from before", "now"]
    assert entries[1]["holdfast"]["token"] > 7, "no token of the other store is given again"
    assert "from before" in str(model.prompts[0].history)
