"""
A transcript is never lost to a repair, whichever system call fails.

Method: see `support/faulty.py`.  After each fault, what stands at the path is the old file or
the new one, whole; the new one only beside a copy of the old one; and what was told is true.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
from typing import TYPE_CHECKING

import pytest

from holdfast._core.verify import verify
from holdfast.backends.files import fs
from holdfast.backends.files.tending.repairing import repair_file
from holdfast.errors import HoldfastError, UnavailableError
from support.faulty import (
    FaultyTable,
    check_nothing_leaked,
    descriptors,
    faults_of,
    installed,
)

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.types.tending import Repaired

HEADER = b'{"type":"session","version":3,"id":"s"}\n'
DAMAGED = HEADER + b'{"type":"x","id":"a","parentId":null}\nrubbish\n{"torn'
CODES = (errno.EIO, errno.ENOSPC, errno.EMFILE)


def scene(directory: Path) -> str:
    directory.mkdir()
    path = directory / "s.jsonl"
    path.write_bytes(DAMAGED)
    return str(path)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def copies(path: str) -> list[bytes]:
    return [read(copy) for copy in glob.glob(f"{path}.bak-*")]


def repaired(path: str) -> Repaired | HoldfastError:
    try:
        return repair_file(path, timeout_s=5)
    except HoldfastError as error:
        return error


def test_no_fault_loses_the_transcript(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    counting = FaultyTable()
    assert not isinstance(repaired(scene(tmp_path / "first")), HoldfastError)  # Once a process.
    path = scene(tmp_path / "counting")
    with installed(counting):
        assert not isinstance(repaired(path), HoldfastError)
    told: set[str] = set()
    for number, (fault, where) in enumerate(faults_of(counting.calls, CODES)):
        if "-getpid-" in where:
            continue  # It cannot fail.
        path = scene(tmp_path / str(number))
        before = descriptors()
        table = FaultyTable(**fault)
        with installed(table):
            done = repaired(path)
        assert table.fell, where
        check_nothing_leaked(path, before, where)
        check(path, done, where)
        told.add(type(done).__name__)
        again = repaired(path)
        assert not isinstance(again, HoldfastError), (where, again)
        assert verify(read(path)).ok, where
    assert {"Repaired", "UnavailableError", "DiskFullError"} <= told


def check(path: str, done: Repaired | HoldfastError, where: str) -> None:
    now, kept = read(path), copies(path)
    assert all(copy == DAMAGED for copy in kept), where
    if now != DAMAGED:
        assert verify(now).ok, where
        assert b'{"type":"x","id":"a","parentId":null}\n' in now, where
        assert len(kept) == 1, where
    unsure = isinstance(done, UnavailableError) and done.landed is None
    if not unsure:
        assert (now == DAMAGED) == isinstance(done, HoldfastError), (where, done)


def test_a_short_write_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scene(tmp_path / "short")

    def short(fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, bytes(data)[:7])

    monkeypatch.setattr(fs.table, "write", short)
    done = repaired(path)
    assert not isinstance(done, HoldfastError)
    check(path, done, "short")
