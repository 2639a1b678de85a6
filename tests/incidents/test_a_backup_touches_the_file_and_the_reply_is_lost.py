"""
A backup touched the file, and the reply was lost (issues #92109, #92123).

What happened there: the fingerprint was device, inode, size, mtime and ctime, all five; a
chmod, a backup's hard link (ctime), a touch, or a sync tool that put identical bytes on a new
inode was a takeover.  ctime alone was let pass later, but not once the attempt had written.

What happens here: what counts is whether the bytes that stood at our mark still stand there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import TakeoverError
from support.incident import nobody_is_blocked, said, texts


def chmod(path: Path) -> None:
    path.chmod(0o640)


def touch(path: Path) -> None:
    os.utime(path)


def touch_long_ago(path: Path) -> None:
    os.utime(path, (1, 1))


def link(path: Path) -> None:
    """ctime alone: what snapshotting backups do."""
    copy = path.with_suffix(".bak")
    os.link(path, copy)
    copy.unlink()


def replace(path: Path) -> None:
    """Identical bytes, new inode: what sync tools and careful editors do."""
    copy = path.with_suffix(".new")
    shutil.copy2(path, copy)
    copy.replace(path)


def write_the_same(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def read(path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"open({str(path)!r}).read()"], check=True)


TOUCHES = [chmod, touch, touch_long_ago, link, replace, write_the_same, read]


@pytest.mark.parametrize("happens", TOUCHES, ids=lambda each: each.__name__)
async def test_the_reply_is_written(tmp_path: Path, happens: Callable[[Path], None]) -> None:
    """In the first window; after a write of ours in it; and in a later one."""
    path = tmp_path / "talk.jsonl"
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))
        for n in range(2):
            async with attempt.prompt_window() as window:
                happens(path)
                await attempt.append(said(f"tool {n}"))
                happens(path)
            assert window.entries == ()
            await attempt.append(said(f"reply {n}"))
        assert attempt.statistics().foreign == 0
    assert texts(path) == ["q", "tool 0", "reply 0", "tool 1", "reply 1"]
    await nobody_is_blocked(path)


async def test_other_bytes_of_the_same_length_are_a_takeover_all_the_same(
    tmp_path: Path,
) -> None:
    """Else all the above would prove nothing; and the reply is kept even then."""
    path = tmp_path / "talk.jsonl"
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("question", "user"))
        with pytest.raises(TakeoverError):
            async with attempt.prompt_window():
                path.write_bytes(path.read_bytes().replace(b"question", b"QUESTION"))
        kept = await attempt.salvage(said("the reply"))
    assert isinstance(kept, list)
    assert kept[0]["appendMode"] == "side"
    assert "the reply" in path.read_text()
