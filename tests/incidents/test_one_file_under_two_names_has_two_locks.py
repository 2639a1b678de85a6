"""
One file under two names had two locks (PR #86067: "resolved session JSONL"; #87159).

What happened there: the lock's path resolved the directory only, the owner's key the file as
well, the turn's queue `path.resolve`.  A transcript reached through a symlink, or a session
whose id was an alias of another, had two locks, or one lock and two queues.

What happens here: one identity, the inode: one lock and one line, whatever the name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import LockTimeoutError
from support.incident import nobody_is_blocked, said, texts, until


def by_symlink(path: Path) -> Path:
    other = path.with_name("alias.jsonl")
    other.symlink_to(path.name)
    return other


def by_directory(path: Path) -> Path:
    home = path.parent / "home"
    home.symlink_to(path.parent, target_is_directory=True)
    return home / path.name


def by_hard_link(path: Path) -> Path:
    other = path.with_name("linked.jsonl")
    os.link(path, other)
    return other


def by_dots(path: Path) -> Path:
    (path.parent / "sub").mkdir()
    return Path(f"{path.parent}/sub/../{path.name}")


WAYS = [by_symlink, by_directory, by_hard_link, by_dots]


@pytest.mark.parametrize("way", WAYS, ids=lambda each: each.__name__)
async def test_it_is_one_lock_and_one_line(tmp_path: Path, way: Callable[[Path], Path]) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\n')
    other = way(path)
    async with holdfast.Attempt(path) as first:
        with pytest.raises(LockTimeoutError):
            await asyncio.to_thread(holdfast.WriteLock(other, timeout_s=0).acquire_sync)
        window = first.prompt_window()
        await window.__aenter__()
        async with holdfast.Attempt(other) as second:
            await second.append(said("asked under the other name", "user"))
            waiting = second.prompt_window()
            opening = asyncio.create_task(waiting.__aenter__())
            await until(lambda: second.state == "in_line")
            await window.__aexit__(None, None, None)
            await first.append(said("first"))
            await first.dispose()
            view = await opening
            assert [each["message"]["content"] for each in view.before] == ["first"]
            await waiting.__aexit__(None, None, None)
            await second.append(said("second"))
    assert texts(path) == ["asked under the other name", "first", "second"]
    await nobody_is_blocked(path)
