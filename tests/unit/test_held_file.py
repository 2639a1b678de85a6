"""A transcript under our write lock: what it knows without reading all of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast._core import fence, jsonl, verify
from holdfast.backends.files import fs
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript import digest, loaded
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.backends.files.transcript.loaded import Reading
from holdfast.types import Change, Mark

PAST_NS = 1_000_000_000
HEADER = {"type": "session", "version": 3, "id": "s"}


def chain(count: int, *, pad: int = 400) -> list[dict[str, Any]]:
    entries = [
        {
            "type": "message",
            "id": f"m{i}",
            "parentId": f"m{i - 1}" if i else None,
            "pad": "x" * pad,
        }
        for i in range(count)
    ]
    return [HEADER, *entries]


def write(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.write_bytes(jsonl.encode(entries))
    os.utime(path, ns=(PAST_NS, PAST_NS))
    return path


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Longer than what may be read when a mark is left."""
    path = write(tmp_path / "t.jsonl", chain(1000))
    assert path.stat().st_size > 4 * loaded.INLINE_BYTES
    return path


@asynccontextmanager
async def holding(path: Path, reading: Reading | None = None) -> AsyncIterator[HeldFile]:
    found = HeldFile(await WriteLock(path).acquire(), reading or Reading())
    try:
        yield found
    finally:
        found.release()


async def since(path: Path, mark: Mark, reading: Reading | None = None) -> Change:
    async with holding(path, reading) as found:
        return await found.advance(mark)


# ---------------------------------------------------------------------------- the leaf


ENDS: list[list[dict[str, Any]]] = [
    [],
    [{"type": "label", "id": "l", "parentId": "m3"}],
    [{"type": "session_info", "id": "i", "parentId": "m999"}],
    [{"type": "message", "id": "s", "parentId": "m5", "appendMode": "side"}],
    [{"type": "leaf", "id": "c", "parentId": None, "targetId": "m7"}],
    [{"type": "leaf", "id": "c", "parentId": None, "targetId": "m999"}],
    [{"type": "label", "id": f"l{i}", "parentId": "x", "pad": "x" * 900} for i in range(99)],
]


@pytest.mark.parametrize("end", ENDS, ids=range(len(ENDS)))
@pytest.mark.parametrize("torn", [b"", b'{"type":"mess'], ids=["whole", "torn"])
async def test_the_leaf_is_the_one_that_the_whole_file_has(
    long: Path, end: list[dict[str, Any]], torn: bytes
) -> None:
    with long.open("ab") as file:
        file.write(jsonl.encode(end) + torn)
    async with holding(long) as found:
        leaf, mark = found.leaf(), found.mark()
    async with holding(long) as found:
        assert leaf == mark.leaf == found.load().leaf
        assert mark.whole == found.size() - len(torn)


@pytest.mark.parametrize("entries", [[], [HEADER], [HEADER, *ENDS[1]]], ids=range(3))
async def test_a_file_without_conversation_has_its_leaf_too(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    path = write(tmp_path / "t.jsonl", entries)
    async with holding(path) as found:
        assert found.leaf() is None
        assert (await found.advance(found.mark())).kind == "same"


async def test_a_window_over_a_long_file_reads_a_bounded_part_of_it(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mark, release, take back, compare, append: as many bytes as for a short one."""
    real, sizes = fs.table.pread, []

    def counted(fd: int, size: int, at: int) -> bytes:
        data = real(fd, size, at)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(digest, "later", lambda *_, **__: None)
    monkeypatch.setattr(fs.table, "pread", counted)
    reading = Reading()
    async with holding(long, reading) as found:
        mark = found.mark()
    async with holding(long, reading) as found:
        change = await found.advance(mark)
        assert change == Change("same", (), "m999")
        found.append([{"type": "custom", "id": "e", "parentId": change.head}], final=True)
        assert found.leaf() == "e"
    assert sum(sizes) < loaded.INLINE_BYTES * 2 < long.stat().st_size


# -------------------------------------------------------------------------- the digest


@pytest.mark.parametrize("load", [True, False], ids=["loaded", "never read"])
@pytest.mark.parametrize("how", ["touch", "chmod", "rename over", "copy over with more"])
async def test_the_same_bytes_are_no_takeover_however_they_got_there(
    long: Path, load: bool, how: str
) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        if load:
            found.load()
        mark = found.mark()
    if not load:
        await asyncio.wait_for(asyncio.wrap_future(mark.proof.made), 20)
    more = jsonl.encode([{"type": "custom", "id": "e", "parentId": "m999"}])
    match how:
        case "touch":
            os.utime(long)
        case "chmod":
            long.chmod(0o640)
        case "rename over":
            (long.parent / "new").write_bytes(long.read_bytes())
            (long.parent / "new").rename(long)
        case _:
            (long.parent / "new").write_bytes(long.read_bytes() + more)
            (long.parent / "new").rename(long)
    change = await since(long, mark, reading)
    assert change.kind == ("appended" if how.startswith("copy") else "same"), change.detail
    assert change.head == ("e" if how.startswith("copy") else "m999")


async def test_an_edit_that_keeps_the_size_is_a_takeover(long: Path) -> None:
    async with holding(long) as found:
        found.load()
        mark = found.mark()
    data = bytearray(long.read_bytes())
    data[data.index(b"xxx")] = ord("y")
    with long.open("r+b") as file:
        file.write(data)
    change = await since(long, mark)
    assert change.kind == "rewritten"
    assert "written to in place" in change.detail


async def test_another_file_with_the_same_inode_number_is_another_file(long: Path) -> None:
    """Removed and made anew: the number comes back, the birth does not."""
    async with holding(long) as found:
        found.load()
        mark = found.mark()
    if mark.birth_ns is None:
        pytest.skip("this platform does not say when a file was made")
    data = long.read_bytes().replace(b"x", b"y", 1)
    more = jsonl.encode([{"type": "custom", "id": "e", "parentId": "m999"}])
    long.unlink()
    for number in range(500):  # A file system gives the lowest free number, or so.
        other = long.with_name(f"other{number}")
        other.write_bytes(data + more)
        if other.stat().st_ino == mark.inode:
            break
    else:
        pytest.skip("this file system does not give an inode's number again")
    other.rename(long)
    assert (await since(long, mark)).kind == "rewritten"


async def test_too_long_to_compare_counts_as_rewritten(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "DIGEST_BYTES_MAX", 4096)
    async with holding(long) as found:
        mark = found.mark()
        assert mark.proof is None
    os.utime(long)
    assert (await since(long, mark)).kind == "rewritten"


async def test_what_an_editor_changes_further_up_is_verifys_to_find(long: Path) -> None:
    """Same inode, grown, the tail untouched: the fence says `appended`, by design."""
    async with holding(long) as found:
        found.load()
        mark = found.mark()
    with long.open("r+b") as file:
        file.seek(long.read_bytes().index(b"{", 100))
        file.write(b"#")
        file.seek(0, os.SEEK_END)
        file.write(jsonl.encode([{"type": "custom", "id": "e", "parentId": "m999"}]))
    change = await since(long, mark)
    assert (change.kind, [each["id"] for each in change.entries]) == ("appended", ["e"])
    assert "unparsable" in [each.code for each in verify.verify(long.read_bytes()).problems]


async def test_who_waits_for_a_digest_may_give_up(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while the file is hashed: no descriptor stays, the lock can be had again."""
    async with holding(long) as found:
        found.load()
        mark = found.mark()
    os.utime(long)
    begun, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = digest.Job.run

    def slow(job: digest.Job) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        real(job)

    monkeypatch.setattr(digest.Job, "run", slow)
    open_before = len(os.listdir("/proc/self/fd"))
    async with holding(long) as found:
        asking = asyncio.create_task(found.advance(mark))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    go_on.set()
    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/fd")) > open_before:
            await asyncio.sleep(0.001)
    monkeypatch.undo()
    assert (await since(long, mark)).kind == "same"


# ------------------------------------------------------------- what this process has read


async def test_what_was_read_is_not_believed_after_an_edit_in_place(long: Path) -> None:
    reading = Reading()
    async with holding(long, reading) as found:
        assert "m3" in found.load().entries
    data = long.read_bytes().replace(b'"m3"', b'"M3"')
    with long.open("r+b") as file:
        file.write(data)
    async with holding(long, reading) as found:
        assert "M3" in found.load().entries


async def test_a_long_transcript_is_read_once_a_hold(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "KEPT_BYTES_MAX", 1000)
    reading = Reading()
    async with holding(long, reading) as found:
        tree = found.load()
        found.append([{"type": "custom", "id": "e", "parentId": tree.leaf}], final=True)
        assert found.load() is tree
        mark = found.mark()
    assert mark.digest is not None
    async with holding(long, reading) as found:
        assert found.load() is not tree
        assert found.load().leaf == "e"
