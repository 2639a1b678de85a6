"""Transcripts repaired, taken elsewhere, brought in and taken away, as a user does it."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli import main
from holdfast.testing import ScriptedModel
from support import oracle

KEY = "agent:main:main"
OTHER = "agent:main:other"


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_STORE", str(tmp_path / "state"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def talk(state: Path, *texts: str, key: str = KEY) -> Path:
    """Answered messages; where their transcript is."""
    async with holdfast.open(state, agent=ScriptedModel()) as hf:
        for text in texts:
            outcome = await (await hf.submit(key, text)).outcome(30)
            assert outcome.kind == "replied"
        session = await hf.session(key)
        return state / session.transcript


def asked(*words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """Run a command with --json; its answer."""
    capsys.readouterr()
    found = main([*words, "--json"])
    out, err = capsys.readouterr()
    assert found == code, out + err
    return json.loads(out)


def codes(told: Any) -> list[str]:
    return [problem["code"] for file in told["files"] for problem in file["problems"]]


def digest(directory: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# ------------------------------------------------------------------------------ repair


async def test_a_damaged_session_is_refused_by_name_repaired_and_goes_on(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await talk(state, "one", "two")
    whole = path.read_bytes()
    path.write_bytes(b"rubbish\n" + whole.partition(b"\n")[2] + b"{torn")
    damaged = path.read_bytes()

    async with holdfast.open(state, agent=ScriptedModel()) as hf:
        outcome = await (await hf.submit(KEY, "three")).outcome(30)
        hint = (await hf.store.control.turns())[-1].hint
    assert (outcome.kind, outcome.reason) == ("failed", "bad_transcript")
    assert f"holdfast sessions repair {path}" in str(hint)
    assert path.read_bytes() == damaged

    before = digest(state)
    would = asked("sessions", "repair", KEY, "--dry-run", capsys=capsys)
    assert digest(state) == before, "a dry run changes no byte"
    done = asked("sessions", "repair", str(path), capsys=capsys)
    assert done["counts"] == would["counts"]
    assert done["counts"] == {"no_header": 1, "torn_tail": 1, "unparsable": 1}
    assert (done["changed"], would["changed"], would["copy"]) == (True, True, None)
    assert Path(done["copy"]).read_bytes() == damaged
    copied = damaged.split(b"\n")
    assert [copied[n - 1] for n in done["moved_out"]] == [b"rubbish", b"{torn"]
    assert (done["generation"], done["remaining"]) == (2, [])
    assert asked("sessions", "show", KEY, capsys=capsys)["generation"] == 2
    assert asked("sessions", "verify", capsys=capsys)["ok"]
    header = json.loads(path.read_bytes().splitlines()[0])
    assert f"{header['id']}.jsonl" == path.name
    for line in whole.splitlines()[1:]:
        assert line in path.read_bytes().splitlines()

    await talk(state, "four")
    assert len(oracle.finals(oracle.read(path))) == 3
    assert asked("sessions", "verify", capsys=capsys)["ok"]
    again = asked("sessions", "repair", KEY, capsys=capsys)
    assert (again["changed"], again["copy"], again["generation"]) == (False, None, 2)


def test_a_file_of_no_store_is_repaired_through_its_symlink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_bytes(b'{"type":"message","id":"a","parentId":null}\n')
    real.chmod(0o640)
    link.symlink_to(real)
    done = asked("sessions", "repair", str(link), capsys=capsys)
    assert (done["path"], done["generation"]) == (str(real), None)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert json.loads(real.read_bytes().splitlines()[0])["id"] == "real"
    assert sorted(p.name for p in tmp_path.iterdir() if ".bak-" in p.name) == [
        Path(done["copy"]).name
    ]


def test_what_cannot_be_repaired_is_named_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = tmp_path / "newer.jsonl"
    newer.write_bytes(b'{"type":"session","version":4,"id":"x"}\n{torn')
    data = newer.read_bytes()
    told = asked("sessions", "repair", str(newer), capsys=capsys, code=3)
    assert told["error"]["code"] == "bad_transcript"
    assert "version 4" in told["error"]["message"]
    assert newer.read_bytes() == data
    assert not list(tmp_path.glob("*.bak-*"))
    gone = asked("sessions", "repair", str(tmp_path / "gone.jsonl"), capsys=capsys, code=2)
    assert gone["error"]["code"] == "not_found"
    assert not (tmp_path / "gone.jsonl").exists()
    blind = tmp_path / "blind.jsonl"
    stamp = {"turn": "t", "token": 1, "final": True}
    blind.write_text(
        '{"type":"session","version":3,"id":"x"}\n'
        + json.dumps({"type": "message", "id": "f", "parentId": None, "holdfast": stamp})
        + "\n"
    )
    told = asked("sessions", "repair", str(blind), capsys=capsys, code=1)
    assert [p["code"] for p in told["remaining"]] == ["final_without_question"]
    assert told["changed"] is False


async def test_a_prompt_window_that_is_open_sees_a_repair_as_rewritten(state: Path) -> None:
    path = await talk(state, "one")
    with path.open("ab") as file:
        file.write(b"rubbish\n")
    async with holdfast.open(state) as hf:
        session = await hf.session(KEY)
        how: Any = {"timeout_s": 5, "token": None, "run_id": None, "lane": None}
        held = await hf.store.transcripts.acquire(session, **how)
        mark = held.mark()
        held.release()
        assert main(["sessions", "repair", KEY]) == 0
        held = await hf.store.transcripts.acquire(session, **how)
        change = await held.advance(mark)
        held.release()
    assert change.kind == "rewritten"


# ------------------------------------------------------------------------------ verify


async def test_verify_tells_what_the_store_knows_better(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await talk(state, "one", "two")
    kept = path.read_bytes()
    lines = kept.splitlines(keepends=True)

    path.write_bytes(b"".join(lines[:-1]))  # The last reply is cut off; its bytes are kept.
    told = asked("sessions", "verify", capsys=capsys, code=1)
    assert codes(told) == ["cut"]
    assert "1 turn(s)" in told["files"][0]["problems"][0]["detail"]
    done = asked("sessions", "repair", KEY, capsys=capsys)
    assert done["counts"] == {"restored": 1}
    assert path.read_bytes().startswith(kept)
    assert asked("sessions", "verify", capsys=capsys)["ok"]

    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))  # Somebody takes the first reply out.
    assert set(codes(asked("sessions", "verify", capsys=capsys, code=1))) == {
        "shrunk", "lost_final", "unknown_parent",
    }  # fmt: skip
    path.unlink()
    assert codes(asked("sessions", "verify", capsys=capsys, code=1)) == ["missing"]


async def test_a_file_that_no_session_names_is_a_note_and_is_checked_too(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await talk(state, "one")
    stray = path.with_name("stray.jsonl")
    stray.write_bytes(path.read_bytes())
    told = asked("sessions", "verify", capsys=capsys)
    assert told["ok"]
    [file] = [file for file in told["files"] if file["path"] == str(stray)]
    assert [note["code"] for note in file["notes"]] == ["orphan"]
    assert set(file) == {"path", "entries", "problems", "notes"}
    stray.write_bytes(b"rubbish\n")
    assert codes(asked("sessions", "verify", capsys=capsys, code=1)) == ["no_header"]
    if os.geteuid():
        stray.chmod(0)
        assert codes(asked("sessions", "verify", capsys=capsys, code=1)) == ["unreadable"]


# ---------------------------------------------------------------------- export, import


async def test_an_export_is_the_transcript_and_comes_back_under_another_key(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path = await talk(state, "one", "two")
    async with holdfast.open(state) as hf:
        await hf.add_alias("agent:main:nick", KEY)
    out = tmp_path / "out.jsonl"
    told = asked("sessions", "export", KEY, "--out", str(out), capsys=capsys)
    assert told["bytes"] == out.stat().st_size
    header, *rest = out.read_bytes().splitlines()
    assert rest == path.read_bytes().splitlines()[1:], "every other line as it stands"
    facts = json.loads(header)["holdfast"]["export"]
    assert (facts["keys"], facts["aliases"]) == ([KEY], ["agent:main:nick"])
    assert [turn["outcome"] for turn in facts["turns"]] == ["replied", "replied"]
    assert asked("sessions", "verify", str(out), capsys=capsys)["ok"]
    taken = asked("sessions", "export", KEY, "--out", str(out), capsys=capsys, code=2)
    assert "is there already" in taken["error"]["message"]

    refused = asked("sessions", "import", str(out), capsys=capsys, code=2)
    assert "has a conversation already" in refused["error"]["message"]
    done = asked("sessions", "import", str(out), "--key", OTHER, capsys=capsys)
    assert (done["entries"], done["migrated_from"]) == (4, 3)
    assert Path(done["path"]).read_bytes().splitlines()[1:] == rest
    assert asked("sessions", "verify", capsys=capsys)["ok"]

    elsewhere = tmp_path / "elsewhere"
    await talk(elsewhere, "unrelated", key="agent:main:unrelated")
    monkeypatch.setenv("HOLDFAST_STORE", str(elsewhere))
    assert asked("sessions", "import", str(out), capsys=capsys)["session_key"] == KEY
    model = ScriptedModel()
    async with holdfast.open(elsewhere, agent=model) as hf:
        outcome = await (await hf.submit(KEY, "three")).outcome(30)
        texts = [oracle.text_of(e) for e in (await hf.transcript(KEY)).path()]
    assert outcome.kind == "replied"
    assert texts[0] == "one"
    assert texts[4] == "three"
    assert len(texts) == 6, "it goes on from what it brought along"
    assert asked("sessions", "verify", capsys=capsys)["ok"]


async def test_markdown_is_for_people(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await talk(state, "what about `code`?")
    capsys.readouterr()
    assert main(["sessions", "export", KEY, "--format", "md"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# {KEY}\n")
    assert "## User" in out
    assert "what about `code`?" in out
    assert "## Assistant" in out


HOOK = {"type": "message", "message": {"role": "hookMessage", "content": "x", "n": 1.0}}


async def test_a_transcript_of_the_founding_systems_first_versions_is_migrated(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await talk(state, "unrelated", key=OTHER)
    old = tmp_path / "Old Talk.jsonl"
    user = {"type": "message", "message": {"role": "user", "content": "hi"}}
    old.write_text("".join(json.dumps(e) + "\n" for e in (
        {"type": "session", "id": "abc", "timestamp": "t", "cwd": "/"}, user, HOOK, user)))  # fmt: skip
    bytes_ = old.read_bytes()
    done = asked("sessions", "import", str(old), capsys=capsys)
    assert (done["session_key"], done["migrated_from"]) == ("agent:main:imported:old-talk", 1)
    assert old.read_bytes() == bytes_
    header, *entries = [json.loads(e) for e in Path(done["path"]).read_bytes().splitlines()]
    assert header["version"] == 3
    assert header["id"] == done["session_id"]
    assert header["holdfast"]["imported"]["session"] == "abc"
    assert [e["parentId"] for e in entries] == [None, entries[0]["id"], entries[1]["id"]]
    assert entries[1]["message"] == {"role": "custom", "content": "x", "n": 1.0}
    assert asked("sessions", "verify", capsys=capsys)["ok"]


async def test_what_is_damaged_or_being_written_is_not_brought_in(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await talk(state, "one", key=OTHER)
    before = digest(state / "agents")
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(path.read_bytes() + b"rubbish\n")
    told = asked("sessions", "import", str(bad), capsys=capsys, code=3)
    assert told["error"]["line"] == 4
    assert f"sessions repair {bad}" in told["error"]["hint"]
    bad.write_bytes(path.read_bytes() + b'{"torn')
    asked("sessions", "import", str(bad), capsys=capsys, code=3)

    live = tmp_path / "live.jsonl"
    live.write_bytes(path.read_bytes())
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    lock = {"pid": os.getpid(), "createdAt": "2026-06-01T00:00:00.000Z", "starttime": start}
    (tmp_path / "live.jsonl.lock").write_text(json.dumps(lock))
    told = asked("sessions", "import", str(live), capsys=capsys, code=4)
    assert told["error"]["code"] == "lock_stale"
    assert digest(state / "agents") == before, "nothing was left behind"
    (tmp_path / "live.jsonl.lock").write_text(json.dumps({**lock, "pid": 2**22 + 1}))
    asked("sessions", "import", str(live), "--key", "agent:main:live", capsys=capsys)


# ------------------------------------------------------------------------------ delete


async def test_a_deleted_session_is_gone_its_turns_stay_and_the_key_begins_anew(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await talk(state, "one")
    kept = path.read_bytes()
    told = asked("sessions", "delete", KEY, capsys=capsys, code=2)
    assert "--yes" in told["error"]["hint"]
    done = asked("sessions", "delete", KEY, "--yes", capsys=capsys)
    assert Path(done["moved_to"]).read_bytes() == kept
    assert not [p for p in path.parent.iterdir() if p.name != Path(done["moved_to"]).name]
    assert asked("sessions", "list", capsys=capsys)["sessions"] == []
    asked("sessions", "show", KEY, capsys=capsys, code=2)
    [turn] = asked("turns", "list", capsys=capsys)["turns"]
    assert (turn["outcome"], turn["text"]) == ("replied", "one")
    new = await talk(state, "two")
    assert new.name != path.name
    assert asked("sessions", "verify", capsys=capsys)["ok"]
    back = asked(
        "sessions", "import", done["moved_to"], "--key", "agent:main:back", capsys=capsys
    )
    assert back["entries"] == 2


async def test_purging_leaves_no_text_behind(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await talk(state, "a-secret-word")
    with path.open("ab") as file:
        file.write(b"rubbish\n")
    asked("sessions", "repair", KEY, capsys=capsys)
    done = asked("sessions", "delete", KEY, "--yes", "--purge", capsys=capsys)
    assert done["moved_to"] is None
    assert list(path.parent.iterdir()) == []
    [turn] = asked("turns", "list", capsys=capsys)["turns"]
    assert (turn["outcome"], turn["text"]) == ("replied", "")


async def test_a_session_with_a_waiting_turn_is_deleted_only_with_cancel(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await talk(state, "one")
    async with holdfast.open(state) as hf:  # Nobody here answers.
        turn = (await hf.submit(KEY, "two")).turn_id
    told = asked("sessions", "delete", KEY, "--yes", capsys=capsys, code=4)
    assert told["error"]["code"] == "session_busy"
    assert told["error"]["turns"] == [turn]
    assert asked("sessions", "verify", capsys=capsys)["ok"]
    child = subprocess.run(
        [sys.executable, "-m", "holdfast", "sessions", "delete", KEY, "-y", "--cancel"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    last = asked("turns", "list", capsys=capsys)["turns"][-1]
    assert (last["turn_id"], last["outcome"]) == (turn, "cancelled")


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 130), (b"y\n", 0)])
async def test_on_a_terminal_one_is_asked(state: Path, answer: bytes, code: int) -> None:
    path = await talk(state, "one")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "sessions", "delete", KEY],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    _, err = child.communicate(timeout=60)
    os.close(ours)
    assert child.returncode == code, err
    assert b"Delete agent:main:main (1 turns)" in err
    assert path.exists() == bool(code)
