"""
Whatever others do to a transcript inside a window, the fence says what has become of it.

Oracle: the bytes themselves, before and after.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core import jsonl
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.backends.files.transcript.loaded import Reading
from holdfast.types import Change, Mark

PAST_NS = 1_000_000_000  #: So that a write always shows: no two are within one tick.
LINES: list[dict[str, Any]] = [
    {"type": "session", "version": 3, "id": "s"},
    *({"type": "message", "id": f"m{i}", "parentId": f"m{i - 1}", "pad": "x" * 900}
      for i in range(12)),
]  # fmt: skip
CONTENT = jsonl.encode(LINES)
MORE = jsonl.encode([{"type": "custom", "id": "foreign", "parentId": "m11"}])


def put_instead(path: Path, data: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(data)
    os.replace(other, path)


def patch(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        was = file.read(1)
        file.seek(at)
        file.write(b"y" if was != b"y" else b"z")


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def make_anew(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


EDITS: dict[str, Callable[[Path], object]] = {
    "append": lambda path: append(path, MORE),
    "append a torn line": lambda path: append(path, MORE[:20]),
    "touch": os.utime,
    "chmod": lambda path: path.chmod(0o640),
    "rename over, the same": lambda path: put_instead(path, path.read_bytes()),
    "rename over, with more": lambda path: put_instead(path, path.read_bytes() + MORE),
    "rename over, edited": lambda path: put_instead(
        path, path.read_bytes().replace(b"x", b"y", 1)
    ),
    "make anew, the same": lambda path: make_anew(path, path.read_bytes()),
    "make anew, edited": lambda path: make_anew(path, path.read_bytes().replace(b"x", b"y", 1)),
    "truncate": lambda path: os.truncate(path, path.stat().st_size // 2),
    "edit before the tail": lambda path: patch(path, 500),
    "edit in the tail": lambda path: patch(path, len(CONTENT) - 500),
    "read": lambda path: path.read_bytes(),
}


async def around(path: Path, edits: list[str], reading: Reading, *, load: bool) -> Change:
    mark = await left(path, reading, load=load)
    for name in edits:
        EDITS[name](path)
    held = HeldFile(await WriteLock(path).acquire(), reading)
    try:
        return await held.advance(mark)
    finally:
        held.release()


async def left(path: Path, reading: Reading, *, load: bool) -> Mark:
    held = HeldFile(await WriteLock(path).acquire(), reading)
    try:
        if load:
            held.load()
        return held.mark()
    finally:
        held.release()


def expected(before: bytes, after: bytes, edits: list[str]) -> str:
    if after == before:
        return "same"
    if after.startswith(before):
        return "appended"
    # What an editor changed before the tail of a file that has grown is `verify`'s to find.
    kept_its_inode = not any(name.startswith(("rename", "make")) for name in edits)
    tail = slice(len(before) - 4096, len(before))
    unseen = len(after) > len(before) and after[tail] == before[tail]
    return "appended" if kept_its_inode and unseen else "rewritten"


@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(st.sampled_from(sorted(EDITS)), max_size=4),
    torn=st.sampled_from([b"", b'{"type":"cus']),
    load=st.booleans(),
)
def test_what_others_do_inside_a_window_is_told_apart(
    edits: list[str], torn: bytes, load: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t.jsonl"
        path.write_bytes(CONTENT + torn)
        os.utime(path, ns=(PAST_NS, PAST_NS))
        change = asyncio.run(around(path, edits, Reading(), load=load))
        after = path.read_bytes()
    assert change.kind == expected(CONTENT + torn, after, edits), change.detail
    if change.kind != "rewritten":
        assert change.head == ("foreign" if b'"foreign"' in after_lines(after) else "m11")


def after_lines(data: bytes) -> bytes:
    """The whole lines that parse."""
    return jsonl.encode(line.entry for line in jsonl.lines(data) if line.entry is not None)
