"""An import is a session with its whole transcript, or nothing, whichever call fails."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from typing import TYPE_CHECKING

import pytest

from holdfast._core.settings import Settings
from holdfast._core.verify import verify
from holdfast.backends.files.control import tending as rows
from holdfast.backends.files.store import FilesStore
from holdfast.backends.files.tending.sessions import FilesTending
from holdfast.errors import BadRequestError, HoldfastError, UnavailableError
from support.faulty import FaultyTable, faults_of, installed

if TYPE_CHECKING:
    from pathlib import Path

LINES = [
    {"type": "session", "version": 3, "id": "s"},
    {"type": "x", "id": "a", "parentId": None},
    {"type": "x", "id": "b", "parentId": "a"},
]


def test_an_import_is_whole_or_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    store = FilesStore(str(tmp_path / "state"), Settings())
    tender = FilesTending(store)
    sessions = tmp_path / "state" / "agents" / "main" / "sessions"
    try:
        tender.bring(str(source), "agent:main:first")
        counting = FaultyTable()
        with installed(counting):
            tender.bring(str(source), "agent:main:counted")
        refused = 0
        for number, (fault, where) in enumerate(
            faults_of(counting.calls, (errno.EIO, errno.ENOSPC))
        ):
            if "-getpid-" in where:
                continue  # It cannot fail.
            key, before = f"agent:main:k{number}", set(sessions.iterdir())
            error: HoldfastError | None = None
            with installed(FaultyTable(**fault)):
                try:
                    tender.bring(str(source), key)
                except HoldfastError as refusal:
                    error = refusal
            new = [p for p in set(sessions.iterdir()) - before if p.name.endswith(".jsonl")]
            written = False
            try:
                store.control.tend(lambda db, key=key: rows.unwritten(db, key))  # type: ignore[misc]
            except BadRequestError:
                written = True
            if not written:
                refused += 1
                assert error is not None, where
                unsure = isinstance(error, UnavailableError) and error.landed is None
                assert unsure or new == [], where
            else:
                [path] = new
                report = verify(path.read_bytes())
                assert (report.ok, report.entries) == (True, 2), where
        assert refused
    finally:
        asyncio.run(store.close())
