"""
Bad input gets one clear, typed error; and what was accepted before stays accepted.

Each case hands the door something it must refuse, with a message waiting in the queue, and
looks afterwards: the message is still there, and nothing else is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import errors
from holdfast._core.settings import Settings
from holdfast.backends.files.store import FilesStore
from holdfast.backends.files.transcript.transcripts import read_tree
from holdfast.testing import ScriptedModel
from support import oracle

KEY = "agent:main:main"
HEADER = b'{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}\n'


async def refusal(call: Any) -> errors.HoldfastError:
    try:
        await call
    except errors.HoldfastError as error:
        assert str(error), "an error without words"
        assert "\n" not in str(error)
        return error
    raise AssertionError("it was accepted")


SUBMISSIONS: list[tuple[str, dict[str, Any], type[errors.HoldfastError], str]] = [
    ("separator", {"key": "agent:main:../x"}, errors.BadKeyError, "'/'"),
    ("NUL", {"key": "agent:main:a\0b"}, errors.BadKeyError, "not allowed"),
    (
        "300 characters",
        {"key": "agent:main:" + "x" * 300},
        errors.BadKeyError,
        "311 characters",
    ),
    ("grammar", {"key": "telegram:ann"}, errors.BadKeyError, "agent:"),
    ("unknown agent", {"key": "agent:nobody:main"}, errors.UnknownAgentError, "main"),
    ("unknown lane", {"lane": "fast"}, errors.UnknownLaneError, "heartbeat"),
    (
        "unknown policy",
        {"policy": "yolo"},
        errors.UnknownPolicyError,
        "enqueue, collect, steer",
    ),
    ("too long", {"text": "é" * 600_000}, errors.TooLargeError, "1200000"),
    ("empty", {"text": " \n"}, errors.BadRequestError, "empty"),
    ("surrogate", {"text": "\ud800"}, errors.BadRequestError, "Unicode"),
    ("source", {"source": "a\nb"}, errors.BadRequestError, "source"),
    ("idempotency key", {"idempotency_key": ""}, errors.BadRequestError, "idempotency"),
]


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [case[1:] for case in SUBMISSIONS],
    ids=[c[0] for c in SUBMISSIONS],
)
async def test_a_bad_message_is_refused_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], kind: type[errors.HoldfastError], word: str
) -> None:
    async with holdfast.open(tmp_path) as hf:
        kept = await hf.submit(KEY, "accepted before")
        asked = {"key": KEY, "text": "hello", **changes}
        error = await refusal(hf.submit(asked.pop("key"), asked.pop("text"), **asked))
        assert type(error) is kind
        assert word in str(error)
        assert isinstance(error, errors.InputError)
        assert [turn.turn_id for turn in await hf.store.control.turns()] == [kept.turn_id]


async def test_an_idempotency_key_with_another_text_is_a_conflict(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        first = await hf.submit(KEY, "pay 5", idempotency_key="m-1")
        again = await hf.submit(KEY, "pay 5", idempotency_key="m-1")
        assert (again.turn_id, again.fresh) == (first.turn_id, False)
        error = await refusal(hf.submit(KEY, "pay 500", idempotency_key="m-1"))
        assert isinstance(error, errors.IdempotencyConflictError)
        assert error.turn_id == first.turn_id


async def test_at_the_default_bound_the_overflow_is_refused_without_a_row(
    tmp_path: Path,
) -> None:
    async with holdfast.open(tmp_path) as hf:
        got = await asyncio.gather(
            *(hf.submit(KEY, str(n)) for n in range(205)), return_exceptions=True
        )
        refused = [each for each in got if isinstance(each, errors.QueueFullError)]
        assert len(refused) == 5
        assert refused[0].limit == 200
        assert len(await hf.store.control.turns()) == 200


async def test_reject_refuses_a_busy_session(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        await hf.submit(KEY, "first", policy="reject")
        assert isinstance(
            await refusal(hf.submit(KEY, "second", policy="reject")), errors.RejectedError
        )


# --------------------------------------------------------------------------- transcripts


async def broken(tmp_path: Path, breaks: Any) -> tuple[holdfast.Outcome, Path]:
    """Answer one message, break the transcript, send another; its outcome."""
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        await (await hf.submit(KEY, "before")).outcome(10)
        path = oracle.only_transcript(tmp_path)
        breaks(path)
        return await (await hf.submit(KEY, "after")).outcome(10), path


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_outside(path: Path) -> None:
    outside = path.parents[4] / "outside.jsonl"
    path.rename(outside)
    path.symlink_to(outside)


def drop_header(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble_header(path: Path) -> None:
    path.write_bytes(b"\x00\xff not json\n" + path.read_bytes())


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (make_directory, "s a directory"),
        (link_outside, "out of the state directory"),
        (drop_header, "not a session header"),
        (empty, "header is missing"),
        (garble_header, "not a JSON object"),
        (Path.unlink, "it is gone"),
    ],
    ids=["directory", "symlink", "no header", "empty", "garbled header", "removed"],
)
async def test_a_broken_transcript_is_named_and_not_touched(
    tmp_path: Path, breaks: Any, words: str
) -> None:
    state = tmp_path / "state"
    outcome, path = await broken(state, breaks)
    assert (outcome.kind, outcome.reason) == ("failed", "bad_transcript")
    assert outcome.hint is not None
    assert words in outcome.hint
    assert str(path) in outcome.hint
    if "header" in words:
        assert f"{path}:1:" in outcome.hint, "the line is not named"
    async with holdfast.open(state) as hf:
        kinds = [turn.outcome for turn in await hf.store.control.turns()]
    assert kinds == ["replied", "failed"], "something accepted is gone"


def test_a_file_that_is_no_transcript_is_refused_by_line(tmp_path: Path) -> None:
    for name, data in {"a": b"{}\n", "b": b"[1]\n", "c": HEADER.replace(b"3", b"2")}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(data)
        with pytest.raises(errors.BadTranscriptError) as caught:
            read_tree(str(path))
        assert caught.value.line == 1
        assert caught.value.path == str(path)


def test_an_unreadable_transcript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_bytes(HEADER)
    path.chmod(0)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    code = (
        "import os, sys; os.geteuid() or os.setuid(65534)\n"
        "from holdfast.backends.files.transcript.transcripts import read_tree\n"
        "from holdfast.errors import BadTranscriptError\n"
        "try: read_tree(sys.argv[1])\n"
        "except BadTranscriptError as error: print(error)\n"
    )
    run = as_anybody(code, str(path))
    assert "cannot be read" in run.stdout, run.stderr


# ----------------------------------------------------------------------- state directories


def as_anybody(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Import as ourselves (our environment may be private); root then becomes nobody."""
    prelude = (
        "import holdfast, holdfast._assemble, holdfast.backends.files.store\n"
        "import holdfast.backends.files.transcript.transcripts, holdfast._runtime.runtime\n"
        "import encodings.idna, concurrent.futures.thread, asyncio.runners\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_read_only_state_directory_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    for directory in tmp_path.parents[:2]:
        directory.chmod(0o755)
    code = (
        "import os, sys; os.geteuid() or os.setuid(65534)\n"
        "from holdfast._core.settings import Settings\n"
        "from holdfast.backends.files.store import FilesStore\n"
        "try: FilesStore(sys.argv[1], Settings())\n"
        "except holdfast.errors.ReadOnlyError as error: print(error.exit_code, error)\n"
    )
    run = as_anybody(code, str(tmp_path))
    assert run.stdout.startswith("3 "), run.stderr
    assert str(tmp_path) in run.stdout


def test_a_file_is_no_state_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.StoreError, match="not a directory"):
        FilesStore(str(tmp_path / "file"), Settings())


async def test_a_newer_store_is_not_touched(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path):
        pass
    newer = "PRAGMA user_version = 99"
    subprocess.run(
        [sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])",
         str(tmp_path / "control.db"), newer], check=True,
    )  # fmt: skip
    with pytest.raises(errors.NewerSchemaError) as caught:
        async with holdfast.open(tmp_path):
            pass
    assert caught.value.found == 99


async def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"this is not a database, it only has its name" * 100)
    with pytest.raises(errors.StoreError, match="not a database"):
        async with holdfast.open(tmp_path):
            pass


@pytest.mark.parametrize("where", ["postgresql://localhost/x", "mysql://x"])
async def test_stores_of_later_versions_are_refused(where: str) -> None:
    with pytest.raises(errors.BadSettingError, match="state directory"):
        async with holdfast.open(where):
            pass


async def test_a_bad_setting_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettingError, match=r"turn\.lease_ms"):
        async with holdfast.open(tmp_path / "state", settings={"turn.lease_ms": "soon"}):
            pass
    assert not (tmp_path / "state").exists()


# --------------------------------------------------------------------------------- forks


async def test_descriptors_do_not_outlive_an_exec(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        await (await hf.submit(KEY, "hello")).outcome(10)
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except FileNotFoundError:
                continue
            if str(tmp_path) in target:
                assert not os.get_inheritable(int(fd)), target


async def test_a_forked_child_holds_nothing_and_its_parent_loses_nothing(
    tmp_path: Path,
) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        await (await hf.submit(KEY, "before")).outcome(10)
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(hf))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the child could use its parent's store"
        assert (await (await hf.submit(KEY, "after")).outcome(10)).kind == "replied"
    answers = oracle.check_answers(oracle.read(oracle.only_transcript(tmp_path)))
    assert list(answers) == ["before", "after"]


def _in_the_child(hf: holdfast.Holdfast) -> int:
    signal.alarm(20)
    try:
        hf.submit(KEY, "from the child").send(None)
    except errors.ForkedError:
        pass
    except BaseException:
        return 2
    else:
        return 3
    try:
        hf.store.control.newest_token("any")  # type: ignore[arg-type]
    except errors.ForkedError:
        return 0
    return 4


async def test_nobody_else_can_read_what_is_stored(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
            await (await hf.submit(KEY, "secret")).outcome(10)
            modes = {
                str(path.relative_to(tmp_path)): path.stat().st_mode & 0o077
                for path in tmp_path.rglob("*")
                if path.is_file()
            }
    finally:
        os.umask(before)
    assert {name: mode for name, mode in modes.items() if mode} == {}
    assert len(modes) >= 6
