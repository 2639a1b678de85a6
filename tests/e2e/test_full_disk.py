"""
A state directory whose disk is full, or has become read-only: what was accepted stays accepted,
whoever asks for more is told so by type, and with room again everything goes on.

On a small tmpfs in a mount namespace; where that is not permitted the tests are skipped.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from support.mounts import on_tmpfs

if TYPE_CHECKING:
    from pathlib import Path

CHILD = os.path.join(os.path.dirname(__file__), "_full_disk_child.py")


def told(options: str, tmp_path: Path, scenario: str) -> dict[str, Any]:
    where = tmp_path / "mount"
    said = on_tmpfs(options, where, [sys.executable, CHILD, scenario, str(where)])
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def test_with_no_byte_left_what_was_accepted_is_answered_later(tmp_path: Path) -> None:
    found = told("size=2m", tmp_path, "bytes")
    assert found["kinds"] == ["replied"]
    assert found["refused"] == "DiskFullError"
    assert "DiskFullError" in found["met"], found


def test_with_no_inode_left_what_was_accepted_is_answered_later(tmp_path: Path) -> None:
    found = told("size=8m,nr_inodes=100", tmp_path, "inodes")
    assert found["kinds"] == ["replied"]
    assert "DiskFullError" in found["met"], found


def test_a_read_only_disk_is_told_by_type_and_forgotten_when_it_is_over(tmp_path: Path) -> None:
    assert told("size=8m", tmp_path, "remounted") == {
        "open": "ReadOnlyError",
        "lock": "ReadOnlyError",
    }


def test_the_write_lock_leaves_nothing_half_on_a_full_disk(tmp_path: Path) -> None:
    found = told("size=1m", tmp_path, "lock_bytes")
    assert found["told"] == ["DiskFullError"] * 3
    assert found["left"] == []
    assert found["lines"] >= 1


def test_the_write_lock_needs_an_inode_and_says_so(tmp_path: Path) -> None:
    """Its gate and its claim are files: without room for them there is no lock, and no write."""
    found = told("size=1m,nr_inodes=16", tmp_path, "lock_inodes")
    assert found == {"told": ["DiskFullError"] * 3, "left": [], "lines": 1}
