"""The files store keeps every promise that the runtime relies on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast._core.settings import Settings
from holdfast.backends.files import fs
from holdfast.backends.files.store import FilesStore
from holdfast.ports import Guarantees, Store
from holdfast.testing import conformance
from holdfast.types import Session


@pytest.mark.parametrize("clause", conformance.CLAUSES, ids=conformance.name)
async def test_files(clause: Any, tmp_path: Path) -> None:
    await clause(lambda: FilesStore(str(tmp_path / "state"), Settings()))


def rewrite(
    store: Store, session: Session, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    """As an editor saves: a new file beside it, renamed over it."""
    path = Path(store.transcripts.path(session))
    lines = path.read_bytes().splitlines(keepends=True)
    new = path.with_suffix(".new")
    new.write_bytes(b"".join(change(lines)))
    os.replace(new, path)


@pytest.mark.parametrize("clause", conformance.REWRITES, ids=conformance.name)
async def test_files_rewritten(clause: Any, tmp_path: Path) -> None:
    await clause(lambda: FilesStore(str(tmp_path / "state"), Settings()), rewrite)


@pytest.mark.parametrize("clause", conformance.CLOCKS, ids=conformance.name)
async def test_files_in_time(
    clause: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = [1_000_000]

    def step(milliseconds: int) -> None:
        now_ms[0] += milliseconds

    monkeypatch.setattr(fs.table, "monotonic", lambda: (now_ms[0] + 0.5) / 1000)
    await clause(lambda: FilesStore(str(tmp_path / "state"), Settings()), step)


async def test_what_it_promises_beyond_the_suite(tmp_path: Path) -> None:
    store = FilesStore(str(tmp_path), Settings())
    await store.close()
    assert store.guarantees == Guarantees.FENCES_APPENDS | Guarantees.PROVES_DEATH
