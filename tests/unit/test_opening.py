"""A long transcript under our write lock: what a turn needs of it is read from its end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from holdfast._core import jsonl
from holdfast._runtime import booking
from holdfast.backends.files import fs
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript import digest, held, loaded
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.backends.files.transcript.loaded import Reading
from holdfast.errors import BadTranscriptError

HEADER = {"type": "session", "version": 3, "id": "s"}
COUNT, KEPT = 4000, 3900
TURN = "01890000-0000-7000-8000-000000000001"


def said(number: int, parent: str | None = None, **more: Any) -> dict[str, Any]:
    role = "assistant" if number % 2 else "user"
    message = {"role": role, "content": f"text {number} " + "x" * 300}
    parent = parent or (f"m{number - 1}" if number else None)
    return {
        "type": "message", "id": f"m{number}", "parentId": parent, "message": message, **more,
    }  # fmt: skip


def ended(turn: str, entry_id: str, parent: str) -> dict[str, Any]:
    return {
        "type": "custom", "id": entry_id, "parentId": parent, "appendMode": "side",
        "customType": "holdfast:turn-ended", "data": {"outcome": "failed", "reason": "r"},
        "holdfast": {"turn": turn, "attempt": 1, "token": 1, "seq": 1},
    }  # fmt: skip


def content() -> list[dict[str, Any]]:
    entries = [HEADER, *(said(n) for n in range(COUNT))]
    entries[KEPT + 2] = {
        **said(KEPT + 1), "type": "compaction", "firstKeptEntryId": f"m{KEPT}", "summary": "sum",
    }  # fmt: skip
    entries.insert(1000, ended(TURN, "early", "m5"))
    return entries


@pytest.fixture
def long(tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    path.write_bytes(jsonl.encode(content()))
    assert path.stat().st_size > 8 * held.SHORT_BYTES
    return path


class Reads:
    """What was read, and decoded, since `clear`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = self.lines = 0
        pread, decode = fs.table.pread, jsonl._object

        def counted(fd: int, size: int, at: int) -> bytes:
            data = pread(fd, size, at)
            self.bytes += len(data)
            return data

        def decoded(raw: bytes) -> Any:
            self.lines += 1
            return decode(raw)

        monkeypatch.setattr(digest, "later", lambda *_, **__: None)
        monkeypatch.setattr(fs.table, "pread", counted)
        monkeypatch.setattr(jsonl, "_object", decoded)

    def clear(self) -> None:
        self.bytes = self.lines = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@asynccontextmanager
async def holding(path: Path, reading: Reading | None = None) -> AsyncIterator[HeldFile]:
    found = HeldFile(await WriteLock(path).acquire(), reading or Reading())
    try:
        yield found
    finally:
        found.release()


async def check(path: Path, reading: Reading) -> None:
    """What this process believes is what one says who reads all of it."""
    async with holding(path) as fresh:
        tree = fresh.load()
    async with holding(path, reading) as found:
        branch = found.branch()
        assert branch.leaf == tree.leaf == found.leaf() == found.mark().leaf
        assert branch.history() == tree.history()
        assert found.about(TURN).ends == tree.ends


async def test_only_what_a_model_gets_to_see_is_decoded(long: Path, reads: Reads) -> None:
    async with holding(long) as found:
        history = found.branch().history()
    assert len(history) == COUNT - KEPT
    assert history[0]["summary"] == "sum"
    assert reads.lines <= COUNT - KEPT + 5
    assert reads.bytes < 3 * 128 * 1024


async def test_the_next_hold_reads_only_what_is_new(long: Path, reads: Reads) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        found.append([said(COUNT, found.branch().leaf)], final=False)
    reads.clear()
    async with holding(long, reading) as found:
        assert found.branch().leaf == f"m{COUNT}"
        found.append([said(COUNT + 1, f"m{COUNT}")], final=False)
        assert found.branch().leaf == f"m{COUNT + 1}"
    assert reads.lines == 2
    assert reads.bytes < loaded.INLINE_BYTES
    await check(long, reading)


async def test_a_turn_that_waits_to_run_for_the_first_time_looks_at_the_end_only(
    long: Path, reads: Reads
) -> None:
    end = long.stat().st_size
    async with holding(long) as found:
        found.append([ended(TURN, "late", "m5")], final=False)
        reads.clear()
        left = found.about(TURN, end)
        assert left.ends[TURN].entry_id == "late"
        assert list(left.entries) == ["late"]
        assert reads.bytes < 64 * 1024
        reads.clear()
        assert found.about(TURN).ends[TURN].entry_id == "early"
        assert reads.lines == 3, "lines were decoded that do not say its name"


@pytest.mark.parametrize("since", [-1, 17, 10**9])
async def test_an_offset_where_no_line_begins_hides_nothing(long: Path, since: int) -> None:
    async with holding(long) as found:
        assert found.about(TURN, since).ends[TURN].entry_id == "early"


async def test_what_is_remembered_of_a_long_file_is_bounded(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        found.branch()
    [known] = reading._known.values()
    assert known.branch is not None
    assert known.tree is None
    assert len(known.branch.kept) == COUNT - KEPT
    monkeypatch.setattr(loaded, "KEPT_BYTES_MAX", 20_000)
    await check(long, reading)
    [known] = reading._known.values()
    assert (known.branch, known.tree) == (None, None)
    await check(long, reading)


GROWTH: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "an answer": lambda: [said(COUNT)],
    "beside": lambda: [said(COUNT, f"m{COUNT - 1}", appendMode="side")],
    "a rename": lambda: [{"type": "session_info", "id": "i", "parentId": None}],
    "a branch in what is kept": lambda: [said(COUNT, f"m{COUNT - 9}"), said(COUNT + 1)],
    "a branch above it": lambda: [said(COUNT, "m9"), said(COUNT + 1)],
    "back": lambda: [
        {"type": "leaf", "id": "c", "parentId": "x", "targetId": f"m{COUNT - 3}"},
        said(COUNT, f"m{COUNT - 3}"),
    ],
    "back above the compaction": lambda: [
        {"type": "leaf", "id": "c", "parentId": "x", "targetId": f"m{KEPT}"},
        said(COUNT, f"m{KEPT}"),
    ],
    "back, and nothing said since": lambda: [
        {"type": "leaf", "id": "c", "parentId": "x", "targetId": f"m{COUNT - 3}"}
    ],
    "a parent that comes later": lambda: [said(COUNT, "later"), {**said(3), "id": "later"}],
    "back to the top": lambda: [{"type": "leaf", "id": "c", "parentId": "x", "targetId": "m3"}],
    "a compaction": lambda: [
        {**said(COUNT), "type": "compaction", "firstKeptEntryId": f"m{COUNT - 5}"},
        said(COUNT + 1),
    ],
    "a compaction of less": lambda: [
        {**said(COUNT), "type": "compaction", "firstKeptEntryId": "m7"}
    ],
    "the same again": lambda: [said(COUNT - 4)],
    "a new root": lambda: [{**said(COUNT), "parentId": None}, said(COUNT + 1)],
    "much": lambda: [said(n) for n in range(COUNT, COUNT + 900)],
}


@pytest.mark.parametrize("torn", [b"", b'{"type":"mess'], ids=["whole", "torn"])
@pytest.mark.parametrize("name", GROWTH)
@pytest.mark.parametrize("whole", [True, False], ids=["decoded before", "read from the end"])
async def test_whatever_grows_behind_what_was_read_is_read_right(
    long: Path, name: str, torn: bytes, whole: bool
) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        if whole:
            found.load()
        found.branch()
    with long.open("ab") as file:
        file.write(jsonl.encode(GROWTH[name]()) + torn)
    await check(long, reading)
    await check(long, reading)
    await check(long, Reading())


async def test_a_digest_that_is_made_meanwhile_costs_nothing_that_was_known(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        found.branch()
        mark = found.mark()
    assert mark.proof is not None
    mark.proof.made.result(20)
    with long.open("ab") as file:
        file.write(jsonl.encode([said(COUNT), said(COUNT + 1)]))
    reads = Reads(monkeypatch)
    async with holding(long, reading) as found:
        branch = found.branch()
        assert len(branch.history()) == COUNT - KEPT + 2
        assert found.mark().digest is not None
    assert reads.lines == 2
    await check(long, reading)


async def test_another_file_in_its_place_is_read_anew(long: Path) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        found.branch()
    other = long.with_suffix(".new")
    other.write_bytes(jsonl.encode([*content(), said(COUNT), said(COUNT + 1)]))
    os.replace(other, long)
    await check(long, reading)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "first", [b"", b"not json\n", b'{"type":"session","version":2,"id":"s"}\n', b"[" * 9000]
)
async def test_a_long_file_that_is_no_transcript_is_refused(
    long: Path, first: bytes, known: bool
) -> None:
    """A rewrite may have kept its end: whoever asks about one turn hears of it as well."""
    lines = long.read_bytes().split(b"\n", 1)[1]
    reading = Reading()
    if known:
        async with holding(long, reading) as found:
            found.branch()
    long.write_bytes(first + lines)
    for ask in (HeldFile.branch, lambda found: found.about(TURN)):
        async with holding(long, reading) as found:
            with pytest.raises(BadTranscriptError):
                ask(found)


async def test_a_line_longer_than_what_is_read_at_once_is_read(long: Path) -> None:
    big = said(COUNT)
    big["message"]["content"] = "y" * 3_000_000
    with long.open("ab") as file:
        file.write(jsonl.encode([big, ended(TURN, "late", "m5"), said(COUNT + 1)]))
    await check(long, Reading())


async def test_a_mark_that_was_found_to_stand_is_left_again(long: Path, reads: Reads) -> None:
    """Nothing is read for it; and what a stranger writes under our lock is found all the same."""
    reading = Reading()
    async with holding(long, reading) as found:
        found.load()
        mark = found.mark()
    async with holding(long, reading) as found:
        assert (await found.advance(mark)).kind == "same"
        reads.clear()
        assert found.leaf() == f"m{COUNT - 1}"
        assert found.mark() is mark
        assert reads.bytes == 0
        with long.open("ab") as file:  # It asks nobody.
            file.write(jsonl.encode([said(COUNT)]))
        assert found.leaf() == f"m{COUNT}"
        again = found.mark()
    async with holding(long, reading) as found:
        change = await found.advance(again)
        assert (change.kind, [each["id"] for each in change.entries]) == (
            "appended", [f"m{COUNT}"],
        )  # fmt: skip
        new = found.mark()
        assert new.leaf == f"m{COUNT}"
    async with holding(long, reading) as found:
        assert (await found.advance(new)).kind == "same"
        found.append([said(COUNT + 1)], final=False)
        assert found.leaf() == found.mark().leaf == f"m{COUNT + 1}"


async def test_a_mark_that_stood_for_a_moment_is_not_left_again(long: Path) -> None:
    async with holding(long) as found:
        mark = found.mark()
        assert (await found.advance(mark)).kind == "same"
        with long.open("ab") as file:
            file.write(jsonl.encode([said(COUNT)]))
        assert (await found.advance(mark)).kind == "appended"
        assert found.mark().leaf == f"m{COUNT}", "what was told once would be told again"


async def test_a_mark_whose_digest_was_given_up_is_not_left_again(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading()
    with monkeypatch.context() as patch:
        patch.setattr(digest.Job, "_read", lambda _: None)
        async with holding(long, reading) as found:
            mark = found.mark()
        assert mark.proof.made.result(20) is None
    async with holding(long, reading) as found:
        assert (await found.advance(mark)).kind == "same"
        again = found.mark()
    assert again.proof.made.result(20) is not None
    os.utime(long)
    async with holding(long, reading) as found:
        assert (await found.advance(again)).kind == "same"


@pytest.mark.parametrize(
    ("again", "finished", "hosted", "since"),
    [
        (None, None, False, 77),
        ("owner_died", None, False, 0),
        ("drained", None, False, 0),
        (None, b"[]", False, 0),
        (None, None, True, 0),
    ],
)
def test_whoever_has_run_before_is_looked_for_everywhere(
    again: str | None, finished: bytes | None, hosted: bool, since: int
) -> None:
    """Another turn may have run and committed behind what it has left."""
    held_file, leased = mock.Mock(), mock.Mock(again=again, finished=finished)
    leased.session.end_offset, leased.turn.hosted = 77, hosted
    booking.left_by(held_file, leased)
    held_file.about.assert_called_once_with(leased.turn.turn_id, since)


async def test_a_leaf_entry_that_points_a_little_further_up_does_not_cost_the_whole(
    long: Path, reads: Reads
) -> None:
    with long.open("ab") as file:
        file.write(jsonl.encode(GROWTH["back, and nothing said since"]()))
    async with holding(long) as found:
        assert found.branch().leaf == f"m{COUNT - 3}"
    assert reads.lines < 2 * (COUNT - KEPT)
